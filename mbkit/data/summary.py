"""What is in a data set: counts, returns, lengths, what is missing, and how much of the action space it covers; one pass, chunk by chunk.

Letters: N rows, E episodes, O observation, A action.
"""

from typing import Any

import numpy as np

from mbkit.data.checks import RowChecks
from mbkit.data.columns import Array, Columns, Fingerprint
from mbkit.data.dataset import Dataset
from mbkit.data.scores import scores_of
from mbkit.errors import UserError

BINS = 20  # equal parts of each action dimension's range, of which those that hold an action are counted
NUMBERS = ("obs", "action", "reward", "next_obs")


class Totals:
    """Sums over the rows of a data set."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.returns = np.zeros(data.episodes)
        self.not_finite = dict.fromkeys(NUMBERS, 0)
        self.terminated = self.truncated = self.unflagged = 0
        self.low: dict[str, Array] = {}  # smallest value of each dimension of each column
        self.high: dict[str, Array] = {}
        self.covered = np.zeros((data.action_dim, data.choices or BINS), np.int64)  # actions in each part of the range
        self.at_bounds = 0
        self.types: dict[str, str] = {}

    def add(self, chunk: Columns) -> None:
        """Take in the following rows."""
        first = int(chunk.episode[0])
        sums = np.bincount(chunk.episode - first, weights=chunk.reward)
        self.returns[first : first + len(sums)] += sums
        self.terminated += int(chunk.terminated.sum())
        self.truncated += int((chunk.truncated & ~chunk.terminated).sum())
        for name in NUMBERS:
            column = getattr(chunk, name)
            self.types[name] = column.dtype.name
            if column.dtype.kind == "f":
                self.not_finite[name] += int((~np.isfinite(column)).sum())
            self._range(name, column)
        self._cover(chunk.action)

    def _range(self, name: str, column: Array) -> None:
        low, high = np.nanmin(column, 0), np.nanmax(column, 0)
        self.low[name] = np.fmin(self.low.get(name, low), low)
        self.high[name] = np.fmax(self.high.get(name, high), high)

    def _cover(self, action: Array) -> None:
        data = self.data
        if data.choices:
            within = (action >= data.start) & (action < data.start + data.choices)
            self.covered[0] += np.bincount(action[within].astype(np.int64) - data.start, minlength=data.choices)
            return
        low, high = data.box
        width = np.where(high > low, high - low, 1)
        share = np.nan_to_num((action - low) / width, nan=-1, posinf=-1, neginf=-1)
        bins = np.clip((share * BINS).astype(np.int64), 0, BINS - 1)
        for n in range(data.action_dim):
            inside = (share[:, n] >= -1e-5) & (share[:, n] <= 1 + 1e-5)
            self.covered[n] += np.bincount(bins[inside, n], minlength=BINS)
        self.at_bounds += int(((share <= 1e-5) | (share >= 1 - 1e-5)).sum())

    def constant(self) -> list[str]:
        """Names of the dimensions that have one value in all rows."""
        names = {"obs": self.data.obs_names, "action": self.data.action_names}
        constant = []
        for column in ("obs", "action", "reward"):
            same = np.atleast_1d(self.low[column] == self.high[column])
            spoken = names.get(column, ()) or [f"{column}[{n}]" if self.low[column].ndim else column for n in range(len(same))]
            constant += [spoken[n] for n in np.flatnonzero(same)]
        return constant


def summary(data: Dataset) -> dict[str, Any]:
    """What `mbkit data inspect` prints, as values that JSON can hold.

    Rows that fail a check are counted too; the sentence for the first of them is the entry `problem`, else None. `nan` counts numbers that
    are not finite. `action_coverage` is the share of each action dimension's range in which actions lie, in parts of 1/20; of discrete
    actions, the share of each. Returns are undiscounted.

    Raises:
        UserError: the file cannot be read, or a column has another shape than it must have.
    """
    totals, checks, fingerprint, problem = Totals(data), RowChecks(data), Fingerprint(), None
    with np.errstate(all="ignore"):
        for chunk in data.raw():
            checks.shapes(chunk)
            fingerprint.add(chunk)
            totals.add(chunk)
            try:
                if problem is None:
                    checks(chunk)
            except UserError as error:
                problem = str(error)
    facts: dict[str, Any] = {"path": data.name, "format": data.format, "env": data.env, "env_kwargs": data.env_kwargs}
    facts |= {"rows": data.rows, "episodes": data.episodes, **_spaces(data, totals), **_episodes(data, totals), **_actions(data, totals)}
    scores = scores_of(data.env, facts["return_mean"], facts["return_std"]) if data.has_reward else []
    facts["scores"] = [{"mean": score.mean, "std": score.std, "convention": score.convention} for score in scores]
    facts |= {"nan": totals.not_finite, "constant_columns": totals.constant(), "notes": data.notes, "problem": problem}
    return {**facts, "sha256": fingerprint.hexdigest()}


def _spaces(data: Dataset, totals: Totals) -> dict[str, Any]:
    """Observations and actions: dimensions, names, types, bounds."""
    observation = {"dim": data.obs_dim, "dtype": totals.types["obs"], "names": list(data.obs_names)}
    action: dict[str, Any] = {"dtype": totals.types["action"], "names": list(data.action_names)}
    if data.choices:
        action |= {"discrete": True, "n": data.choices, "start": data.start}
    else:
        action |= {"discrete": False, "dim": data.action_dim, "low": data.box[0].tolist(), "high": data.box[1].tolist()}
    return {"observation_space": observation, "action_space": action}


def _episodes(data: Dataset, totals: Totals) -> dict[str, Any]:
    """Returns, lengths, and how episodes end."""
    facts: dict[str, Any] = {"has_reward": data.has_reward}
    for name, values in (("return", totals.returns), ("length", data.lengths)):
        measures = {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max()}
        facts |= {f"{name}_{key}": float(value) if data.has_reward or name == "length" else None for key, value in measures.items()}
    cut = data.episodes - totals.terminated - totals.truncated
    return {**facts, "terminated": totals.terminated, "truncated": totals.truncated, "neither": max(0, cut)}


def _actions(data: Dataset, totals: Totals) -> dict[str, Any]:
    """Which part of the action space the actions cover."""
    if data.choices:
        shares = totals.covered[0] / max(1, totals.covered[0].sum())
        return {"action_coverage": shares.round(6).tolist(), "actions_at_bounds": None}
    coverage = (totals.covered > 0).mean(1)
    return {"action_coverage": coverage.tolist(), "actions_at_bounds": totals.at_bounds / (data.rows * data.action_dim)}
