"""Figures of penalties: what they draw, and what they leave out."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_reports import model_facts
from run_directories import make_run

from mbkit.report import write_report
from mbkit.report.penalty_plots import coverage, detection, overview, qualities, ranks, shares, tenths
from mbkit.report.plots import Plot


def labels(plot: Plot | None) -> list[str]:
    assert plot is not None
    return [text.get_text() for text in plot.figure.legends[0].get_texts()]


def test_the_best_penalty_at_the_judged_depth_comes_first() -> None:
    facts = model_facts({"b": 0.3, "never": math.nan, "a": 0.3, "best": 0.9})
    assert [q.name for q in qualities(facts)] == ["best", "a", "b", "never"]
    assert labels(ranks(facts)) == labels(tenths(facts)) == ["best", "a", "b", "never"]


def test_ranks_and_tenths_draw_what_was_measured() -> None:
    plot = ranks(model_facts())
    assert plot is not None
    (ax,) = plot.figure.axes
    assert ax.get_lines()[0].get_ydata() == pytest.approx(np.array([0.75, 0.74, 0.71, 0.66]))
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "2", "5", "10"]
    area = detection(model_facts())
    assert area is not None
    assert area.figure.axes[0].get_lines()[0].get_ydata() == pytest.approx(np.full(4, 0.855))
    by_tenth = tenths(model_facts())
    assert by_tenth is not None
    assert by_tenth.figure.axes[0].get_lines()[0].get_ydata() == pytest.approx(0.5 + 0.071 * np.arange(10))


def test_a_reversed_penalty_lies_inside_the_axes() -> None:
    plot = ranks(model_facts({"reversed": -0.9}))
    assert plot is not None
    assert plot.figure.axes[0].get_ylim()[0] < -0.95


def test_many_dimensions_are_the_largest_and_the_others() -> None:
    assert labels(shares(model_facts(dims=3))) == ["obs 0", "obs 1", "obs 2"]
    many = shares(model_facts(dims=20))
    assert labels(many) == ["obs 15", "obs 16", "obs 17", "obs 18", "obs 19", "15 others"]
    assert many is not None
    ends = [bar.get_x() + bar.get_width() for bar in many.figure.axes[0].patches]
    assert max(ends) == pytest.approx(1)


@pytest.mark.parametrize(
    ("held", "caption"),
    [
        ({"names": ["0", "1", "2"], "frequencies": [0.5, 0.5, 0.0]}, "Never taken: 2."),
        ({"names": ["0", "1"], "frequencies": [0.5, 0.5]}, "Every action was taken."),
        ({"names": ["valve"], "shares": [[0.2] * 5 + [0.0] * 5]}, "50\u00a0% of the tenths of the range hold no action."),
        ({"names": [str(n) for n in range(40)], "shares": [[0.1] * 10] * 40}, "Every tenth of the range holds actions."),
    ],
)
def test_coverage_says_what_is_missing(held: dict[str, Any], caption: str) -> None:
    plot = coverage({"coverage": held})
    assert plot is not None
    assert plot.caption.startswith(caption)


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"rollouts": 3},
        {"rollouts": {"depths": ["5"]}},
        {"penalties": {}},
        {"penalties": {"a": 3}},
        {"penalties": {"a": {"1": {}}}},
        {"rollouts": {"depths": []}},
    ],
)
def test_odd_contents_are_no_figure(odd: dict[str, Any]) -> None:
    facts = {**model_facts(), **odd} if odd else {}
    assert ranks(facts) is None
    assert detection(facts) is None
    assert tenths(facts) is None
    assert shares(facts) is None
    assert overview(facts) is None
    assert coverage({**facts, "coverage": {"names": ["a"], "shares": 3}}) is None


def test_shares_of_a_zero_penalty_are_left_out() -> None:
    facts = model_facts()
    for quality in facts["penalties"]["max_aleatoric"].values():
        quality["share_by_dimension"] = [None] * 3
    plot = shares(facts)
    assert plot is not None
    assert [tick.get_text() for tick in plot.figure.axes[0].get_yticklabels()] == ["disagreement"]


def test_the_page_of_a_run_shows_the_report_on_its_model(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "dynamics.pt").write_bytes(b"model")
    facts = model_facts()
    facts["model"]["sha256"] = hashlib.sha256(b"model").hexdigest()
    (run / "dynamics.report.json").write_text(json.dumps(facts))
    html = write_report([run]).read_text()
    assert (
        "Verdict: disagreement ranks errors at depth 5 with rho 0.71; max_aleatoric 0.18: prefer disagreement. Over windows of walks.h5"
        in html
    )
    assert "Dimensions that make up a penalty" in html
    assert (run / "plots/penalty_ranks.png").is_file()
    (run / "dynamics.pt").write_bytes(b"trained further")
    assert "prefer disagreement" not in write_report([run]).read_text()
