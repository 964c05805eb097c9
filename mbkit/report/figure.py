"""The common look of all figures, and their SVG, whose colours follow the page's light or dark scheme."""

import io
import re
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from mbkit.report.curves import Curve
from mbkit.report.pointer import as_script, note_limits, readings
from mbkit.storage import replacing

INK, MUTED, GRID, CARD = "#23272f", "#7d828c", "#e6e3dc", "#fefefe"
SERIES = ("#1f6f8b", "#c4553b", "#5a8f4e", "#8460a8", "#b5832a", "#55606e", "#2a8f84", "#b04a7d", "#7a6a1f", "#4a62b0")
THEME = {INK: "--ink", MUTED: "--muted", GRID: "--grid", CARD: "--card", **{color: f"--s{i}" for i, color in enumerate(SERIES)}}
STYLE: Any = {"svg.fonttype": "none", "font.size": 9.0, "font.family": "sans-serif", "axes.unicode_minus": True}


def color(index: int) -> str:
    """Colour of line `index`; there are ten, which repeat."""
    return SERIES[index % len(SERIES)]


def axes(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """An empty figure with horizontal grid lines and no box."""
    figure, (ax,) = panels((xlabel, ylabel))
    return figure, ax


def panels(*labels: tuple[str, str], rows: int = 1, small: bool = False) -> tuple[Figure, list[Axes]]:
    """An empty figure with several axes side by side, or in several rows of equal length, one for each (xlabel, ylabel).

    `small`: the axes of two columns in the width of one figure.
    """
    columns = len(labels) // rows
    size = (4.7, 1.55 * rows) if small else (4.7, 3.0 * rows) if columns == 1 else (4.2 * columns, 3.3 * rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        every: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax, (xlabel, ylabel) in zip(every, labels, strict=True):
        ax.set_xlabel(xlabel, color=MUTED)
        ax.set_ylabel(ylabel, color=MUTED)
        ax.grid(axis="y", color=GRID, linewidth=0.8)
        ax.set_axisbelow(True)
        ax.tick_params(which="both", colors=MUTED, length=0, pad=5)
        for side, spine in ax.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(GRID)
    return figure, every


def steps_axis(ax: Axes) -> None:
    """Format the horizontal axis as 500, 1k, 1.5k."""
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))


def band(ax: Axes, curve: Curve, index: int, label: str | None, dashed: bool = False, dots: bool = True) -> None:
    """Draw a line with its interval; a lone point gets an error bar.

    `dashed`: a thinner, dashed line with a fainter interval; `dots`: mark the points where there are few.
    """
    shade = color(index)
    if len(curve.x) == 1:
        bar = ax.errorbar(curve.x, curve.y, [curve.y - curve.low, curve.high - curve.y], color=shade, fmt="o", capsize=4, label=label)
        note_limits(bar.lines[0], curve.low, curve.high)
        return
    ax.fill_between(curve.x, curve.low, curve.high, color=shade, alpha=0.07 if dashed else 0.16, linewidth=0)
    marks: Any = {"marker": "o", "markersize": 3.5} if len(curve.x) <= 30 and dots and not dashed else {}
    style: Any = {"linewidth": 1.4, "linestyle": (0, (5, 2))} if dashed else {"linewidth": 1.9, "solid_capstyle": "round"}
    (line,) = ax.plot(curve.x, curve.y, color=shade, label=label, **style, **marks)
    note_limits(line, curve.low, curve.high)


def legend(ax: Axes, alone: bool = True, above: bool = False) -> None:
    """Add a legend where there are several lines.

    Args:
        ax: the axes.
        alone: whether a single line goes without a legend.
        above: place the legend above the axes.
    """
    handles, labels = ax.get_legend_handles_labels()
    if len(handles) > alone:
        style: Any = (
            {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 4, "columnspacing": 1.2, "borderaxespad": 0.2} if above else {}
        )
        backing: Any = {"facecolor": CARD, "edgecolor": "none", "framealpha": 0.75, "fancybox": False, "borderpad": 0.2}
        ax.legend(handles, labels, labelcolor=INK, fontsize=8.5, handlelength=1.6, **backing, **style)


def svg(figure: Figure, name: str) -> str:
    """The figure as inline SVG: text as text, colours as CSS variables, every id prefixed with `name`, unique on the page."""
    buffer = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = re.sub(r".*?(?=<svg)", "", buffer.getvalue(), count=1, flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    text = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", text).replace("xlink:href", "href")
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    for value, variable in THEME.items():
        text = text.replace(value, f"var({variable})")
    return text


def chart(figure: Figure, name: str) -> str:
    """The figure as inline SVG with what the pointer reads off it, as JSON."""
    drawn = svg(figure, name)
    panels = readings(figure, THEME)
    return f'{drawn}<script type="application/json">{as_script(panels)}</script>' if panels else drawn


def draw_png(figure: Figure) -> bytes:
    """The figure on a white background, as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=160, facecolor="white")
    return buffer.getvalue()


def save_png(figure: Figure, file: Path) -> None:
    """Write the figure on a white background, as a whole file or not at all."""
    with replacing(file) as stream:
        stream.write(draw_png(figure))
