"""The page of `mbkit dynamics report`."""

import json
import re
from pathlib import Path

import pytest
from model_reports import model_facts

from mbkit.errors import UserError
from mbkit.report.model_page import model_figures, places, render_model, write_model_report


def test_page_is_complete_and_self_contained() -> None:
    html = render_model(model_facts())
    for text in (
        "dynamics.pt <span>on walks.h5</span>",
        "disagreement ranks errors at depth 5 with rho 0.71; max_aleatoric 0.18: prefer disagreement.",
        "7 probabilistic, 5 of them elites",
        "12\u202f345 rows, 40 episodes",
        "<dt>Fitted to these rows</dt><dd>no</dd>",
        "\u22120.37<",
        ">One note.<",
        'class="number best">0.71<',
        "2\u202f000",
        "the episodes of walks.h5",
        "Actions in the data",
        "mbkit dynamics report",
    ):
        assert text in html, text
    assert html.count("<svg") == 8
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", html)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids)), "figures must not share ids"
    assert "no fit has used" not in html


def test_page_of_the_fitted_data_and_of_a_single_deterministic_member() -> None:
    facts = model_facts({}, verdict="no penalty: a single deterministic member")
    facts["model"] |= {"members": 1, "elites": 1, "probabilistic": False}
    facts["data"]["in_sample"] = True
    del facts["return_gap"]
    html = render_model(facts)
    assert "No penalty: a single deterministic member." in html
    assert "data that the model was fitted to" in html
    assert "<table>" not in html
    assert [plot.name for plot in model_figures(facts, "x")] == ["horizon", "evaluation_error"]


def test_text_from_files_is_escaped() -> None:
    facts = model_facts(notes=["<script>alert(1)</script>"])
    facts["data"]["path"] = "<b>.h5"
    html = render_model(facts)
    assert "<script>alert" not in html
    assert "<b>.h5" not in html


def test_places_lie_beside_the_model_or_the_page(tmp_path: Path) -> None:
    names = [path.name for path in places(tmp_path / "dynamics.pt")]
    assert names == ["dynamics.report.html", "dynamics.report.json", "dynamics.report.png"]
    assert [path.name for path in places("x.pt", tmp_path / "a.html")] == ["a.html", "a.json", "a.png"]
    for out in ("a", "a.json", ".html"):
        with pytest.raises(UserError, match=r"--out names the page: expected FILE\.html, came"):
            places("x.pt", tmp_path / out)


def test_all_files_are_written_or_none(tmp_path: Path) -> None:
    paths = places("x.pt", tmp_path / "a.html")
    facts = model_facts()
    assert write_model_report(facts, paths) == paths
    assert json.loads(paths[1].read_text())["verdict"] == facts["verdict"]
    for path in paths:
        path.unlink()
    (tmp_path / "a.png.tmp").mkdir()
    with pytest.raises(UserError, match=r"a\.png cannot be written"):
        write_model_report(facts, paths)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png.tmp"]
