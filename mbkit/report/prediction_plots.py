"""Pictures of predictions: the planned trajectory over the real one, fans of model rollouts, uncertainty over time.

Each is a function that draws on a matplotlib axis; the figures of a report have an axis for each dimension of the observation.
"""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes

from mbkit.errors import UserError
from mbkit.report.curves import Curve
from mbkit.report.figure import INK, MUTED, band, color, legend, panels
from mbkit.report.plots import Plot
from mbkit.report.predictions import Predictions

SHOWN = 24  # dimensions that are drawn
PATHS = 8  # single rollouts in a fan
STEP = "step of the episode"


def ensemble_fan(ax: Axes, table: Predictions, dimension: int = 0) -> None:
    """Model rollouts of one dimension from one real state under the actions that were taken: bands, single rollouts, and the truth."""
    paths = table.fan[:, :, _checked(table, dimension)]
    x = table.fan_start + np.arange(paths.shape[1], dtype=np.float64)
    low, quarter, median, three_quarters, high = np.quantile(paths, (0.05, 0.25, 0.5, 0.75, 0.95), axis=0)
    ax.fill_between(x, low, high, color=color(0), alpha=0.14, linewidth=0)
    ax.fill_between(x, quarter, three_quarters, color=color(0), alpha=0.2, linewidth=0)
    for path in paths[:: max(1, len(paths) // PATHS)]:
        ax.plot(x, path, color=color(0), linewidth=0.5, alpha=0.45)
    band(ax, Curve(x, median, low, high), 0, "model", dots=False)
    _real(ax, table, dimension, table.fan_start, table.fan_start + paths.shape[1])


def planned_trajectory(ax: Axes, table: Predictions, dimension: int = 0) -> None:
    """What was planned at several steps, in the model, over what then happened; median and 5 to 95 % of the rollouts."""
    values = table.plans[..., _checked(table, dimension)]  # [S, 5, H + 1]
    for i, (start, quantiles) in enumerate(zip(table.plan_starts, values, strict=True)):
        shown = np.isfinite(quantiles[2])
        x = start + np.arange(len(shown))[shown]
        low, median, high = quantiles[0][shown], quantiles[2][shown], quantiles[-1][shown]
        label = f"planned at step {start:.0f}" if table.planned else f"policy in the model from step {start:.0f}"
        band(ax, Curve(x, median, low, high), i + 1, label, dots=False)
    _real(ax, table, dimension, 0, len(table.obs))


def uncertainty(ax: Axes, table: Predictions) -> None:
    """Epistemic and aleatoric standard deviation one step ahead, and the error that was made, at each step of the episode."""
    x = np.arange(len(table.error), dtype=np.float64)
    ax.plot(x, table.error, color=MUTED, linewidth=1.1, label="error")
    for i, (label, values) in enumerate((("disagreement of the members", table.epistemic), ("noise of the members", table.aleatoric))):
        ax.plot(x, values, color=color(i), linewidth=1.6, label=label)
    shown = np.concatenate([table.error, table.epistemic, table.aleatoric])
    if (shown > 0).all() and shown.max() > 10 * shown.min():
        ax.set_yscale("log")
    legend(ax)


def _real(ax: Axes, table: Predictions, dimension: int, begin: int, end: int) -> None:
    values = table.obs[begin:end, dimension]
    ax.plot(begin + np.arange(len(values)), values, color=INK, linewidth=1.3, label="real", zorder=3)
    low, high = values.min(), values.max()
    margin = 0.75 * (high - low) + 1e-3 * max(abs(low), abs(high)) + 1e-9  # a rollout that diverges would hide everything else
    bottom, top = ax.get_ylim()
    ax.set_ylim(max(bottom, low - margin), min(top, high + margin))


def _checked(table: Predictions, dimension: int) -> int:
    if not -len(table.names) <= dimension < len(table.names):
        raise UserError(f"dimension={dimension}: expected one of the {len(table.names)} dimensions of the observation, from 0")
    return dimension


def pictures(table: Predictions) -> list[Plot]:
    """The figures of a report."""
    many = len(table.names) > SHOWN
    first = f" The first {SHOWN} of {len(table.names)} dimensions." if many else ""
    kind = "the plan" if table.planned else "the policy in the model"
    real = "The strong line: what happened."
    planned = f"Lines and bands: {kind} from several steps on, median and 5\u00a0to 95\u00a0% of its model rollouts. {real}"
    fan = (
        "Model rollouts under the actions that were taken, from one real state: half and 90\u00a0% of them, their median, and single "
        "rollouts, each by one member. The strong line: what happened."
    )
    over_time = (
        "One step ahead along the episode, in standard deviations of the change of each dimension. The error of a calibrated model is "
        "about as large as both of its uncertainties together."
    )
    figure, (ax,) = panels((STEP, "standard deviations of the change"))
    uncertainty(ax, table)
    return [
        _by_dimension("planned_trajectory", "Planned and real trajectory", planned + first, table, planned_trajectory),
        _by_dimension("ensemble_fan", "Fan of the ensemble", fan + first, table, ensemble_fan),
        Plot("uncertainty", "Uncertainty over time", over_time, figure),
    ]


def _by_dimension(name: str, title: str, caption: str, table: Predictions, draw: Callable[[Axes, Predictions, int], None]) -> Plot:
    """A figure with an axis for each dimension, in two columns."""
    count = min(len(table.names), SHOWN)
    rows = -(-count // 2)
    figure, axes = panels(*[("", "")] * (2 * rows), rows=rows, small=True)
    for ax in axes[count:]:
        ax.set_visible(False)
    for i, ax in enumerate(axes[:count]):
        draw(ax, table, i)
        ax.set_title(table.names[i], fontsize=8.5, color=INK, loc="left")
        if i >= count - 2:
            ax.set_xlabel(STEP)
    return Plot(name, title, caption, figure)
