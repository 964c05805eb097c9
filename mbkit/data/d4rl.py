"""HDF5 files in D4RL's layout: flat observations, actions, rewards, terminals, mostly timeouts, sometimes next_observations.

Files written here have next_observations, and in metadata/mbkit what D4RL's layout has no place for, so that reading them is exact.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mbkit.data import about, flat, hdf5
from mbkit.data.columns import Array, ends_of, last_rows
from mbkit.data.dataset import Dataset
from mbkit.data.native import empty_column, store

NAMES = {
    "obs": "observations",
    "action": "actions",
    "reward": "rewards",
    "terminated": "terminals",
    "next_obs": "next_observations",
    "truncated": "timeouts",
}
ABOUT = "metadata/mbkit"


def recognises(path: Path, head: bytes) -> bool:
    """Whether this is an HDF5 file with at least two of D4RL's columns."""
    if head[:8] != hdf5.SIGNATURE:
        return False
    with hdf5.opened(path) as file:
        return sum(name in file for name in NAMES.values()) >= 2


def read(path: Path, low: Any = None, high: Any = None, choices: int | None = None, env: str | None = None) -> Dataset:
    """The data set in a file of D4RL's layout.

    Args:
        path: the file.
        low: bounds of the actions, one or one for each dimension; without them [-1, 1], as in all of D4RL.
        high: as `low`.
        choices: number of discrete actions.
        env: id of the environment.

    Raises:
        UserError: a column is absent or does not fit the others.
    """
    options = {"low": low, "high": high, "choices": choices, "env": env}
    with hdf5.opened(path) as file:
        names = {role: name for role, name in NAMES.items() if name in file or role in flat.REQUIRED}
        for name in names.values():
            hdf5.column(file, path, name)
        facts = _facts(path, file, options)

    @contextmanager
    def opened() -> Iterator[Mapping[str, flat.Column]]:
        with hdf5.opened(path) as file:
            yield {name: file[name] for name in names.values()}

    return flat.read(path, "d4rl", opened, NAMES, facts)


def _facts(path: Path, file: h5py.File, options: dict[str, Any]) -> dict[str, Any]:
    """What is known beside the rows: from the file where mbkit wrote it, or from the options."""
    if ABOUT in file:
        group = hdf5.child(file, path, "metadata", h5py.Group)
        content = bytes(hdf5.column(group, path, "mbkit", 1, ABOUT)[:].astype(np.uint8))
        return about.from_marked(content, path, options)
    actions = file[NAMES["action"]]
    facts = flat.action_choices(path, NAMES["action"], actions, options, assumed=True)
    others = sorted(set(file) - set(NAMES.values()) - {"metadata"})
    notes = [f"left out, since no column of a data set holds them: {', '.join(others)}"] if others else []
    return {**facts, "env": options["env"], "notes": [*facts.get("notes", []), *notes]}


def write(data: Dataset, path: Path) -> Path:
    """Write the data set in D4RL's layout, whole or not at all; timeouts mark the end of every episode that does not terminate."""
    with hdf5.replacing(path) as (file, check):
        ends, row, unmarked = ends_of(data.lengths), 0, []
        for chunk in data.chunks():
            last = last_rows(ends, row, row + len(chunk.reward))
            bare = last & ~chunk.terminated & ~chunk.truncated
            unmarked += chunk.episode[bare].tolist()
            marked = chunk._replace(truncated=chunk.truncated | bare)
            for role, name in NAMES.items():
                values: Array = getattr(marked, role)
                if not row:
                    empty_column(file, name, (data.rows, *values.shape[1:]), values.dtype)
                file[name][row : row + len(last)] = values
            row += len(last)
            check()
        store(file, ABOUT, np.frombuffer(about.marked(data, unmarked).encode(), np.uint8))
    return path
