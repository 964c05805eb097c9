"""Figures that compare methods, drawn on a matplotlib axis; `mbkit.plots` offers them with runs as arguments."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mbkit.report.collect import Floats, Group, number
from mbkit.report.curves import Curve, final_score
from mbkit.report.figure import GRID, INK, band, color, legend
from mbkit.report.pointer import name_points
from mbkit.report.scores import MethodScores
from mbkit.stats import profile_band

THRESHOLDS = 81  # points of a performance profile
WRAPPED = 22  # letters of a method's name on an axis in one line


def performance_profile(ax: Axes, comparison: MethodScores) -> None:
    """The share of runs with a score above each threshold, averaged over environments, with its bootstrap interval."""
    pooled = np.concatenate([task for label in comparison.methods for task in comparison.tasks(label)])
    margin = 0.04 * (np.ptp(pooled) or 1.0)
    thresholds = np.linspace(pooled.min() - margin, pooled.max() + margin, THRESHOLDS)
    for label, index in comparison.methods.items():
        profile = profile_band(comparison.tasks(label), thresholds)
        low, high = (np.where(np.isfinite(limit), limit, profile.point) for limit in (profile.low, profile.high))
        band(ax, Curve(thresholds, profile.point, low, high), index, label)
    ax.set_ylim(-0.02, 1.03)
    ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}\u00a0%")
    legend(ax)


def probability_of_improvement(ax: Axes, comparison: MethodScores) -> None:
    """A cell for each pair: the probability that a run of the row scores higher than one of the column; darker where it is surer."""
    methods = list(comparison.methods)
    n = len(methods)
    for (x, y), chance in comparison.improvement.items():
        row, column = methods.index(x), methods.index(y)
        shade = color(0) if chance.point >= 0.5 else color(1)
        ax.add_patch(Rectangle((column, row), 1, 1, facecolor=shade, alpha=0.08 + abs(chance.point - 0.5), linewidth=0))
        ax.text(column + 0.5, row + 0.5, f"{chance.point:.2f}", ha="center", va="center", color=INK, fontsize=9 if n < 6 else 7)
        interval = f", {chance.low:.2f} to {chance.high:.2f}" if np.isfinite(chance.low) else ""
        name_points(ax, [column + 0.5], [row + 0.5], [f"{x} over {y}: {chance.point:.2f}{interval}"], color(methods.index(x)))
    ax.set(xlim=(0, n), ylim=(n, 0))
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    rotation: Any = {} if n < 4 and max(map(len, methods)) <= WRAPPED else {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(np.arange(n) + 0.5, [wrapped(label) for label in methods], **rotation)
    ax.set_yticks(np.arange(n) + 0.5, [wrapped(label) for label in methods])


def aggregates(ax: Axes, comparison: MethodScores) -> None:
    """The interquartile mean of each method over all runs and environments with its interval, best first."""
    names = list(comparison.aggregates)
    for row, (label, interval) in enumerate(comparison.aggregates.items()):
        shade = color(comparison.methods[label])
        if np.isfinite(interval.low):
            ax.plot([interval.low, interval.high], [row, row], color=shade, linewidth=7, alpha=0.3, solid_capstyle="round")
        ax.plot([interval.point], [row], color=shade, marker="o", markersize=6)
        limits = f", {interval.low:.3g} to {interval.high:.3g}" if np.isfinite(interval.low) else ""
        name_points(ax, [interval.point], [row], [f"{label}: {interval.point:.3g}{limits}"], shade)
    ax.set_yticks(range(len(names)), [wrapped(label) for label in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color=GRID, linewidth=0.8)


def latencies(group: Group) -> Floats:
    """Milliseconds of choosing an action in each run [R], the last ones logged; NaN where none were."""
    by_run = [run.series("time/act_ms").values for run in group.runs]
    return np.array([values[-1] if len(values) else np.nan for values in by_run])


def latency(ax: Axes, groups: Sequence[Group]) -> bool:
    """Return of the final policies against the time to choose an action: a faint dot for each run, a point for each method.

    Returns:
        Whether there was anything to draw.
    """
    drawn = False
    for group in groups:
        milliseconds, returns = latencies(group), np.array([run.final()[0] for run in group.runs])
        both = np.isfinite(milliseconds) & np.isfinite(returns)
        if not both.any():
            continue
        drawn, shade = True, color(group.index)
        ax.plot(milliseconds[both], returns[both], color=shade, linewidth=0, marker="o", markersize=4, alpha=0.35, markeredgewidth=0)
        score, middle = (
            final_score([run for run, known in zip(group.runs, both, strict=True) if known]),
            float(np.median(milliseconds[both])),
        )
        if np.isfinite(score.low):
            ax.plot([middle, middle], [score.low, score.high], color=shade, linewidth=1.6)
        ax.plot([middle], [score.point], color=shade, linewidth=0, marker="o", markersize=7, label=group.label)
    shown = np.concatenate([values[np.isfinite(values) & (values > 0)] for values in map(latencies, groups)] or [np.array([])])
    if len(shown) and shown.max() > 10 * shown.min():
        ax.set_xscale("log")
    ax.margins(x=0.12, y=0.12)
    legend(ax)
    return drawn


def wrapped(label: str, width: int = WRAPPED) -> str:
    """A label in several lines, broken at its blanks."""
    lines = [""]
    for word in label.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def last_values(group: Group, key: str) -> Floats:
    """The last value of a metric in each run that logged it [R]."""
    return np.array([number(series.values[-1]) for series in group.all_series(key)])
