"""The replay of an mbrl-lib run, `replay_buffer.npz`: columns in the order of its ring, with or without a list of trajectories.

A ring that was full once has its newest rows before its oldest ones, and does not say where: an episode ends where a row's successor is not
the following row's observation. Actions are in the environment's units.

Letters: N rows.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np

from mbkit.data import flat
from mbkit.data.columns import CHUNK, Array
from mbkit.data.dataset import Dataset
from mbkit.data.hdf5 import NUMERIC
from mbkit.data.npz import ZIP, opened_archive, opened_members
from mbkit.errors import UserError

COLUMNS = {"obs", "next_obs", "action", "reward"}
TRAJECTORIES = "trajectory_indices"  # first row and row behind the last of each
DONE = "done"  # in the place of terminated and truncated, before mbrl-lib 0.2


def recognises(path: Path, head: bytes) -> bool:
    """Whether this is an archive with mbrl-lib's columns, and its list of trajectories or its `done`."""
    if head[:4] != ZIP:
        return False
    with opened_archive(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
    return names >= COLUMNS and (TRAJECTORIES in names or (DONE in names and "terminated" not in names))


def read(path: Path, low: Any = None, high: Any = None, choices: int | None = None, env: str | None = None) -> Dataset:
    """The data set in a replay of mbrl-lib.

    Args:
        path: the file.
        low: bounds of the actions, one or one for each dimension; these and `high`, or `choices`, are needed.
        high: as `low`.
        choices: number of discrete actions.
        env: id of the environment.

    Raises:
        UserError: an array of objects, a column that is absent or does not fit the others, or nothing known of the actions.
    """
    options = {"low": low, "high": high, "choices": choices}
    with opened_members(path) as members:
        for name, member in members.items():
            if member.dtype.kind not in NUMERIC:
                raise UserError(f"{path}: {name}: expected numbers, got {member.dtype.name}, which is not read")
        old = DONE in members and "terminated" not in members
        names = {**{name: name for name in (*COLUMNS, "truncated")}, "terminated": DONE if old else "terminated", "episode": "episode"}
        facts = flat.action_choices(path, "action", members["action"], options, assumed=False)
        episode = _episodes(path, members, names)
    notes = [f"{DONE} is taken as terminated, though it may also be set where an episode was cut at its time limit"] if old else []
    facts |= {"env": env, "notes": notes, "source": {"format": "mbrl-lib", "env": env}}

    @contextmanager
    def opened() -> Iterator[Mapping[str, flat.Column]]:
        with opened_members(path) as members:
            yield cast("dict[str, flat.Column]", {**members, "episode": episode})

    return flat.read(path, "mbrl-lib", opened, names, facts)


def _episodes(path: Path, members: Mapping[str, flat.Column], names: Mapping[str, str]) -> Array:
    """Number of the episode of each row, int64 [N]; UserError where columns are absent or of unequal lengths."""
    rows = row_count(path, members, names)
    begin = np.zeros(rows + 1, np.bool_)  # and the row behind the last
    for role in ("terminated", "truncated"):
        if names[role] in members:
            begin[1:] |= np.asarray(members[names[role]][:]).reshape(-1) != 0
    if TRAJECTORIES in members and members[TRAJECTORIES].shape[0]:
        bounds = np.asarray(members[TRAJECTORIES][:])
        if bounds.dtype.kind not in "iu" or bounds.shape[1:] != (2,) or (bounds < 0).any() or (bounds > rows).any():
            raise UserError(f"{path}: {TRAJECTORIES}: expected pairs of rows from 0 to {rows}, got shape {list(bounds.shape)}")
        begin[bounds.reshape(-1)] = True
    for start in range(0, rows - 1, CHUNK):
        obs, following = members["obs"][start : start + CHUNK + 1], members["next_obs"][start : start + CHUNK]
        differs = (obs[1:] != following[: len(obs) - 1]).reshape(len(obs) - 1, -1).any(1)
        begin[start + 1 : start + 1 + len(differs)] |= differs
    episode: Array = np.cumsum(begin[:rows]) - begin[0]
    return episode


def row_count(path: Path, members: Mapping[str, flat.Column], names: Mapping[str, str]) -> int:
    """N; UserError where a column is absent, or columns are of unequal lengths or shapes."""
    if names["terminated"] not in members:
        raise UserError(f"{path}: expected a column 'terminated' or {DONE!r}, got neither")
    lengths = {name: members[name].shape[0] if members[name].shape else -1 for name in names.values() if name in members}
    if len(set(lengths.values())) > 1 or members["obs"].shape != members["next_obs"].shape:
        named = ", ".join(f"{name} {list(members[name].shape)}" for name in lengths)
        raise UserError(f"{path}: expected columns of equal lengths, got {named}")
    return int(members["obs"].shape[0])
