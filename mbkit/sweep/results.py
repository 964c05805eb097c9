"""What a sweep came to: a line for each group, over its seeds."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mbkit import stats
from mbkit.errors import UserError
from mbkit.storage import read_json
from mbkit.sweep.planning import Combination, Planned
from mbkit.sweep.worker import is_finished


class Returns(NamedTuple):
    """The final returns of a group's finished runs."""

    group: Combination
    returns: list[float]  # one for each seed; empty where no run was scored
    runs: int  # that finished
    seconds: float  # wall-clock, mean of a run

    @property
    def median(self) -> float:
        """Of the seeds' returns; NaN where there is none."""
        return float(np.median(self.returns)) if self.returns else math.nan

    @property
    def iqm(self) -> stats.Interval:
        """The interquartile mean with its 95 % bootstrap interval."""
        return stats.bootstrap(self.returns) if self.returns else stats.Interval(math.nan, math.nan, math.nan)


def rows_of(directory: Path, groups: Sequence[Combination], seeds: Sequence[int]) -> list[Returns]:
    """A row for each group."""
    return [row_of(directory, group, seeds) for group in groups]


def row_of(directory: Path, group: Combination, seeds: Sequence[int]) -> Returns:
    """The returns of one group, from the summaries of its runs."""
    paths = [directory / Planned(group, seed).name for seed in seeds]
    summaries = [summary_of(path) for path in paths if is_finished(path)]
    returns = [summary["eval_return_mean"] for summary in summaries if isinstance(summary.get("eval_return_mean"), int | float)]
    seconds = [float(summary.get("wall_seconds") or 0) for summary in summaries]
    return Returns(group, returns, len(summaries), float(np.mean(seconds)) if seconds else math.nan)


def summary_of(path: Path) -> dict[str, Any]:
    """The content of a run's summary; UserError where it is none."""
    summary = read_json(path / "summary.json")
    if not isinstance(summary, dict):
        raise UserError(f"{path / 'summary.json'} must hold an object; came a {type(summary).__name__}")
    return summary
