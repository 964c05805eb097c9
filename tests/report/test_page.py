"""The page of synthetic runs: its contents, its omissions and its errors."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from run_directories import add_diagnostics, add_learner, log, make_run

from mbkit.errors import UserError
from mbkit.report import write_report
from mbkit.report.chapters import Chapter, Figures, draw, draw_sections, model_numbers
from mbkit.report.collect import Group, group_runs, read_run
from mbkit.report.page import render
from mbkit.report.sections import MODEL
from mbkit.report.tables import last_metrics
from mbkit.report.text import highlight, num


def groups_of(*paths: Path) -> list[Group]:
    return group_runs([read_run(path) for path in paths])


def titles(*paths: Path) -> set[str]:
    """Titles of the sections and figures on a page."""
    sections = draw_sections(groups_of(*paths))
    return {*sections, *(plot.title for figures in sections.values() for plot in figures.plots)}


def page_of(*paths: Path) -> str:
    """The page as HTML, without its figures."""
    groups = groups_of(*paths)
    return rendered(groups, {name: figures._replace(plots=[]) for name, figures in draw_sections(groups).items()}, paths[0])


def rendered(groups: list[Group], sections: dict[str, Figures], folder: Path) -> str:
    """The page as HTML, of runs on one environment."""
    return render([Chapter(groups[0].env, groups, sections, [])], folder)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "pets" / "cartpole" / "0-run")


def test_write_report_page_is_complete_and_self_contained(run: Path) -> None:
    page = write_report([run])
    html = page.read_text()
    assert page == run.resolve() / "report.html"
    assert html.count("<svg") == 9
    for text in (
        "178.2",
        "± 3.50",
        "181",
        "6 min 22 s",
        "cpu, 2 threads",
        "10 evaluation episodes",
        "torch 2.13.0",
        "mbkit train pets env=cartpole seed=0",
    ):
        assert text in html, text
    assert "data:video/mp4;base64," in html
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", html)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids)), "figures must not share ids"
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', html)) <= set(ids)
    assert {plot.stem for plot in (run / "plots").glob("*.png")} >= {
        "return_steps",
        "return_seconds",
        "model_holdout_error",
        "calibration",
        "horizon",
        "time_act_ms",
    }
    assert not list(run.rglob("*.tmp"))


def test_render_same_run_gives_same_page(run: Path) -> None:
    pages = [rendered(groups, draw_sections(groups), run) for groups in (groups_of(run), groups_of(run))]
    assert pages[0] == pages[1]


DIAGNOSED = {
    "Open-loop error",
    "Coverage of 90\u00a0% intervals",
    "Predicted minus real return",
    "Ensemble disagreement along model rollouts",
}
LEARNED = {
    "The learner",
    "Action value",
    "Critic loss",
    "Actor loss",
    "Entropy of the policy",
    "Temperature",
    "Gradient updates per second",
}
ROLLED_OUT = {
    "Model rollouts",
    "Length of model rollouts",
    "Model transitions stored",
    "Share of model steps stored",
    "Memory of the model buffer",
}


def test_draw_sections_shows_what_was_logged(run: Path) -> None:
    assert not titles(run) & (DIAGNOSED | LEARNED | ROLLED_OUT)
    assert titles(add_learner(add_diagnostics(run))) >= DIAGNOSED | LEARNED | ROLLED_OUT
    names = {plot.name for figures in draw_sections(groups_of(run)).values() for plot in figures.plots}
    assert names >= {
        "diagnose_error_1",
        "diagnose_coverage_90",
        "diagnose_return_gap",
        "diagnose_epistemic_1",
        "diagnose_q_gap",
        "critic_loss",
        "alpha",
    }


def test_draw_sections_policy_searches_have_figures(tmp_path: Path) -> None:
    path = make_run(tmp_path / "trpo", algo="trpo", learned=False)
    for step in range(100, 3001, 100):
        metrics = {"trpo/kl": 0.01, "trpo/accepted": 1.0, "trpo/backtracks": step // 1000, "critic/value": 1.0, "actor/prior_kl": 0.1}
        log(path, step, metrics)
    expected = {"State value", "KL divergence of an update", "Accepted updates", "Backtracking", "KL divergence from the prior"}
    assert titles(path) >= expected


def test_draw_sections_without_figures_are_left_out(tmp_path: Path) -> None:
    path = make_run(tmp_path / "sac", algo="sac", learned=False)
    log(path, 100, {"alpha": 0.2, "imagination/kept": None})
    assert "The learner" in titles(path)
    assert "Model rollouts" not in titles(path)


def test_draw_sections_model_free_run_has_no_model(tmp_path: Path) -> None:
    path = make_run(tmp_path / "sac", algo="sac", learned=False)
    assert titles(path).isdisjoint({"The model", "The planner"})
    log(path, 100, {"diagnose/q_gap": 0.2, "diagnose/q_gap_abs": 0.3, "diagnose/optimism": 0.1})  # of its critics
    assert "The model" not in titles(path)


def test_draw_sections_ground_truth_dynamics_were_never_fitted(tmp_path: Path) -> None:
    sections = draw_sections(groups_of(make_run(tmp_path / "run", learned=False, dynamics={"name": "mujoco"}, planner={"name": "icem"})))
    assert "The model" not in sections
    assert sections["The planner"].absent == ["No planning time: no action has been planned yet."]


def test_render_interrupted_run_still_gives_a_page(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", finished=False)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1600, "sec')
    html = page_of(path)
    assert "up to step 1400 of 3000" in html
    assert "This run has not finished" in html
    assert "1 unreadable line of metrics.jsonl" in html
    assert "No calibration" in html
    assert "No video" in html


def test_render_shows_notes_of_a_run(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, "notes": ["no video: no renderer was found", "One sentence."]}))
    html = page_of(run)
    assert ">No video: no renderer was found.<" in html
    assert ">One sentence.<" in html


def test_write_report_several_experiments_are_compared(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / f"a{s}", seed=s) for s in range(2)]
    paths += [make_run(tmp_path / "b", gamma=0.9), make_run(tmp_path / "c", algo="sac", learned=False)]
    page = write_report(paths)
    assert page == tmp_path.resolve() / "report.html"
    html = page.read_text()
    assert "Every run" in html
    assert html.count(">one seed: 0</td>") == 2


def test_render_large_video_is_linked(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mbkit.report.clips.EMBED_BYTES", 10)
    (run / "videos" / "step-3000.mp4").rename(run / "videos" / "step 100%.mp4")
    assert 'src="../pets/cartpole/0-run/videos/step%20100%25.mp4"' in rendered(groups_of(run), {}, tmp_path / "elsewhere")


def test_render_text_from_a_run_is_escaped(tmp_path: Path) -> None:
    assert "<script>alert" not in page_of(make_run(tmp_path / "run", env="<script>alert(1)</script>"))
    assert "&lt;" in highlight("key: '<b>'")


@pytest.mark.parametrize(
    "broken",
    [
        {"calibration": 3},
        {"calibration": {"nominal": [0.5]}},
        {"calibration": {"per_dim": [[0.5], 3]}},
        {"horizon": {"steps": [], "median": []}},
        {"one_step": {"mse": None}},
        [],
    ],
)
def test_draw_incomplete_diagnostics_are_no_error(run: Path, broken: Any) -> None:
    (run / "diagnostics.json").write_text(json.dumps(broken))
    groups = groups_of(run)
    assert [line.partition(":")[0] for line in draw(MODEL, groups).absent] == ["No calibration", "No error against horizon"]
    assert model_numbers(groups) == []


def test_model_numbers_of_seeds_are_their_mean(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / str(s), seed=s) for s in range(2)]
    groups = groups_of(*paths)
    groups[0].runs[1].diagnostics["one_step"]["nll"] = -13.2
    numbers = dict(model_numbers(groups))
    assert numbers["Negative log-likelihood on evaluation episodes, nats"] == "\u221212.2"
    assert len(numbers) == 1
    assert model_numbers([*groups, *groups_of(make_run(tmp_path / "b", gamma=0.9))]) == []


def test_write_report_mistakes_are_named(tmp_path: Path, run: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere is not a run directory"):
        write_report([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="at least one run directory"):
        write_report([])


def test_write_report_unwritable_out_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mbkit.report.page.chapters", lambda *_: pytest.fail("the path is checked first"))
    with pytest.raises(UserError, match="cannot be written"):
        write_report([run], run / "config.yaml" / "page.html")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (178.25, "178.2"),
        (0.0, "0"),
        (-12345.6, "\u221212\u202f346"),
        (0.01234, "0.01234"),
        (math.nan, "–"),
        (None, "–"),
        (999.96, "1000.0"),
        (3.5, "3.500"),
    ],
)
def test_num_is_readable(value: float | None, text: str) -> None:
    assert num(value) == text


def test_write_report_environments_are_chapters_that_begin_with_scores(tmp_path: Path) -> None:
    for env in ("cartpole", "reacher"):
        for algo in ("pets", "sac"):
            for seed in range(2):
                make_run(tmp_path / env / algo / str(seed), algo=algo, env=env, seed=seed, steps=600, learned=algo == "pets")
    html = write_report([tmp_path], tmp_path / "page.html").read_text()
    assert re.findall(r"<h2>(.*?)</h2>", html)[:3] == ["cartpole", "reacher", "Comparison"]
    for text in ("Score over all", "Performance profile", "Probability of improvement", "Aggregate scores", "The model on reacher"):
        assert text in html, text
    assert html.index("Score over all") < html.index("<svg") < html.index("<h2>Comparison")
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids)), "figures of several environments must not share ids"
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', html)) <= set(ids)


def test_write_report_notes_come_after_the_curves(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / name, algo=name, learned=False) for name in ("sac", "td3")]
    for path in paths:
        summary = json.loads((path / "summary.json").read_text())
        (path / "summary.json").write_text(json.dumps({**summary, "notes": [f"A note of {path.name}."]}))
    html = write_report(paths).read_text()
    assert html.index('class="board"') < html.index("<svg") < html.index("A note of sac.")


def test_write_report_models_are_side_by_side(tmp_path: Path) -> None:
    paths = [add_diagnostics(make_run(tmp_path / name, gamma=gamma)) for name, gamma in (("a", 0.99), ("b", 0.9))]
    html = write_report(paths).read_text()
    table = html[html.index("Models side by side") :]
    last = [json.loads(line) for line in (paths[0] / "metrics.jsonl").read_text().splitlines() if "diagnose/error_15" in line][-1]
    assert f'data-value="{last["diagnose/error_15"]!r}"' in table
    assert "Coverage of 90" in table


def test_last_metrics_of_many_runs_are_means_of_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [make_run(tmp_path / str(seed), seed=seed, steps=400, learned=False) for seed in range(2)]
    for path, value in zip(paths, (1.0, 3.0), strict=True):
        log(path, 400, {"alpha": value})
    alone = last_metrics(groups_of(*paths))
    assert (alone.columns, dict(alone.rows)["alpha"]) == (["pets, seed 0", "pets, seed 1"], [1, 3])
    monkeypatch.setattr("mbkit.report.tables.RUNS_LISTED", 1)
    averaged = last_metrics(groups_of(*paths))
    assert (averaged.columns, dict(averaged.rows)["alpha"]) == (["pets"], [2])
