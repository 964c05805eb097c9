"""Several runs as one curve with an interval."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from mbkit.report.collect import Floats, Group, RunRecord, Series, number
from mbkit.stats import Interval, bootstrap, bootstrap_curve

Axis = Literal["steps", "seconds"]


class Curve(NamedTuple):
    """A line and the band around it: x, y, low, high, all [N]."""

    x: Floats
    y: Floats
    low: Floats
    high: Floats


def common_grid(xs: Sequence[Floats], points: int = 60) -> Floats:
    """The abscissae [N <= points] at which runs are compared, within the range that all of them reached."""
    low, high = max(x[0] for x in xs), min(x[-1] for x in xs)
    union = np.unique(np.concatenate(xs))
    shared = union[(union >= low) & (union <= high)]
    if len(shared) == 0:  # the ranges do not overlap
        return np.unique(max(xs, key=len))
    return shared if len(shared) <= points else np.linspace(low, high, points)


def across_runs(series: Sequence[Series], axis: Axis) -> Curve:
    """Interquartile mean over runs with its bootstrap interval; each run is interpolated linearly between its points."""
    xs = [getattr(s, axis) for s in series]
    grid = common_grid(xs)
    scores = np.stack([np.interp(grid, x, s.values) for x, s in zip(xs, series, strict=True)])  # [R, N]
    return Curve(grid, *bootstrap_curve(scores))


def eval_curve(group: Group, axis: Axis) -> Curve | None:
    """Evaluation return: of one run with its standard deviation over episodes, of several the IQM over seeds with its interval."""
    series = group.all_series("eval/return")
    if not series:
        return None
    if len(series) > 1:
        return across_runs(series, axis)
    only = series[0]
    spread = next(iter(group.all_series("eval/return_std")), None)
    std = np.interp(only.steps, spread.steps, spread.values) if spread else np.zeros(len(only))
    return Curve(getattr(only, axis), only.values, only.values - std, only.values + std)


def final_score(runs: Sequence[RunRecord]) -> Interval:
    """IQM over runs of the final policies' returns and its bootstrap interval; nan where too few runs were evaluated."""
    scores = np.array([run.final()[0] for run in runs])
    scores = scores[np.isfinite(scores)]
    return bootstrap(scores) if len(scores) else Interval(np.nan, np.nan, np.nan)


def thin(series: Series, most: int = 600) -> Series:
    """Every k-th point, at most `most` of them, so that the page of a long run stays small."""
    every = slice(None, None, -(-max(len(series), 1) // most))
    return Series(series.steps[every], series.seconds[every], series.values[every])


def diagnostic(group: Group, section: str, *names: str) -> list[Floats] | None:
    """The lists `names` in a section of diagnostics.json, averaged over the runs and cut to one length; None where one is missing."""
    by_run: list[list[Floats]] = []
    for run in group.runs:
        values = run.diagnostics.get(section)
        lists = [as_floats(values.get(name)) for name in names] if isinstance(values, dict) else []
        if lists and all(len(numbers) for numbers in lists):
            by_run.append(lists)
    if not by_run:
        return None
    n = min(len(numbers) for lists in by_run for numbers in lists)
    return [np.mean([lists[i][:n] for lists in by_run], axis=0) for i in range(len(names))]


def as_floats(value: Any) -> Floats:
    """A JSON list as floats [N], null as nan; empty where it is not a list."""
    return np.array([number(v) for v in value] if isinstance(value, list) else [], dtype=np.float64)
