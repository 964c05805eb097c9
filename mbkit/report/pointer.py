"""What the pointer reads off a figure: the points of its lines, bars and marks, where they lie in the SVG, and their values as text."""

import json
import math
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from mbkit.report.collect import Floats

MOST = 150  # points of a line, at most
LIMITS: "WeakKeyDictionary[Line2D, tuple[Floats, Floats]]" = WeakKeyDictionary()  # line -> lower and upper ends of its interval
NAMED: "WeakKeyDictionary[Axes, list[tuple[float, float, str, str]]]" = WeakKeyDictionary()  # x, y, text and colour of single marks

Point = list[Any]  # [x, y] in units of the SVG, and the texts of x and y


def note_limits(line: Line2D, low: Floats, high: Floats) -> None:
    """The interval of each point of a line, which the pointer shows beside its value."""
    LIMITS[line] = low, high


def name_points(ax: Axes, x: Sequence[float], y: Sequence[float], texts: Sequence[str], color: str) -> None:
    """Marks that the pointer reads as texts of their own."""
    NAMED.setdefault(ax, []).extend((px, py, text, color) for px, py, text in zip(x, y, texts, strict=True))


def readings(figure: Figure, variables: dict[str, str]) -> list[dict[str, Any]]:
    """For each axes that has something to read: its box [left, top, right, bottom], the name of its abscissa, and its `lines`.

    Call it after the figure was drawn, which lays it out. `variables` are the CSS variables of colours.
    """
    return [panel for ax in figure.axes if (panel := _panel(ax, figure, variables))["lines"]]


def as_script(panels: list[dict[str, Any]]) -> str:
    """JSON that may stand in a script element."""
    return json.dumps(panels, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def _panel(ax: Axes, figure: Figure, variables: dict[str, str]) -> dict[str, Any]:
    lines = [_line(ax, figure, line, label) for line, label in _lines(ax)]
    lines += [_bars(ax, figure, container) for container in ax.containers if isinstance(container, BarContainer)]
    for x, y, text, color in NAMED.get(ax, []):
        lines.append({"name": "", "color": color, "points": [[*_place(ax, figure, x, y), "", text]], "mark": 1})
    for line in lines:
        line["color"] = variables.get(line["color"], "--ink")
    low, high = (_in_svg(figure, corner) for corner in ax.bbox.get_points())
    box = [low[0], high[1], high[0], low[1]]
    return {"box": box, "x": ax.get_xlabel(), "y": ax.get_ylabel(), "lines": [line for line in lines if line["points"]]}


def _lines(ax: Axes) -> list[tuple[Line2D, str]]:
    """The lines that have a label, which others, such as grid and reference lines, have not; with the label."""
    plain = [(line, str(line.get_label())) for line in ax.get_lines() if not str(line.get_label()).startswith("_")]
    bars = [c for c in ax.containers if isinstance(c, ErrorbarContainer) and not str(c.get_label()).startswith("_")]
    return plain + [(container.lines[0], str(container.get_label())) for container in bars if container.lines[0] is not None]


def _line(ax: Axes, figure: Figure, line: Line2D, label: str) -> dict[str, Any]:
    x, y = (np.asarray(values, dtype=np.float64) for values in line.get_data())
    low, high = LIMITS.get(line, (None, None))
    rows = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    rows = rows[:: -(-max(len(rows), 1) // MOST)]
    points: list[Point] = []
    for i in rows:
        text = _value(ax, y[i])
        if low is not None and high is not None and math.isfinite(low[i]) and low[i] < high[i]:
            text += f" ({_value(ax, low[i])} to {_value(ax, high[i])})"
        points.append([*_place(ax, figure, x[i], y[i]), number_text(x[i]), text])
    return {"name": label, "color": str(line.get_color()), "points": points}


def _bars(ax: Axes, figure: Figure, bars: BarContainer) -> dict[str, Any]:
    names = {round(position, 6): text.get_text() for position, text in zip(ax.get_xticks(), ax.get_xticklabels(), strict=False)}
    points: list[Point] = []
    for i, bar in enumerate(bars):
        x, y = bar.get_x() + bar.get_width() / 2, bar.get_height()
        if math.isfinite(y):
            points.append([*_place(ax, figure, x, y), names.get(round(x, 6)) or str(i), _value(ax, y)])
    return {"name": "", "color": "", "points": points}


def _place(ax: Axes, figure: Figure, x: float, y: float) -> list[float]:
    return _in_svg(figure, ax.transData.transform((x, y)))


def _in_svg(figure: Figure, pixel: Any) -> list[float]:
    """A place in pixels of the figure, counted from below, in units of its SVG, points counted from above."""
    (width, height), (x, y) = figure.get_size_inches() * 72, pixel / figure.dpi * 72
    return [round(float(np.clip(x, 0, width)), 1), round(float(np.clip(height - y, 0, height)), 1)]


def _value(ax: Axes, value: float) -> str:
    """A value as its axis writes it where that has a unit, else with four digits."""
    formatter = ax.yaxis.get_major_formatter()
    if isinstance(formatter, FuncFormatter):
        return str(formatter(value))
    return number_text(value)


def number_text(value: float) -> str:
    """0.01234, 123.4, 12 345, 1.2e+08."""
    if value and not 1e-3 <= abs(value) < 1e8:
        text = f"{value:.3g}"
    else:
        text = f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.4g}"
    return text.replace(",", "\u202f").replace("-", "\u2212")
