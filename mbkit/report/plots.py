"""The figures of a report: each takes groups of runs and gives a `Plot`, or None where nothing was logged."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from mbkit.report.collect import MEMBER, Floats, Group, Series
from mbkit.report.curves import Axis, Curve, across_runs, as_floats, diagnostic, eval_curve, thin
from mbkit.report.figure import MUTED, axes, band, color, legend, steps_axis

Kind = Literal["number", "log", "count", "whole", "share", "gigabytes"]  # how a vertical axis reads


class Plot(NamedTuple):
    """A figure with its words."""

    name: str
    title: str
    caption: str
    figure: Figure


def learning(groups: Sequence[Group], axis: Axis) -> Plot | None:
    """Evaluation return with its interval over faint training episodes, against environment steps or wall-clock."""
    unit, scale = ("steps", 1.0) if axis == "steps" else _time_unit(groups)
    figure, ax = axes("environment steps" if axis == "steps" else f"wall-clock ({unit})", "return")
    rare = rarely_evaluated(groups)
    drawn = False
    for i, group in enumerate(groups):
        curve = eval_curve(group, axis)
        for episodes in map(thin, group.all_series("episode/return")):
            x = getattr(episodes, axis) / scale
            style: Any = {"alpha": 0.7, "linewidth": 1.2, "markersize": 3} if rare else {"alpha": 0.3, "linewidth": 0, "markersize": 4}
            ax.plot(x, episodes.values, color=color(i), marker="o", markeredgewidth=0, **style)
            drawn = True
        if curve:
            band(ax, curve._replace(x=curve.x / scale), i, group.label)
            drawn = True
        elif drawn:
            ax.plot([], [], color=color(i), label=group.label)
    if not drawn:
        return None
    if axis == "steps":
        steps_axis(ax)
    legend(ax)
    title = "Against environment steps" if axis == "steps" else "Against wall-clock"
    return Plot(f"return_{axis}", title, _legend_words(groups), figure)


def rarely_evaluated(groups: Sequence[Group]) -> bool:
    """Whether evaluations are too few for a curve, so that training episodes have to show the learning."""
    return max((len(series) for group in groups for series in group.all_series("eval/return")), default=0) < 3


def _legend_words(groups: Sequence[Group]) -> str:
    """What line, band and dots are."""
    rare = rarely_evaluated(groups)
    seeds = {min(len(group.all_series("eval/return")), 2) for group in groups} - {0}
    episodes = "one standard deviation over episodes" + " where there is one seed" * (len(seeds) == 2)
    spreads = ["interquartile mean over seeds, 95\u00a0% bootstrap interval"] * (2 in seeds) + [episodes] * (1 in seeds)
    words = f"{'Point and bar' if rare else 'Line and band'}: evaluation, {'; '.join(spreads)}. " if seeds else ""
    logged = any(group.all_series("episode/return") for group in groups)
    return words + ("Thin line: training episodes." if rare else "Faint dots: training episodes.") * logged


def _time_unit(groups: Sequence[Group]) -> tuple[str, float]:
    longest = max(run.wall_seconds for group in groups for run in group.runs)
    return next(((unit, size) for unit, size in (("hours", 3600.0), ("minutes", 60.0)) if longest >= 2 * size), ("seconds", 1.0))


def over_steps(groups: Sequence[Group], keys: Sequence[str], title: str, ylabel: str, caption: str, kind: Kind = "number") -> Plot | None:
    """One metric against environment steps: the line of a lone run, or the interquartile mean over seeds with its interval."""
    if not any(group.all_series(*keys) for group in groups):
        return None
    figure, ax = axes("environment steps", ylabel)
    for i, group in enumerate(groups):
        _line(ax, group.all_series(*keys), i, group.label)
        if len(groups) == 1 and keys[0] == "model/holdout_mse" and _members(ax, group):
            caption += " Thin lines: members."
    value_axis(ax, kind, [s for group in groups for s in group.all_series(*keys)])
    steps_axis(ax)
    legend(ax, alone=len(groups) == 1)
    return Plot(_file(keys[0]), title, caption, figure)


def value_axis(ax: Axes, kind: Kind, shown: Sequence[Series]) -> None:
    """The vertical axis: log where all is above 0 and spans a decade; count 0, 1.5k; whole 1, 2; share 0 to 100 %; gigabytes as 2 MB."""
    low, high = min(series.values.min() for series in shown), max(series.values.max() for series in shown)
    if kind == "log" and 0 < 10 * low <= high:
        ax.set_yscale("log")
    if kind == "share":
        ax.set_ylim(0, 1.03)
        ax.yaxis.set_major_formatter(_percent)
    if kind in ("count", "gigabytes"):
        ax.set_ylim(0, max(high, 1e-9) * 1.06)
        size = EngFormatter(unit="B", sep="\u00a0")
        ax.yaxis.set_major_formatter(EngFormatter(sep="") if kind == "count" else lambda value, _: size(1e9 * value))
    if kind == "whole":
        ax.yaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def _file(key: str) -> str:
    return key.replace("/", "_")


def _line(ax: Axes, series: Sequence[Series], index: int, label: str) -> None:
    """The line of a lone run, or the interquartile mean over seeds with its interval; nothing where nothing was logged."""
    if len(series) > 1:
        band(ax, across_runs(series, "steps"), index, label)
    elif series:
        only = thin(series[0])
        band(ax, Curve(only.steps, only.values, only.values, only.values), index, label)


def family(
    groups: Sequence[Group],
    keys: dict[str, str],
    title: str,
    ylabel: str,
    caption: str,
    kind: Kind = "number",
    level: float | None = None,
) -> Plot | None:
    """Metrics of one kind against environment steps: a line each for a lone experiment, several experiments by the first that all logged.

    Args:
        groups: what to compare.
        keys: metric -> what its line is called.
        title: of the figure.
        ylabel: of its vertical axis.
        caption: the sentence below it.
        kind: of that axis.
        level: where a dashed line marks what would be right.
    """
    logged = [key for key in keys if any(group.all_series(key) for group in groups)]
    if not logged:
        return None
    figure, ax = axes("environment steps", ylabel)
    if level is not None:
        ax.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
    if len(groups) == 1:
        drawn = logged
        for i, key in enumerate(logged):
            _line(ax, groups[0].all_series(key), i, keys[key])
    else:
        drawn = [next((key for key in logged if all(group.all_series(key) for group in groups)), logged[0])]
        for i, group in enumerate(groups):
            _line(ax, group.all_series(drawn[0]), i, group.label)
        title = f"{title}, {keys[drawn[0]]}" if len(keys) > 1 else title
    value_axis(ax, kind, [s for key in drawn for group in groups for s in group.all_series(key)])
    steps_axis(ax)
    legend(ax, alone=len(groups) == 1, above=len(groups) == 1)
    return Plot(_file(next(iter(keys))), title, caption, figure)


def coverage(groups: Sequence[Group]) -> Plot | None:
    """How much of the truth the 90 % intervals hold as the model learns."""
    words = "Share of outcomes inside the predicted 90\u00a0% interval, one step ahead. "
    caption = words + "Above the dashed line the model is too timid, below it too sure."
    plot = family(groups, {"diagnose/coverage_90": "coverage"}, "Coverage over training", "observed coverage", caption, level=0.9)
    if plot:
        ax = plot.figure.axes[0]
        ax.set_ylim(min(0.5, ax.get_ylim()[0]), 1.01)
        ax.yaxis.set_major_formatter(_percent)
    return plot


def _members(ax: Axes, group: Group) -> bool:
    """Draw the hold-out error of each ensemble member; whether there was any."""
    members = [thin(run.series(key)) for run in group.runs for key in run.keys(MEMBER)]
    for member in members:
        ax.plot(member.steps, member.values, color=MUTED, alpha=0.4, linewidth=0.8, zorder=1)
    return bool(members)


def calibration(groups: Sequence[Group]) -> Plot | None:
    """How often the truth fell inside the predicted interval, against how often it should have; dimensions of a lone run faint."""
    found = [(i, group, lists) for i, group in enumerate(groups) if (lists := diagnostic(group, "calibration", "nominal", "empirical"))]
    if not found:
        return None
    figure, ax = axes("predicted coverage", "observed coverage")
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
    for i, group, (nominal, empirical) in found:
        for values in _per_dim(group) if len(groups) == 1 else ():
            ax.plot(nominal[: len(values)], values[: len(nominal)], color=color(i), alpha=0.35, linewidth=0.9)
        ax.plot(nominal, empirical, color=color(i), linewidth=1.9, marker="o", markersize=3.5, label=group.label)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.03))
    ax.xaxis.set_major_formatter(_percent)
    ax.yaxis.set_major_formatter(_percent)
    legend(ax)
    sentences = [_coverage("" if len(groups) == 1 else f"{group.label}: ", *lists) for _, group, lists in found]
    return Plot("calibration", "Calibration", " ".join(sentences), figure)


def _percent(value: float, _: float | None = None) -> str:
    return f"{100 * value:.0f}\u00a0%"


def _per_dim(group: Group) -> list[Floats]:
    section = group.runs[0].diagnostics.get("calibration", {}).get("per_dim", {})
    lists = section.values() if isinstance(section, dict) else section if isinstance(section, list) else ()
    return [floats for values in lists if len(floats := as_floats(values))]


def _coverage(who: str, nominal: Floats, empirical: Floats) -> str:
    """A sentence on the widest gap between predicted and observed coverage."""
    gap = empirical - nominal
    if not np.isfinite(gap).any():
        return ""
    worst = int(np.nanargmax(np.abs(gap)))
    verdict = "on the diagonal" if abs(gap[worst]) < 0.02 else "too narrow: overconfident" if gap[worst] < 0 else "too wide: underconfident"
    return f"{who}{_percent(nominal[worst])} intervals hold {_percent(empirical[worst])} of the truth ({verdict})."


def horizon(groups: Sequence[Group]) -> Plot | None:
    """Prediction error against the number of steps predicted ahead, with the error of predicting no change."""
    found = [(i, group, lists) for i, group in enumerate(groups) if (lists := diagnostic(group, "horizon", "steps", "median"))]
    if not found:
        return None
    figure, ax = axes("steps predicted ahead", "prediction error")
    sentences = []
    for i, group, (steps, median) in found:
        spread = diagnostic(group, "horizon", "steps", "low", "high")
        low, high = spread[1:] if spread and len(spread[0]) == len(steps) else (median, median)
        band(ax, Curve(steps, median, low, high), i, group.label if len(groups) > 1 else "model")
        if baseline := diagnostic(group, "horizon", "steps", "baseline"):
            ax.plot(
                *baseline,
                color=color(i) if len(groups) > 1 else MUTED,
                linewidth=1.1,
                linestyle=(0, (4, 4)),
                label=None if i else "no change",
            )
            sentences.append(_useful(group.label if len(groups) > 1 else "the model", steps, median, *baseline))
    if all((lists[1] > 0).all() for _, _, lists in found):
        ax.set_yscale("log")
    legend(ax)
    return Plot("horizon", "Error against horizon", " ".join(["Median and band over windows.", *sentences]), figure)


def _useful(label: str, steps: Floats, median: Floats, base_steps: Floats, baseline: Floats) -> str:
    """A sentence on how far ahead the model beats predicting no change."""
    worse = np.flatnonzero(median >= np.interp(steps, base_steps, baseline))
    until = f"until step {steps[worse[0]]:.0f}" if len(worse) and worse[0] else "nowhere" if len(worse) else f"on all {len(steps)} steps"
    text = f"{label} beats predicting no change {until}."
    return text[0].upper() + text[1:] if label == "the model" else text


def dimensions(groups: Sequence[Group]) -> Plot | None:
    """Hold-out error of each predicted dimension; for a lone group only."""
    if len(groups) != 1 or not (found := diagnostic(groups[0], "holdout", "per_dim")):
        return None
    figure, ax = axes("predicted dimension", "hold-out error")
    ax.bar(np.arange(len(found[0])), found[0], color=color(0), width=0.62, alpha=0.85)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.tick_params(axis="x", colors=MUTED)
    ax.margins(x=0.02)
    return Plot(
        "holdout_per_dim", "Where the error sits", "Hold-out error of each predicted dimension, in the order of the observation.", figure
    )
