"""Figures of a report: returns, and metrics against steps. Each is a `Plot`, or None where nothing was logged."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from mbkit.report.collect import Group, Series, unit_of
from mbkit.report.curves import Axis, Curve, across_runs, eval_curve, thin
from mbkit.report.figure import MUTED, axes, band, color, legend, steps_axis
from mbkit.report.published import PublishedCurve, task

Lines = dict[str, tuple[str, ...]]  # label of a line -> names of its metric; several where algorithms log it under different ones
BEYOND = 1.1  # published curves are drawn as far as ours, times this
Kind = Literal["number", "log", "count", "whole", "share", "coverage", "gigabytes"]  # scale and ticks of a vertical axis, see `value_axis`


class Plot(NamedTuple):
    """A figure with its file name, title and caption."""

    name: str
    title: str
    caption: str
    figure: Figure


class Curves(NamedTuple):
    """What a figure of metrics against steps shows."""

    lines: Lines
    title: str
    ylabel: str
    caption: str
    kind: Kind = "number"
    level: float | None = None  # value of a perfect model, drawn as a dashed line
    members: bool = False  # thin lines for the members of an ensemble, logged as KEY/0, KEY/1, ...


def learning(groups: Sequence[Group], axis: Axis, beside: Sequence[PublishedCurve] = ()) -> Plot | None:
    """Evaluation return with its interval over faint training episodes, against steps or wall-clock time; published curves dashed."""
    unit, scale = ("steps", 1.0) if axis == "steps" else _time_unit(groups)
    figure, ax = axes(unit_of(groups) if axis == "steps" else f"wall-clock time ({unit})", "return")
    if not draw_learning(ax, groups, axis, scale):
        return None
    caption = _learning_caption(groups)
    if beside and axis == "steps":
        caption += draw_published(ax, groups, beside)
    if axis == "steps":
        steps_axis(ax)
    if math.isfinite(recorded := recorded_return(groups)):
        ax.axhline(recorded, color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
        caption += " Dashed line: mean return of the episodes in the data set."
    legend(ax)
    title = f"Return against {unit_of(groups)}" if axis == "steps" else "Return against wall-clock time"
    return Plot(f"return_{axis}", title, caption.strip(), figure)


def draw_learning(ax: Axes, groups: Sequence[Group], axis: Axis = "steps", scale: float = 1.0) -> bool:
    """Learning curves on an axis, abscissae divided by `scale`; returns whether anything was logged."""
    rare = rarely_evaluated(groups)
    drawn = False
    for group in groups:
        curve = eval_curve(group, axis)
        for episodes in map(thin, group.all_series("episode/return")) if rare or len(groups) == 1 else ():
            x = getattr(episodes, axis) / scale
            style: Any = {"alpha": 0.7, "linewidth": 1.2, "markersize": 3} if rare else {"alpha": 0.3, "linewidth": 0, "markersize": 4}
            ax.plot(x, episodes.values, color=color(group.index), marker="o", markeredgewidth=0, **style)
            drawn = True
        if curve:
            band(ax, curve._replace(x=curve.x / scale), group.index, group.label)
            drawn = True
        elif group.all_series("episode/return"):
            ax.plot([], [], color=color(group.index), label=group.label)
    return drawn


def draw_published(ax: Axes, groups: Sequence[Group], beside: Sequence[PublishedCurve]) -> str:
    """Published curves on the axis of ours, as far as ours go and a little beyond; what the caption says of them."""
    longest = BEYOND * max(run.steps for group in groups for run in group.runs)
    first = 1 + max(group.index for group in groups)
    sentences, versions = [], []
    for i, curve in enumerate(beside):
        whole = curve_of(curve)
        shown = Curve(*(column[whole.x <= longest] for column in whole))
        if not len(shown.x):
            sentences.append(f"{curve.name} begins at step {whole.x[0]:,.0f}, beyond these runs.".replace(",", "\u202f"))
            continue
        band(ax, shown, first + i, f"{curve.name}, published", dashed=True)
        seeds = f"interquartile mean over {len(curve.runs)} seeds" if len(curve.runs) > 1 else "one seed"
        sentences.append(f"Dashed: {curve.name}, published, {seeds} ({curve.file}).")
        if task(curve.env)[1] != task(groups[0].env)[1]:
            versions.append(curve.env)
    if versions:
        sentences.append(
            f"The published curves are of {', '.join(dict.fromkeys(versions))}, ours of {groups[0].env}: body or reward may differ."
        )
    return " " + " ".join(sentences)


def curve_of(published: PublishedCurve) -> Curve:
    """Interquartile mean over the seeds of a published curve with its interval; of one seed the curve itself."""
    if len(published.runs) > 1:
        return across_runs(published.runs, "steps")
    only = thin(published.runs[0])
    return Curve(only.steps, only.values, only.values, only.values)


def recorded_return(groups: Sequence[Group]) -> float:
    """Mean return of the data set that all these runs learned from; NaN where there is none, or several."""
    means = {group.data_return for group in groups}
    return means.pop() if len(means) == 1 else math.nan


def rarely_evaluated(groups: Sequence[Group]) -> bool:
    """Whether there are too few evaluations for a curve, so that training episodes have to show the progress."""
    return max((len(series) for group in groups for series in group.all_series("eval/return")), default=0) < 3


def _learning_caption(groups: Sequence[Group]) -> str:
    """What the line, the band and the dots show."""
    rare = rarely_evaluated(groups)
    seeds = {min(len(group.all_series("eval/return")), 2) for group in groups} - {0}
    episodes = "one standard deviation over episodes" + " where there is one seed" * (len(seeds) == 2)
    spreads = ["interquartile mean over seeds, 95\u00a0% bootstrap interval"] * (2 in seeds) + [episodes] * (1 in seeds)
    evaluation = f"{'Point and bar' if rare else 'Line and band'}: evaluation, {'; '.join(spreads)}. " if seeds else ""
    logged = any(group.all_series("episode/return") for group in groups) and (rare or len(groups) == 1)
    return evaluation + ("Thin line: training episodes." if rare else "Faint dots: training episodes.") * logged


def _time_unit(groups: Sequence[Group]) -> tuple[str, float]:
    longest = max(run.wall_seconds for group in groups for run in group.runs)
    return next(((unit, size) for unit, size in (("hours", 3600.0), ("minutes", 60.0)) if longest >= 2 * size), ("seconds", 1.0))


def over_steps(groups: Sequence[Group], curves: Curves) -> Plot | None:
    """All lines of a lone experiment; of several experiments, the first line that all of them logged."""
    logged = [(label, keys) for label, keys in curves.lines.items() if any(group.all_series(*keys) for group in groups)]
    if not logged:
        return None
    figure, ax = axes(unit_of(groups), curves.ylabel)
    title, caption = curves.title, curves.caption
    if curves.level is not None:
        ax.axhline(curves.level, color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
    if len(groups) == 1:
        drawn = [(i, label, groups[0].all_series(*keys)) for i, (label, keys) in enumerate(logged)]
        if curves.members and _members(ax, groups[0], logged[0][1][0]):
            caption += " Thin lines: members of the ensemble."
    else:
        label, keys = next((line for line in logged if all(group.all_series(*line[1]) for group in groups)), logged[0])
        drawn = [(group.index, group.label, group.all_series(*keys)) for group in groups]
        title += f", {label}" if len(curves.lines) > 1 else ""
    for i, label, series in drawn:
        _line(ax, series, i, label)
    value_axis(ax, curves.kind, [one for *_, series in drawn for one in series])
    steps_axis(ax)
    legend(ax, alone=len(groups) == 1, above=len(groups) == 1)
    return Plot(next(iter(curves.lines.values()))[0].replace("/", "_"), title, caption, figure)


def single_points(groups: Sequence[Group], curves: Curves) -> list[tuple[str, str]]:
    """Name and value of the lines of a lone run that have a single point each; empty where one has more, which makes it a figure."""
    if len(groups) != 1 or len(groups[0].runs) != 1:
        return []
    logged = {label: groups[0].all_series(*keys) for label, keys in curves.lines.items()}
    points = {label: series[0].values for label, series in logged.items() if series}
    if any(len(values) > 1 for values in points.values()):
        return []
    return [(f"{curves.title}, {label}" if label else curves.title, value_text(values[0], curves)) for label, values in points.items()]


def value_text(value: float, curves: Curves) -> str:
    """A value with the unit of its axis: 91 %, 2 MB, 0.012 standard deviations."""
    if curves.kind in ("share", "coverage"):
        return percent(value)
    if curves.kind == "gigabytes":
        size = EngFormatter(unit="B", sep="\u00a0", places=1)
        return size.format_eng(1e9 * value)
    return f"{value:.3g}".replace("-", "\u2212")


def _line(ax: Axes, series: Sequence[Series], index: int, label: str) -> None:
    """The line of one run, or of several the interquartile mean with its interval."""
    if len(series) > 1:
        band(ax, across_runs(series, "steps"), index, label)
    elif series:
        points = thin(series[0])
        band(ax, Curve(points.steps, points.values, points.values, points.values), index, label)


def _members(ax: Axes, group: Group, key: str) -> bool:
    """Draw the metric of each member of an ensemble as a thin line; returns whether there was any."""
    members = [thin(series) for run in group.runs for series in run.member_series(key)]
    for member in members:
        ax.plot(member.steps, member.values, color=MUTED, alpha=0.4, linewidth=0.8, zorder=1)
    return bool(members)


def value_axis(ax: Axes, kind: Kind, shown: Sequence[Series]) -> None:
    """The vertical axis of the series that are shown.

    log: logarithmic where all values are above 0 and span a decade; count: 0, 1.5k; whole: 0, 1, 2; share: 0 to 100 %;
    coverage: 50 to 100 %, or lower; gigabytes: 2 MB.
    """
    low, high = min(series.values.min() for series in shown), max(series.values.max() for series in shown)
    if kind == "log" and 0 < 10 * low <= high:
        ax.set_yscale("log")
    if kind in ("share", "coverage"):
        ax.set_ylim(0 if kind == "share" else min(0.5, low - 0.02), 1.03)
        ax.yaxis.set_major_formatter(percent)
    if kind in ("count", "gigabytes"):
        ax.set_ylim(0, max(high, 1e-9) * 1.06)
        size = EngFormatter(unit="B", sep="\u00a0")
        ax.yaxis.set_major_formatter(EngFormatter(sep="") if kind == "count" else lambda value, _: size(1e9 * value))
    if kind == "whole":
        ax.set_ylim(0, max(high, 1) * 1.06)
        ax.yaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def percent(value: float, _: float | None = None) -> str:
    """0.9 as 90 %; a tick formatter."""
    return f"{100 * value:.0f}\u00a0%"
