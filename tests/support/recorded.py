"""Small data sets of known content: observation k of episode i has 1000 i + k in its first dimension."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from mbkit.data import Columns, Dataset

LENGTHS = st.lists(st.integers(1, 7), min_size=3, max_size=6)


def observations(episode: int, steps: int, width: int = 2, dtype: Any = np.float64) -> np.ndarray:
    """The steps + 1 observations of an episode, [steps + 1, width]."""
    obs = 1000.0 * episode + np.arange(steps + 1)[:, None] + np.arange(width) / 8
    return obs.astype(dtype)


def columns(lengths: list[int], choices: int = 0, dtype: Any = np.float64, width: int = 2) -> Columns:
    """Episodes of these lengths: the even ones terminate, episode 1 carries both flags at its end, 3, 5, ... are truncated."""
    parts = [observations(i, n, width, dtype) for i, n in enumerate(lengths)]
    episode = np.repeat(np.arange(len(lengths)), lengths)
    last = np.append(np.diff(episode), 1).astype(bool)
    rows = np.arange(len(episode))
    action = rows % choices + 3 if choices else np.stack([np.sin(rows), 2 * np.cos(rows)], 1).astype(dtype)
    terminated, truncated = last & ((episode % 2 == 0) | (episode == 1)), last & (episode % 2 == 1)
    obs, next_obs = (np.concatenate([p[s] for p in parts]) for s in (slice(None, -1), slice(1, None)))
    return Columns(obs, action, rows * 0.1, next_obs, terminated, truncated, episode)


def about(choices: int = 0) -> dict[str, Any]:
    """What goes with `columns`."""
    return {"choices": choices, "start": 3} if choices else {"action_low": [-1, -2], "action_high": [1, 2]}


def dataset(lengths: list[int], choices: int = 0, dtype: Any = np.float64, **facts: Any) -> Dataset:
    """A data set in memory."""
    return Dataset.of(columns(lengths, choices, dtype), **{**about(choices), **facts})


def same(a: Columns, b: Columns) -> bool:
    """Whether values and dtypes are equal, column by column."""
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a, b, strict=True))
