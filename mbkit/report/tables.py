"""The tables of a page: scores, diagnostics of models side by side, and the last value of every metric."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mbkit.report.collect import Floats, Group, RunRecord
from mbkit.report.curves import final_score
from mbkit.report.drawing import last_values
from mbkit.report.plots import curve_of
from mbkit.report.published import PublishedCurve
from mbkit.report.scores import MethodScores
from mbkit.stats import Interval

DIAGNOSTICS = {  # metric -> heading of its column
    "model/holdout_error": "Hold-out error",
    "diagnose/error_1": "Error, 1 step",
    "diagnose/error_5": "5 steps",
    "diagnose/error_15": "15 steps",
    "diagnose/error_30": "30 steps",
    "diagnose/coverage_90": "Coverage of 90\u00a0%",
    "diagnose/calibration_error": "Calibration error",
    "diagnose/return_gap": "Return gap",
    "diagnose/epistemic_1": "Disagreement, 1 step",
    "diagnose/epistemic_15": "15 steps",
    "time/act_ms": "Time per action, ms",
}
RUNS_LISTED = 40  # runs up to which the table of metrics has a column for each; beyond there is one for each group


@dataclass(frozen=True)
class Standing:
    """A row of a table of scores."""

    label: str
    index: int  # of its colour
    score: Interval
    group: Group | None  # None: a published curve
    note: str = ""


@dataclass(frozen=True)
class Scored:
    """A method over all environments."""

    label: str
    index: int
    score: Interval
    by_env: list[Interval | None]


class LastValues(NamedTuple):
    """The last value of every metric: a row for each, a column for each run or group."""

    columns: list[str]
    rows: list[tuple[str, list[float]]]
    averaged: bool  # columns are means over the runs of a group


def board(groups: Sequence[Group], beside: Sequence[PublishedCurve] = ()) -> list[Standing]:
    """Final returns, best first; published curves at the last step of ours, or at their own last one before it."""
    rows = [Standing(group.label, group.index, final_score(group.runs), group) for group in groups]
    first, steps = 1 + max(group.index for group in groups), max(run.steps for group in groups for run in group.runs)
    for i, published in enumerate(beside):
        curve = curve_of(published)
        reached = np.flatnonzero(curve.x <= steps)
        if len(reached):
            at = int(reached[-1])
            score = Interval(*(float(column[at]) for column in curve[1:]))
            score = score if len(published.runs) > 1 else score._replace(low=math.nan, high=math.nan)
            step = f"{curve.x[at]:,.0f}".replace(",", "\u202f")
            rows.append(Standing(published.name, first + i, score, None, f"published, {published.env}, at step {step}"))
    return sorted(rows, key=lambda row: -row.score.point if math.isfinite(row.score.point) else math.inf)


def overall(groups: Sequence[Group]) -> list[Scored]:
    """Each method over all environments, best first, with its score on each."""
    comparison = MethodScores(groups)
    by_key = {(group.label, group.env): final_score(group.runs) for group in groups}
    environments = list(dict.fromkeys(group.env for group in groups))
    return [
        Scored(label, comparison.methods[label], interval, [by_key.get((label, env)) for env in environments])
        for label, interval in comparison.aggregates.items()
    ]


def diagnostics(groups: Sequence[Group]) -> tuple[list[str], list[tuple[Group, list[float]]]]:
    """Headings, and for each group the means over seeds of the last values of its model's diagnostics; empty where none were logged."""
    table = {key: [_mean(last_values(group, key)) for group in groups] for key in DIAGNOSTICS}
    logged = [key for key, values in table.items() if np.isfinite(values).any()]
    if not any(key.startswith(("model/", "diagnose/")) for key in logged):
        return [], []
    return [DIAGNOSTICS[key] for key in logged], [(group, [table[key][i] for key in logged]) for i, group in enumerate(groups)]


def last_metrics(groups: Sequence[Group]) -> LastValues:
    """The last value of every metric of each run; of many runs the mean over those of each group."""
    runs = [(group, run) for group in groups for run in group.runs]
    several_tasks = len({group.env for group in groups}) > 1
    averaged = len(runs) > RUNS_LISTED
    named = [f"{group.label}, {group.env}" if several_tasks else group.label for group in groups]
    columns = named if averaged else [f"{named[groups.index(group)]}, seed {run.seed}" for group, run in runs]
    last = [last_row(run) for _, run in runs]
    keys = sorted({key for row in last for key in row})
    table = []
    for key in keys:
        values = [row.get(key, math.nan) for row in last]
        if averaged:
            values = [_mean([value for value, (g, _) in zip(values, runs, strict=True) if g is group]) for group in groups]
        table.append((key, values))
    return LastValues(columns, table, averaged)


def last_row(run: RunRecord) -> dict[str, float]:
    """Metric -> its last finite value."""
    last: dict[str, float] = {}
    for row in run.rows:
        for key, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                last[key] = float(value)
    return last


def _mean(values: Sequence[float] | Floats) -> float:
    finite = [float(value) for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan
