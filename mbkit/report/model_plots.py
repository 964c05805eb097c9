"""Figures of the final model's diagnostics, which diagnostics.json holds: calibration, error against horizon, error of each dimension."""

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from mbkit.diagnostics.verdict import OVERCONFIDENT, UNDERCONFIDENT
from mbkit.report.collect import Floats, Group
from mbkit.report.curves import Curve, as_floats, diagnostic
from mbkit.report.figure import MUTED, axes, band, color, legend
from mbkit.report.plots import Plot, percent

EVALUATION = "evaluation episodes, which no fit has used"  # the rows on which a run's model is measured
CALIBRATED = 0.02  # difference between predicted and observed coverage below which a model is called well calibrated
LABELLED = 8  # dimensions up to which each bar has its name and value


def calibration(groups: Sequence[Group]) -> Plot | None:
    """Observed coverage of the predicted intervals against their probability; the dimensions of a lone run as thin lines."""
    measured = [(group.index, group, lists) for group in groups if (lists := diagnostic(group, "calibration", "nominal", "empirical"))]
    if not measured:
        return None
    figure, ax = axes("predicted coverage", "observed coverage")
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
    sentences = [_coverage("" if len(groups) == 1 else f"{group.label}: ", *lists) for _, group, lists in measured]
    for i, group, (nominal, empirical) in measured:
        ax.plot(nominal, empirical, color=color(i), linewidth=1.9, marker="o", markersize=3.5, label=group.label)
    if len(groups) == 1 and (by_dim := _coverage_by_dim(groups[0])):
        nominal = measured[0][2][0]
        for coverage in by_dim:
            ax.plot(nominal[: len(coverage)], coverage[: len(nominal)], color=MUTED, alpha=0.4, linewidth=0.8, zorder=1)
        sentences.append("Thin lines: predicted dimensions.")
    sentences += _correction(groups)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.03))
    ax.xaxis.set_major_formatter(percent)
    ax.yaxis.set_major_formatter(percent)
    legend(ax)
    return Plot("calibration", "Calibration", " ".join(sentences), figure)


def _correction(groups: Sequence[Group]) -> list[str]:
    """A sentence on the correction of a lone run's intervals, where there is one."""
    section = groups[0].runs[0].diagnostics.get("calibration") if len(groups) == 1 and len(groups[0].runs) == 1 else None
    errors = [section.get(name) for name in ("error", "uncorrected")] if isinstance(section, dict) else []
    if not all(isinstance(error, float) for error in errors) or len(set(errors)) < 2:
        return []
    told = "Intervals are corrected on rows held out of the last fit (mean distance from the diagonal {:.2g}, uncorrected {:.2g})."
    return [told.format(*errors)]


def _coverage_by_dim(group: Group) -> list[Floats]:
    """Observed coverage of each predicted dimension at each level, [D][Q], of a lone run."""
    section = group.runs[0].diagnostics.get("calibration")
    table = section.get("per_dim") if len(group.runs) == 1 and isinstance(section, dict) else None
    return [coverage for values in table if len(coverage := as_floats(values))] if isinstance(table, list) else []


def _coverage(prefix: str, nominal: Floats, empirical: Floats) -> str:
    """A sentence on the largest difference between predicted and observed coverage."""
    gap = empirical - nominal
    if not np.isfinite(gap).any():
        return ""
    worst = int(np.nanargmax(np.abs(gap)))
    verdict = "well calibrated"
    if abs(gap[worst]) >= CALIBRATED:
        verdict = OVERCONFIDENT if gap[worst] < 0 else UNDERCONFIDENT
    return f"{prefix}{percent(nominal[worst])} intervals contain {percent(empirical[worst])} of the outcomes: {verdict}."


def horizon(groups: Sequence[Group], rows: str = "the evaluation episodes") -> Plot | None:
    """Prediction error against the number of steps predicted ahead, and the error of predicting no change."""
    measured = [(group.index, group, lists) for group in groups if (lists := diagnostic(group, "horizon", "steps", "median"))]
    if not measured:
        return None
    figure, ax = axes("steps predicted ahead", "error (standard deviations)")
    sentences = [f"Median over windows of {rows}; band: 10\u00a0% to 90\u00a0% quantile."]
    for i, group, (steps, median) in measured:
        several = len(groups) > 1
        spread = diagnostic(group, "horizon", "steps", "low", "high")
        low, high = spread[1:] if spread and len(spread[0]) == len(steps) else (median, median)
        band(ax, Curve(steps, median, low, high), i, group.label if several else "model")
        if baseline := diagnostic(group, "horizon", "steps", "baseline"):
            label = "no change predicted" if group is measured[0][1] else None
            ax.plot(*baseline, color=color(i) if several else MUTED, linewidth=1.1, linestyle=(0, (4, 4)), label=label)
        if means := diagnostic(group, "horizon", "steps", "rmse", "no_change"):
            sentences.append(_useful(group.label if several else "The model", *means))
    if all((lists[1] > 0).all() for _, _, lists in measured):
        ax.set_yscale("log")
    legend(ax)
    return Plot("horizon", "Error against horizon", " ".join(sentences), figure)


def _useful(label: str, steps: Floats, rmse: Floats, no_change: Floats) -> str:
    """A sentence on how far ahead the model's root mean squared error is below that of predicting no change."""
    worse = np.flatnonzero(rmse >= no_change)
    if not len(worse):
        return f"{label} predicts better than no change on all {len(steps)} steps, in the root mean square."
    until = f"up to step {steps[worse[0] - 1]:.0f}" if worse[0] else "at no step"
    return f"{label} predicts better than no change {until}, in the root mean square."


def dimensions(groups: Sequence[Group], rows: str = EVALUATION) -> Plot | None:
    """Error of each predicted dimension, one step ahead, in standard deviations of its change; of a lone experiment only."""
    if len(groups) != 1 or not (lists := diagnostic(groups[0], "one_step", "relative", "per_dim")):
        return None
    relative, raw = lists
    figure, ax = axes("predicted dimension", "error (standard deviations of the change)")
    bars = ax.bar(np.arange(len(relative)), relative, color=color(0), width=0.62, alpha=0.85)
    caption = (
        f"One step ahead, on {rows}: root mean squared error in standard deviations of the change of each dimension; at 1 the model is no "
        "better than predicting the mean change."
    )
    if len(relative) <= LABELLED:
        ax.bar_label(bars, [f"{error:.2g}" for error in raw], color=MUTED, padding=2, fontsize=8)
        ax.set_xticks(np.arange(len(relative)), dimension_names(groups[0], len(relative)))
        caption += " Above each bar: the error in the units of the dimension."
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.tick_params(axis="x", colors=MUTED)
    ax.margins(x=0.02, y=0.1)
    title = "Evaluation error of each dimension" if rows == EVALUATION else "Error of each dimension"
    return Plot("evaluation_error", title, caption, figure)


def dimension_names(group: Group, count: int) -> list[str]:
    """Names of the predicted dimensions: those of the observation, by number where they have none, and the reward where it is learned."""
    names = group.runs[0].diagnostics.get("dimensions")
    if isinstance(names, list) and count - len(names) in (0, 1):
        return [*map(str, names), "reward"][:count]
    section = group.runs[0].diagnostics.get("horizon")
    table = section.get("rmse_by_dim") if isinstance(section, dict) else None
    observed = len(table[0]) if isinstance(table, list) and table and isinstance(table[0], list) else count
    return [f"obs {i}" if i < observed else "reward" for i in range(count)]
