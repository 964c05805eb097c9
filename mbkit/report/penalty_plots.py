"""Figures of what `mbkit dynamics report` measures: how penalties rank errors, which dimensions make them up, which actions the data hold.

Letters: K depths, D predicted dimensions, A action.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbkit.diagnostics.verdict import RANKS, judged_depth
from mbkit.report.collect import Floats, Group, number
from mbkit.report.curves import as_floats
from mbkit.report.figure import INK, MUTED, axes, color, panels
from mbkit.report.plots import Plot, percent

DASHED: Any = {"color": MUTED, "linewidth": 1, "linestyle": (0, (4, 4))}
DEPTH, RHO, AUROC = "depth of the rollout (steps)", "rank correlation with the error", "AUROC of the worst tenth"
TENTH, ERROR = "tenth of the windows, by the penalty", "median error"
LISTED = 30  # action dimensions that are drawn at most
PARTS = 6  # bars of a stacked figure, the last of them for all others


class Quality(NamedTuple):
    """What the figures show of one penalty."""

    name: str
    spearman: Floats  # [K]
    auroc: Floats  # [K]
    tenths: Floats  # [10] median errors at the judged depth
    share: Floats  # [D] at the judged depth


def depths_of(facts: Mapping[str, Any]) -> list[int]:
    """The depths that were measured; empty where the contents are odd."""
    rollouts = facts.get("rollouts")
    depths = rollouts.get("depths") if isinstance(rollouts, dict) else None
    return depths if isinstance(depths, list) and all(type(depth) is int for depth in depths) else []


def qualities(facts: Mapping[str, Any]) -> list[Quality]:
    """Every penalty of a report's contents, the best at the judged depth first; empty where there is none, or the contents are odd."""
    depths, penalties = depths_of(facts), facts.get("penalties")
    if not depths or not isinstance(penalties, dict):
        return []
    judged, rows = str(judged_depth(depths)), []
    for name, by_depth in penalties.items():
        if not isinstance(by_depth, dict) or not all(isinstance(by_depth.get(str(depth)), dict) for depth in depths):
            return []
        rho, auroc = (np.array([number(by_depth[str(depth)].get(key)) for depth in depths]) for key in ("spearman", "auroc"))
        tenths, share = (as_floats(by_depth[judged].get(key)) for key in ("error_by_tenth", "share_by_dimension"))
        rows.append(Quality(str(name), rho, auroc, tenths, share))
    at = depths.index(int(judged))
    return sorted(rows, key=lambda q: (math.isnan(q.spearman[at]), -round(float(q.spearman[at]), 2), q.name))


def data_name(facts: Mapping[str, Any]) -> str:
    """The file of the data set."""
    data = facts.get("data")
    return Path(str(data.get("path"))).name if isinstance(data, dict) else "the data"


def of_lone_run(draw: Callable[[Mapping[str, Any]], Plot | None]) -> Callable[[Sequence[Group]], Plot | None]:
    """One of these figures on the page of a lone run whose model was reported on."""

    def figure(groups: Sequence[Group]) -> Plot | None:
        alone = len(groups) == 1 and len(groups[0].runs) == 1
        return draw(groups[0].runs[0].model_report) if alone else None

    return figure


def against_depth(facts: Mapping[str, Any], label: str, draw: Callable[..., None], name: str, title: str, caption: str) -> Plot | None:
    """A measure of each penalty against the depth, as `draw(ax, rows, depths)` draws it; None where there are no penalties."""
    rows = qualities(facts)
    if not rows:
        return None
    figure, ax = axes(DEPTH, label)
    draw(ax, rows, depths_of(facts))
    names_above(figure, ax)
    return Plot(name, title, caption, figure)


def ranks(facts: Mapping[str, Any]) -> Plot | None:
    """Rank correlation of each penalty with the error, against the depth."""
    caption = (
        f"Over windows of {data_name(facts)}; errors are those of the mean of the members, in standard deviations of the change of each "
        f"dimension. Below the dashed line, {RANKS}, a penalty ranks nothing."
    )
    return against_depth(facts, RHO, draw_ranks, "penalty_ranks", "Penalties against true errors", caption)


def ranks_and_verdict(facts: Mapping[str, Any]) -> Plot | None:
    """`ranks`, whose caption begins with the verdict."""
    plot = ranks(facts)
    return plot and plot._replace(caption=f"Verdict: {facts.get('verdict')}. {plot.caption}")


def detection(facts: Mapping[str, Any]) -> Plot | None:
    """AUROC of the worst tenth of errors of each penalty, against the depth."""
    caption = (
        "The probability that a penalty is larger at one of the worst tenth of errors than at another: 0.5, the dashed line, is chance, "
        "and 1 a penalty that detects them all."
    )
    return against_depth(facts, AUROC, draw_detection, "penalty_detection", "Detection of the worst errors", caption)


def draw_ranks(ax: Axes, rows: Sequence[Quality], depths: Sequence[int]) -> None:
    """The lines of `ranks`."""
    _by_depth(ax, {q.name: q.spearman for q in rows}, depths, 0.0)
    ax.axhline(RANKS, **DASHED)


def draw_detection(ax: Axes, rows: Sequence[Quality], depths: Sequence[int]) -> None:
    """The lines of `detection`."""
    _by_depth(ax, {q.name: q.auroc for q in rows}, depths, 0.4)
    ax.axhline(0.5, **DASHED)


def _by_depth(ax: Axes, curves: Mapping[str, Floats], depths: Sequence[int], least: float) -> None:
    """A line for each penalty, on an axis that begins at `least` or below all of them."""
    at = np.arange(len(depths))
    for i, (name, values) in enumerate(curves.items()):
        ax.plot(at, values, color=color(i), linewidth=1.9, marker="o", markersize=4, label=name, solid_capstyle="round")
    ax.set_ylim(min([least, *(x for curve in curves.values() for x in curve if math.isfinite(x))]) - 0.05, 1.03)
    ax.set_xticks(at, [str(depth) for depth in depths])
    ax.margins(x=0.08)


def tenths(facts: Mapping[str, Any]) -> Plot | None:
    """Median error in each tenth of the windows, ordered by each penalty."""
    rows = qualities(facts)
    if not rows:
        return None
    figure, ax = axes(TENTH, ERROR)
    draw_tenths(ax, rows)
    names_above(figure, ax)
    depth = judged_depth(depths_of(facts))
    caption = (
        f"At depth {depth}: the windows are ordered by each penalty and divided into ten equal parts. The line of a penalty that can be "
        "trusted rises from left to right; where it is flat, the penalty says nothing."
    )
    return Plot("penalty_tenths", "Error where a penalty is small and large", caption, figure)


def draw_tenths(ax: Axes, rows: Sequence[Quality]) -> None:
    """The lines of `tenths`; logarithmic where they span a decade."""
    for i, q in enumerate(rows):
        ax.plot(np.arange(1, len(q.tenths) + 1), q.tenths, color=color(i), linewidth=1.9, marker="o", markersize=3.5, label=q.name)
    every = np.concatenate([q.tenths for q in rows])
    every = every[np.isfinite(every)]
    if len(every) and 0 < 10 * every.min() <= every.max():
        ax.set_yscale("log")
    elif len(every):
        ax.set_ylim(0, 1.06 * max(every.max(), 1e-9))
    ax.set_xticks(range(1, 11))


def shares(facts: Mapping[str, Any]) -> Plot | None:
    """Share of each predicted dimension in each penalty."""
    rows = [q for q in qualities(facts) if np.isfinite(q.share).all() and len(q.share)]
    if not rows:
        return None
    figure, ax = axes("share of the penalty", "")
    draw_shares(ax, rows, dimension_labels(facts, len(rows[0].share)))
    names_above(figure, ax)
    caption = (
        f"At depth {judged_depth(depths_of(facts))}: by how much the penalty falls where a dimension is left out, in shares of the sum "
        "over dimensions. A penalty that one dimension makes up says nothing of the others."
    )
    return Plot("penalty_shares", "Dimensions that make up a penalty", caption, figure)


def dimension_labels(facts: Mapping[str, Any], count: int) -> list[str]:
    """Names of the predicted dimensions, numbers where there are none or two are the same."""
    stored = facts.get("dimensions")
    names = list(map(str, stored)) if isinstance(stored, list) else []
    return names if len(set(names)) == len(names) == count else [str(n) for n in range(count)]


def draw_shares(ax: Axes, rows: Sequence[Quality], names: Sequence[str]) -> None:
    """A bar for each penalty, divided into its largest dimensions and the others."""
    mean = np.mean([q.share for q in rows], axis=0)
    most = PARTS if len(mean) <= PARTS else PARTS - 1
    largest = sorted(np.argsort(-mean, kind="stable")[:most])
    parts = {names[d]: np.array([q.share[d] for q in rows]) for d in largest}
    if len(mean) > most:
        parts[f"{len(mean) - most} others"] = 1 - np.sum(list(parts.values()), axis=0)
    left, at = np.zeros(len(rows)), np.arange(len(rows))[::-1]
    for i, (name, share) in enumerate(parts.items()):
        ax.barh(at, share, left=left, color=color(i), height=0.62, alpha=0.85, label=name)
        left += share
    ax.set_yticks(at, [q.name for q in rows])
    ax.tick_params(axis="y", colors=INK)
    ax.grid(visible=False)
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(percent)


def coverage(facts: Mapping[str, Any]) -> Plot | None:
    """Which actions the data hold."""
    held = facts.get("coverage")
    if not isinstance(held, dict) or not isinstance(names := held.get("names"), list) or not names:
        return None
    frequencies = as_floats(held.get("frequencies"))
    if len(frequencies) == len(names):
        return _frequencies(frequencies, list(map(str, names)))
    stored = held.get("shares")
    table = [as_floats(row) for row in stored] if isinstance(stored, list) else []
    if len(table) != len(names) or len({len(row) for row in table}) != 1 or not len(table[0]):
        return None
    return _histogram(table[0]) if len(table) == 1 else _cells(np.array(table), list(map(str, names)))


def _frequencies(frequencies: Floats, names: list[str]) -> Plot:
    """A bar for each discrete action."""
    figure, ax = axes("action", "share of the rows")
    _bars(ax, frequencies)
    if len(names) <= LISTED:
        ax.set_xticks(np.arange(len(names)), names)
    never = [name for name, share in zip(names, frequencies, strict=True) if share == 0]
    told = f"Never taken: {', '.join(never)}." if never else "Every action was taken."
    return Plot("action_coverage", "Actions in the data", f"{told} Dashed line: all actions equally often.", figure)


def _histogram(row: Floats) -> Plot:
    """A bar for each part of the range of a single action dimension."""
    figure, ax = axes("tenth of the action's range", "share of the rows")
    _bars(ax, row)
    ax.set_xticks(np.arange(len(row)), [str(n) for n in range(1, len(row) + 1)])
    return Plot("action_coverage", "Actions in the data", f"{_empty([row])} Dashed line: equally spread actions.", figure)


def _bars(ax: Axes, row: Floats) -> None:
    ax.bar(np.arange(len(row)), row, color=color(0), width=0.62, alpha=0.85)
    ax.axhline(1 / len(row), **DASHED)
    ax.set_ylim(0, 1.1 * max(float(np.nanmax(row)), 1 / len(row)))
    ax.yaxis.set_major_formatter(percent)


def _cells(table: Floats, names: list[str]) -> Plot:
    """A row of cells for each action dimension, the darker the more rows; a mark where there is none."""
    shown = table[:LISTED]
    figure, ax = axes("tenth of the action's range", "")
    figure.set_figheight(max(3.3, 0.6 + 0.28 * len(shown)))
    at = np.arange(len(shown))[::-1]
    for n in range(shown.shape[1]):
        ax.barh(at, 0.94, left=n - 0.47, height=0.8, color=MUTED, alpha=0.08)
        for y, share in zip(at, shown[:, n], strict=True):
            ax.barh(y, 0.94, left=n - 0.47, height=0.8, color=color(0), alpha=min(1.0, share / max(float(shown.max()), 1e-9)))
    empty = np.argwhere(shown == 0)
    ax.plot(empty[:, 1], at[empty[:, 0]], linestyle="", marker="x", markersize=4, color=MUTED)
    ax.set_yticks(at, names[:LISTED])
    ax.tick_params(axis="y", colors=INK)
    ax.set_xticks(np.arange(shown.shape[1]), [str(n) for n in range(1, shown.shape[1] + 1)])
    ax.grid(visible=False)
    ax.margins(y=0.02)
    ax.set_xlim(-0.55, shown.shape[1] - 0.45)
    crosses = "; × where there is none" if len(empty) else ""
    return Plot("action_coverage", "Actions in the data", f"{_empty(table)} The darker a cell, the more rows{crosses}.", figure)


def _empty(table: Sequence[Floats] | Floats) -> str:
    share = float(np.mean([np.mean(row == 0) for row in table]))
    return f"{percent(share)} of the tenths of the range hold no action." if share else "Every tenth of the range holds actions."


def names_above(figure: Figure, ax: Axes, title: str = "") -> None:
    """The legend of one of the axes above all of them, below a title."""
    handles, labels = ax.get_legend_handles_labels()
    columns = 3 if figure.get_figwidth() < 6 else len(labels)
    style: Any = {"loc": "outside upper left", "ncols": columns, "frameon": False, "labelcolor": INK, "fontsize": 8.5, "handlelength": 1.6}
    above = figure.legend(handles, labels, columnspacing=1.4, borderaxespad=0.2, title=title or None, alignment="left", **style)
    above.get_title().set(color=INK, fontsize=11)


def overview(facts: Mapping[str, Any]) -> Figure | None:
    """The figures of the penalties in one: correlation, AUROC, errors by tenths, dimensions; None where there is no penalty."""
    rows = qualities(facts)
    if not rows:
        return None
    figure, (rho, area, tenth, share) = panels((DEPTH, RHO), (DEPTH, AUROC), (TENTH, ERROR), ("share of the penalty", ""), rows=2)
    draw_ranks(rho, rows, depths_of(facts))
    draw_detection(area, rows, depths_of(facts))
    draw_tenths(tenth, rows)
    known = [q for q in rows if np.isfinite(q.share).all() and len(q.share)]
    if known:
        draw_shares(share, known, dimension_labels(facts, len(known[0].share)))
        handles, labels = share.get_legend_handles_labels()
        style: Any = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3, "frameon": False, "labelcolor": INK, "fontsize": 8}
        share.legend(handles, labels, columnspacing=1.2, handlelength=1.2, borderaxespad=0.2, **style)
    names_above(figure, rho, f"Penalties of {Path(str(facts['model']['path'])).name} on {data_name(facts)}")
    return figure
