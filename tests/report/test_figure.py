"""The common look of figures, and their SVG."""

import re

import numpy as np

from mbkit.report.curves import Curve
from mbkit.report.figure import axes, band, color, legend, svg


def test_svg_ids_and_colours_are_those_of_the_page() -> None:
    figure, ax = axes("environment steps", "return")
    line = np.array([0.0, 1.0])
    band(ax, Curve(line, line, line - 1, line + 1), 1, "sac")
    text = svg(figure, "one")
    assert "var(--s1)" in text
    assert color(1) not in text
    assert all(name.startswith("one-") for name in re.findall(r'\bid="([^"]+)"', text))
    assert ">environment steps<" in text


def test_band_of_one_point_is_an_error_bar() -> None:
    _, ax = axes("environment steps", "return")
    band(ax, Curve(np.array([5.0]), np.array([2.0]), np.array([1.0]), np.array([4.0])), 0, None)
    (bar,) = ax.containers
    np.testing.assert_allclose(bar.lines[2][0].get_segments()[0], [[5, 1], [5, 4]])


def test_legend_of_one_line_depends_on_alone() -> None:
    for alone in (True, False):
        _, ax = axes("environment steps", "return")
        ax.plot([0, 1], [0, 1], label="sac")
        legend(ax, alone=alone)
        assert (ax.get_legend() is None) == alone
