"""What the pointer reads off a figure lies where the SVG draws it."""

import json
import re

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbkit.report.curves import Curve
from mbkit.report.figure import axes, band, chart
from mbkit.report.pointer import as_script, number_text


def panels_of(figure: Figure) -> list[dict]:
    return json.loads(re.search(r'<script type="application/json">(.*)</script>', chart(figure, "x"))[1])


def drawn() -> tuple[Figure, Axes]:
    figure, ax = axes("steps", "return")
    x = np.array([0.0, 10.0, 20.0])
    band(ax, Curve(x, x * 2, x * 2 - 1, x * 2 + 1), 1, "sac")
    ax.plot(x, x, label="_grid")
    return figure, ax


def test_readings_are_the_points_of_labelled_lines_with_their_intervals() -> None:
    (panel,) = panels_of(drawn()[0])
    (line,) = panel["lines"]
    assert (panel["x"], line["name"], line["color"]) == ("steps", "sac", "--s1")
    assert [point[2:] for point in line["points"]] == [["0", "0 (\u22121 to 1)"], ["10", "20 (19 to 21)"], ["20", "40 (39 to 41)"]]


def test_readings_lie_on_the_path_of_the_svg() -> None:
    figure, _ = drawn()
    text = chart(figure, "x")
    paths = [
        re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)
        for path in re.findall(r'<path d="([^"]*)"[^>]*style="fill: none; stroke: var\(--s1\)', text)
    ]
    (path,) = [np.array(path, dtype=float) for path in paths if len(path) == 3]
    points = np.array([point[:2] for point in panels_of(figure)[0]["lines"][0]["points"]])
    np.testing.assert_allclose(points, path, atol=0.11)


def test_readings_of_bars_have_the_names_of_their_ticks() -> None:
    figure, ax = axes("dimension", "error")
    ax.bar([0, 1], [0.25, 0.5])
    ax.set_xticks([0, 1], ["angle", "speed"])
    (line,) = panels_of(figure)[0]["lines"]
    assert [point[2:] for point in line["points"]] == [["angle", "0.25"], ["speed", "0.5"]]


def test_script_cannot_end_its_element() -> None:
    assert "</script" not in as_script([{"name": "</script><b>"}])


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (12345.6, "12\u202f346"), (0.012345, "0.01235"), (-3.0, "\u22123"), (1e-9, "1e\u221209")]
)
def test_number_text_is_short(value: float, text: str) -> None:
    assert number_text(value) == text
