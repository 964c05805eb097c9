"""Minari's data sets, read with h5py alone (pyarrow where they are Arrow or Parquet) and written by Minari.

A data set is a folder ROOT/ID with the folder `data` inside. What mbkit knows beside Minari's own entries travels in the entry "mbkit" of
metadata.json, so that writing and reading is exact.

Letters: T steps of an episode, B rows, E episodes.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from mbkit.data import about
from mbkit.data.columns import CHUNK, Columns, ends_of
from mbkit.data.dataset import Dataset
from mbkit.data.minari_files import Facts, layout_of
from mbkit.data.nested import NotInSpace, Space, space_of, width
from mbkit.envs.spaces import ActionMap, ObservationMap
from mbkit.errors import UserError
from mbkit.paths import is_dir, is_file
from mbkit.storage import read_json

METADATA = "metadata.json"
SPACES = ("observation_space", "action_space")
OF_THE_COPY = ("total_episodes", "total_steps", "data_format", "jpeg_encoding", "minari_version", "dataset_size", "mbkit")  # not provenance


def recognises(path: Path, head: bytes) -> bool:
    """Whether this is the folder of a data set, or the folder `data` inside."""
    return is_dir(path) and is_file(_data_folder(path) / METADATA)


def _data_folder(path: Path) -> Path:
    return path if is_file(path / METADATA) else path / "data"


def read(path: Path) -> Dataset:
    """The data set in a folder of Minari's; UserError where it is damaged, or its spaces have no vector form."""
    folder = _data_folder(path)
    metadata = read_json(folder / METADATA)
    for key in SPACES:
        if not isinstance(metadata, dict) or key not in metadata:
            raise UserError(f"{folder / METADATA}: expected the entry {key}, got none")
    spaces = [space_of(metadata[key], folder / METADATA, key) for key in SPACES]
    facts, obs_dim = _actions(spaces[1], path), ObservationMap(spaces[0], str(path)).dim
    kind = metadata.get("data_format", "hdf5")
    count = metadata.get("total_episodes")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise UserError(f"{path}: expected at least one episode, got {count!r:.60}")
    with layout_of(folder, kind, spaces[0]) as layout:
        episodes = [layout.facts(episode) for episode in range(count)]
    lengths = np.array([episode.steps for episode in episodes], np.int64)
    stored = _stored(metadata, path, count)
    facts |= _provenance(metadata, episodes) if stored is None else stored
    return Dataset(lambda start, stop: _stream(path, folder, kind, spaces, lengths, start, stop), lengths, obs_dim, path, "minari", **facts)


def _actions(space: Space, path: Path) -> dict[str, Any]:
    """Arguments of Dataset on actions."""
    mapped = ActionMap(space, str(path))
    if mapped.parts:
        raise UserError(f"{path}: action space: expected one discrete action a step, got {space}; data sets hold no several at once")
    if mapped.discrete:
        return {"choices": mapped.dim, "start": int(np.reshape(mapped.start, -1)[0])}
    return {"action_low": mapped.low, "action_high": mapped.high}


def _provenance(metadata: dict[str, Any], episodes: list[Facts]) -> dict[str, Any]:
    """Arguments of Dataset that a data set of Minari's own brings."""
    entries = {key: value for key, value in metadata.items() if key not in OF_THE_COPY}
    source: dict[str, Any] = {"format": "minari", "minari": entries}
    source |= {"ids": [episode.id for episode in episodes], "seeds": [episode.seed for episode in episodes]}
    dropped = sorted({name for episode in episodes for name in episode.dropped})
    notes = [f"left out, since no column of a data set holds them: {', '.join(dropped)}"] if dropped else []
    env, env_kwargs = environment(metadata.get("env_spec"))
    return {"env": env, "env_kwargs": env_kwargs, "source": source, "notes": notes}


def environment(text: Any) -> tuple[str | None, dict[str, Any]]:
    """Id and constructor's arguments of an environment from Gymnasium's serialised specification; those it has anyway are left out."""
    try:
        entries = json.loads(text)
        name, kwargs = str(entries["id"]), dict(entries.get("kwargs") or {})
    except (ValueError, LookupError, TypeError, RecursionError):
        return None, {}
    limit = entries.get("max_episode_steps")
    registered = gymnasium.registry.get(name)
    usual = {} if registered is None else json.loads(json.dumps(registered.kwargs, default=str))
    changed = {key: value for key, value in kwargs.items() if key != "render_mode" and (key not in usual or usual[key] != value)}
    if registered is not None and limit is not None and limit != registered.max_episode_steps:
        changed["max_episode_steps"] = limit
    return name, changed


def _stored(metadata: dict[str, Any], path: Path, count: int) -> dict[str, Any] | None:
    """What mbkit stored beside Minari's entries; None where it didn't, or where Minari has made another data set of it since."""
    content = metadata.get("mbkit")
    if not isinstance(content, dict) or content.get("episodes") != count or content.get("dataset_id") != metadata.get("dataset_id"):
        return None
    return about.from_json(json.dumps(content.get("about")), path)


def _stream(path: Path, folder: Path, kind: str, spaces: list[Space], lengths: Any, start: int, stop: int) -> Iterator[Columns]:
    """Rows start to stop, no piece longer than a chunk or an episode."""
    observation, action = spaces
    discrete = ActionMap(action, str(path)).discrete
    ends = ends_of(lengths)
    first, last = np.searchsorted(ends, [start, stop - 1], side="right")
    with layout_of(folder, kind, spaces[0]) as layout:
        for episode in range(int(first), int(last) + 1):
            begin = int(ends[episode] - lengths[episode])
            for row in range(max(start, begin) - begin, min(stop, int(ends[episode])) - begin, CHUNK):
                behind = min(row + CHUNK, min(stop, int(ends[episode])) - begin)
                try:
                    obs = layout.observations(episode, row, behind + 1, observation)
                except NotInSpace as error:
                    raise UserError(f"{path}: observation {row + error.row} of episode {episode}: {error.text}") from error
                actions = layout.actions(episode, row, behind, action)
                if actions.shape[1:] != action.shape or obs.shape[1] != width(observation) or len(obs) != len(actions) + 1:
                    shapes = f"{list(obs.shape)} and {list(actions.shape)}"
                    raise UserError(f"{path}: episode {episode}: expected observations and actions of their spaces, got {shapes}")
                actions = actions.reshape(-1) if discrete else actions.reshape(len(actions), -1)
                reward, terminated, truncated = (
                    layout.steps(episode, name, row, behind) for name in ("rewards", "terminations", "truncations")
                )
                number = np.full(len(actions), episode, np.int64)
                yield Columns(obs[:-1], actions, reward, obs[1:], terminated.astype(bool), truncated.astype(bool), number)
