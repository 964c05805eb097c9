"""Several runs as one curve with an interval."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from mbkit.report.collect import Floats, Group, Run, Series, number
from mbkit.stats import Interval, bootstrap

Axis = Literal["steps", "seconds"]


class Curve(NamedTuple):
    """A line with the band round it: x, y, low, high, all [N]."""

    x: Floats
    y: Floats
    low: Floats
    high: Floats


def common_grid(xs: Sequence[Floats], points: int = 60) -> Floats:
    """Where to compare runs, [N <= points]: their own abscissae if few, within the range that all of them reached."""
    low, high = max(x[0] for x in xs), min(x[-1] for x in xs)
    own = np.unique(np.concatenate(xs))
    own = own[(own >= low) & (own <= high)]
    if len(own) == 0:  # nothing in common: the longest run decides
        return np.unique(max(xs, key=len))
    return own if len(own) <= points else np.linspace(low, high, points)


def across_runs(series: Sequence[Series], axis: Axis) -> Curve:
    """Interquartile mean over runs and its bootstrap interval; runs are interpolated linearly between their evaluations."""
    xs = [getattr(s, axis) for s in series]
    grid = common_grid(xs)
    scores = np.stack([np.interp(grid, x, s.values) for x, s in zip(xs, series, strict=True)])  # [R, N]
    return Curve(grid, *np.array([bootstrap(column) for column in scores.T]).T)


def eval_curve(group: Group, axis: Axis) -> Curve | None:
    """Evaluation return: over episodes (one standard deviation) for one run, over seeds (IQM, interval) for several."""
    series = group.all_series("eval/return")
    if not series:
        return None
    if len(series) > 1:
        return across_runs(series, axis)
    only = series[0]
    spread = next(iter(group.all_series("eval/return_std")), None)
    std = np.interp(only.steps, spread.steps, spread.values) if spread else np.zeros(len(only))
    return Curve(getattr(only, axis), only.values, only.values - std, only.values + std)


def final_score(runs: Sequence[Run]) -> Interval:
    """IQM of the final policies' returns over runs, and its bootstrap interval; nan for what too few evaluated runs leave open."""
    scores = np.array([run.final()[0] for run in runs])
    scores = scores[np.isfinite(scores)]
    return bootstrap(scores) if len(scores) else Interval(np.nan, np.nan, np.nan)


def thin(series: Series, most: int = 600) -> Series:
    """Every k-th point, at most `most` of them: a page stays light however long the run."""
    every = slice(None, None, -(-max(len(series), 1) // most))
    return Series(series.steps[every], series.seconds[every], series.values[every])


def diagnostic(group: Group, section: str, *names: str) -> list[Floats] | None:
    """Lists `names` of a section of diagnostics.json, averaged over the group's runs and cut to one length; None if absent."""
    found: list[list[Floats]] = []
    for run in group.runs:
        part = run.diagnostics.get(section)
        lists = [as_floats(part.get(name)) for name in names] if isinstance(part, dict) else []
        if lists and all(len(values) for values in lists):
            found.append(lists)
    if not found:
        return None
    n = min(len(values) for lists in found for values in lists)
    return [np.mean([lists[i][:n] for lists in found], axis=0) for i in range(len(names))]


def as_floats(value: Any) -> Floats:
    """A JSON list as floats [N], null as nan; empty where it is no list."""
    return np.array([number(v) for v in value] if isinstance(value, list) else [], dtype=np.float64)
