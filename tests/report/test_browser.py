"""The page of several runs in a real browser: no error, no request, numbers of the runs' summaries, readable on a phone."""

import json
import re

import pytest
from chromium import needs_chromium, visit
from run_directories import add_diagnostics, make_run

from mbkit.report import write_report
from mbkit.report.collect import read_run

pytestmark = needs_chromium
NAMES = ("eval_return_mean", "eval_return_std", "best_eval_return", "steps", "wall_seconds")
SCRIPT = """
const top = selector => document.querySelector(selector).getBoundingClientRect().top;
const rows = [...document.querySelectorAll("table.runs tr")].slice(1).map(row =>
  Object.fromEntries([...row.querySelectorAll("[data-name]")].map(cell => [cell.dataset.name, cell.dataset.value])));
document.querySelector("button.copy").click();
const chart = document.querySelector(".chart"), frame = chart.querySelector("svg").getBoundingClientRect();
chart.dispatchEvent(new PointerEvent("pointermove", { clientX: frame.left + frame.width * .75, clientY: frame.top + frame.height / 2 }));
const tip = chart.querySelector(".tip"), box = tip.getBoundingClientRect();
const lines = JSON.parse(chart.querySelector("script").textContent)[0].lines;
const read = [...tip.querySelectorAll("span")].map(node => node.textContent), where = tip.querySelector("b").textContent;
for (let i = 0; i < 3; i++) chart.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
return {
  rows, read, where, lines, keyed: tip.querySelector("b").textContent, copied: document.querySelector("button.copy").dataset.copied,
  tip: [box.left, box.right], width: document.documentElement.scrollWidth, background: getComputedStyle(document.body).backgroundColor,
  tops: [top(".board"), top(".chart"), top(".note")], font: chart.querySelector("svg text").getBoundingClientRect().height,
};
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        make_run(folder / "sac" / str(seed), algo="sac", seed=seed, learned=False)
        add_diagnostics(make_run(folder / "pets" / str(seed), seed=seed), seed)
    for file in folder.rglob("summary.json"):
        summary = json.loads(file.read_text()) | {"best_eval_return": read_run(file.parent).best}
        if file.parent.parts[-2:] == ("sac", "1"):
            summary |= {"eval_return_mean": 123.456789, "notes": ["one note"] * 2}
        file.write_text(json.dumps(summary))
    return write_report([folder])


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_page_in_a_browser(page, tmp_path, width, dark):
    visited = visit(page, SCRIPT, tmp_path, width, 1600, dark)
    assert (visited.problems, visited.requests, visited.console) == ([], [], [])
    report = visited.report
    summaries = [json.loads((page.parent / algo / str(seed) / "summary.json").read_text()) for algo in ("pets", "sac") for seed in range(3)]
    assert [{name: float(row[name]) for name in NAMES} for row in report["rows"]] == [{name: s[name] for name in NAMES} for s in summaries]
    assert report["width"] <= width, "nothing is wider than the window"
    assert report["tops"] == sorted(report["tops"]), "score, curve, notes"
    assert report["tops"][0] < 200
    assert report["font"] >= 8
    assert report["background"] == ("rgb(20, 23, 27)" if dark else "rgb(250, 249, 246)")


def test_values_under_the_pointer_and_copied_tables(page, tmp_path):
    report = visit(page, SCRIPT, tmp_path, 390).report
    step = report["where"].rpartition(" ")[2]
    expected = {line["name"]: next(point[3] for point in line["points"] if point[2] == step) for line in report["lines"]}
    assert report["read"] == [f"{name}: {value}" for name, value in expected.items()]
    assert 0 <= report["tip"][0] <= report["tip"][1] <= 390
    steps = [point[2] for point in report["lines"][0]["points"]]
    assert report["keyed"].rpartition(" ")[2] == steps[steps.index(step) + 3]
    head, *rows = [line.split("\t") for line in report["copied"].splitlines()]
    assert head[:2] == ["Method", "Return"]
    copied = {row[0]: float(row[1]) for row in rows}
    returns = sorted([178.25, 123.456789, 180.25])
    assert copied["sac"] == pytest.approx(sum(returns) / 3)
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", page.read_text())
