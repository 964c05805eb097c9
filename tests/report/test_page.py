"""The report of synthetic runs: what it says, what it leaves out, and what it refuses."""

import json
import math
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import mbkit.recipes  # noqa: F401 - fills the registry
from mbkit.config import compose, parse_overrides, to_yaml
from mbkit.errors import UserError
from mbkit.report import write_report
from mbkit.report.collect import group_runs, read_run
from mbkit.report.command import command, full_command
from mbkit.report.curves import common_grid, eval_curve
from mbkit.report.page import draw, highlight, num
from mbkit.report.sections import MODEL

VIDEO = b"\x00\x00\x00\x18ftypmp42" + bytes(2000)


def make_run(
    path: Path,
    algo: str = "pets",
    env: str = "cartpole",
    seed: int = 0,
    steps: int = 3000,
    learned: bool = True,
    finished: bool = True,
    **config: Any,
) -> Path:
    """A run that learns the swing-up: evaluation every 200 steps, episodes of 200, one fit an episode."""
    rng = np.random.default_rng(seed)
    path.mkdir(parents=True)
    parts = {
        "dynamics": {"name": "ensemble", "members": 5, "hidden": [200, 200, 200], "lr": 0.001},
        "planner": {"name": "icem", "horizon": 25},
    }
    settings = {
        "algo": algo,
        "env": env,
        "seed": seed,
        "steps": steps,
        "gamma": 0.99,
        **(parts if learned else {"agent": {"lr": 3e-4}}),
        **config,
    }
    (path / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    reached = steps if finished else steps // 2
    skill = [180 / (1 + math.exp(-(step - 900) / 220)) for step in range(0, reached + 1, 200)]
    lines = []
    for step, level in zip(range(0, reached + 1, 200), skill, strict=True):
        clock = {"step": step, "seconds": 0.11 * step + 2}
        lines.append({**clock, "episode/return": level + rng.normal(0, 14), "episode/length": 200})
        if learned and step:
            error = 0.12 * math.exp(-step / 700) + 0.004
            members = {f"model/holdout_mse_{m}": error * math.exp(rng.normal(0, 0.25)) for m in range(5)}
            lines.append(
                {
                    **clock,
                    "model/holdout_mse": error,
                    "model/train_loss": -4 - step / 400 + rng.normal(0, 0.3),
                    "model/nan": None,
                    **members,
                }
            )
            lines.append({**clock, "plan/ms": 41 + rng.gamma(2, 2), "plan/score": level * 0.12 + rng.normal(0, 0.6)})
        std = 4 + 30 * math.exp(-(((step - 900) / 400) ** 2))
        lines.append({**clock, "eval/return": level + rng.normal(0, 4), "eval/return_std": std, "eval/length": 200})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        finish(path, algo, env, seed, steps, learned)
    return path


def finish(path: Path, algo: str, env: str, seed: int, steps: int, learned: bool) -> None:
    summary = {"algo": algo, "env": env, "seed": seed, "steps": steps, "eval_return_mean": 178.25 + seed, "eval_return_std": 3.5}
    summary |= {"eval_episodes": 10, "best_eval_return": 181.0 + seed, "wall_seconds": 382.0, "device": "cpu, 2 threads"}
    summary |= {"versions": {"mbkit": "0.1.0", "torch": "2.13.0", "mujoco": "4.0.0"}}
    (path / "summary.json").write_text(json.dumps(summary))
    (path / "videos").mkdir()
    (path / "videos" / "final.mp4").write_bytes(VIDEO)
    if learned:
        h = np.arange(1, 31)
        nominal = np.linspace(0.1, 0.9, 9)
        median = 0.01 * h**1.1
        diagnostics = {
            "calibration": {
                "nominal": nominal.tolist(),
                "empirical": (nominal**1.25).tolist(),
                "per_dim": {f"x{d}": (nominal ** (1 + 0.15 * d)).tolist() for d in range(4)},
            },
            "horizon": {
                "steps": h.tolist(),
                "median": median.tolist(),
                "low": (median * 0.5).tolist(),
                "high": (median * 2.2).tolist(),
                "baseline": (0.12 * np.sqrt(h)).tolist(),
            },
            "holdout": {"mse": 0.0043, "nll": -11.2, "per_dim": [0.002, 0.004, 0.009, 0.003]},
        }
        (path / "diagnostics.json").write_text(json.dumps(diagnostics))


def add_diagnostics(path: Path, seed: int = 0) -> Path:
    """What evaluations log of a learned model as it gets better; early episodes are too short for the longest horizons."""
    rng = np.random.default_rng(100 + seed)
    with (path / "metrics.jsonl").open("a") as file:
        for step in range(200, 3001, 200):
            rough = 0.4 * math.exp(-step / 900) + 0.02
            row = {"step": step, "seconds": 0.11 * step + 2, "diagnose/calibration_error": 0.1}
            row |= {f"diagnose/error_{h}": rough * h**1.2 * math.exp(rng.normal(0, 0.1)) for h in (1, 5, 15, 30) if step > 300 or h < 15}
            row |= {f"diagnose/epistemic_{h}": 0.4 * rough * h**0.7 * math.exp(rng.normal(0, 0.1)) for h in (1, 5, 15)}
            gap = 12 * math.exp(-step / 700) * rng.normal(1, 0.3)
            row |= {"diagnose/return_gap": gap - 0.5, "diagnose/return_gap_abs": abs(gap) + 1}
            row |= {"diagnose/coverage_90": 0.9 - 0.3 * math.exp(-step / 500) + rng.normal(0, 0.01)}
            file.write(json.dumps(row) + "\n")
    return path


def add_learner(path: Path) -> Path:
    """What an agent that learns on imagined data logs."""
    with (path / "metrics.jsonl").open("a") as file:
        for step in range(100, 3001, 100):
            clock = {"step": step, "seconds": 0.11 * step + 2}
            learner = {"critic/loss": 3 / step, "critic/q": step / 60, "actor/loss": -step / 60, "actor/entropy": 2 - step / 1500}
            file.write(json.dumps({**clock, **learner, "alpha": math.exp(-step / 800), "updates_per_second": 310.0}) + "\n")
            grown = {"imagination/horizon": 1 + step // 1000, "imagination/rows": 400 * step, "imagination/kept": 0.97}
            file.write(json.dumps({**clock, **grown, "imagination/gigabytes": 4e-5 * step}) + "\n")
    return path


def test_searches_and_divergences_of_a_policy_have_figures(tmp_path: Path) -> None:
    path = make_run(tmp_path / "trpo" / "cartpole" / "0-run")
    with (path / "metrics.jsonl").open("a") as file:
        for step in range(100, 3001, 100):
            found = {"trpo/kl": 0.01, "trpo/accepted": 1.0, "trpo/backtracks": step // 1000, "critic/value": 1.0, "actor/prior_kl": 0.1}
            file.write(json.dumps({"step": step, "seconds": 0.1 * step, **found}) + "\n")
    shown = titles(write_report([path]))
    assert {"Value", "Divergence of an update", "Steps accepted", "Candidates refused", "Divergence from the prior"} <= shown


def titles(page: Path) -> set[str]:
    return set(re.findall(r"<h[23]>(.*?)</h[23]>", page.read_text()))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "pets" / "cartpole" / "0-run")


def test_page_is_complete_and_self_contained(run: Path) -> None:
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
        "model_holdout_mse",
        "calibration",
        "horizon",
        "plan_ms",
    }
    assert not list(run.rglob("*.tmp"))


def test_same_run_gives_same_page(run: Path) -> None:
    assert write_report([run]).read_text() == write_report([run]).read_text()


DIAGNOSED = {
    "Open-loop error over training",
    "Coverage over training",
    "Imagined minus real return",
    "Disagreement along imagined rollouts",
}
LEARNED = {"The learner", "Action value", "Critic loss", "Actor loss", "Entropy of the policy", "Temperature", "Speed of learning"}
IMAGINED = {"Imagination", "Length of imagined rollouts", "Imagined transitions remembered", "Share kept", "Memory of imagination"}


def test_what_was_logged_of_model_learner_and_imagination_is_drawn(run: Path) -> None:
    assert not titles(write_report([run])) & (DIAGNOSED | LEARNED | IMAGINED)
    assert titles(write_report([add_learner(add_diagnostics(run))])) >= DIAGNOSED | LEARNED | IMAGINED
    found = {plot.stem for plot in (run / "plots").glob("*.png")}
    assert found >= {"diagnose_error_1", "diagnose_coverage_90", "diagnose_return_gap", "diagnose_epistemic_1", "critic_loss", "alpha"}


def test_a_lone_experiment_shows_every_horizon_and_several_the_first(tmp_path: Path) -> None:
    seeds = [add_diagnostics(make_run(tmp_path / str(s), seed=s), s) for s in range(2)]
    other = add_diagnostics(make_run(tmp_path / "other", gamma=0.9))
    alone, several = write_report(seeds, tmp_path / "a.html"), write_report([*seeds, other], tmp_path / "b.html")
    assert all(f">{h} steps<" in alone.read_text() for h in (5, 15, 30))
    assert "Open-loop error over training, 1 step" in titles(several)


def test_a_section_without_figures_is_left_out(tmp_path: Path) -> None:
    path = make_run(tmp_path / "sac", algo="sac", learned=False)
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 100, "seconds": 9.0, "alpha": 0.2, "diagnose/error_1": None}) + "\n")
    assert "The learner" in titles(write_report([path]))
    assert "Imagination" not in titles(write_report([path]))


def test_model_free_run_has_no_model_section(tmp_path: Path) -> None:
    html = write_report([make_run(tmp_path / "sac", algo="sac", learned=False)]).read_text()
    assert "The model" not in html
    assert "The planner" not in html


def test_ground_truth_dynamics_were_never_fitted(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", learned=False, dynamics={"name": "mujoco"}, planner={"name": "icem"})
    html = write_report([path]).read_text()
    assert "The model" not in html
    assert "No planning time" in html


def test_interrupted_run_still_gives_a_page(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", finished=False)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1600, "sec')
    html = write_report([path]).read_text()
    assert "up to step 1400 of 3000" in html
    assert "This run has not finished" in html
    assert "1 unreadable line of metrics.jsonl" in html
    assert "No calibration" in html
    assert "No video" in html


def test_training_episodes_show_the_learning_where_only_the_end_was_evaluated(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(line for line in lines if "eval/return" not in line or '"step": 3000' in line))
    html = write_report([run]).read_text()
    assert "Point and bar: evaluation, one standard deviation over episodes. Thin line: training episodes." in html


def test_notes_of_a_run_are_told(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, "notes": ["no video: no renderer was found"]}))
    assert "no video: no renderer was found." in write_report([run]).read_text()


def test_lines_are_read_in_order_of_their_step(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", steps=400)
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 100, "seconds": 9.0, "eval/return": 5.0}) + "\n")
    assert read_run(path).series("eval/return").steps.tolist() == [0, 100, 200, 400]


def test_seeds_are_one_group_and_other_settings_another(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"a{s}", seed=s) for s in range(3)] + [
        make_run(tmp_path / "b", gamma=0.9),
        make_run(tmp_path / "c", algo="sac", learned=False),
    ]
    groups = group_runs([read_run(path) for path in runs])
    assert [(group.label, len(group.runs)) for group in groups] == [("pets gamma=0.99", 3), ("pets gamma=0.9", 1), ("sac", 1)]
    page = write_report(runs)
    assert page == tmp_path.resolve() / "report.html"
    html = page.read_text()
    assert "Every run" in html
    assert html.count("<td>one seed</td>") == 2


def test_seeds_curve_is_their_interquartile_mean(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / str(s), seed=s)) for s in range(3)]
    curve = eval_curve(group_runs(runs)[0], "steps")
    assert curve is not None
    mean = np.mean([run.series("eval/return").values for run in runs], axis=0)  # of three runs a quarter trims none
    np.testing.assert_allclose(curve.y, mean)
    assert (curve.low <= curve.y + 1e-9).all()
    assert (curve.y <= curve.high + 1e-9).all()


def test_common_grid_keeps_to_what_all_runs_reached() -> None:
    assert common_grid([np.array([0.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0])]).tolist() == [1, 2, 3]
    assert len(common_grid([np.arange(500.0), np.arange(500.0)])) == 60


def test_large_video_is_linked(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mbkit.report.page.EMBED_BYTES", 10)
    (run / "videos" / "final.mp4").rename(run / "videos" / "step 100%.mp4")
    html = write_report([run], tmp_path / "elsewhere" / "page.html").read_text()
    assert 'src="../pets/cartpole/0-run/videos/step%20100%25.mp4"' in html


def test_text_from_a_run_is_escaped(tmp_path: Path) -> None:
    html = write_report([make_run(tmp_path / "run", env="<script>alert(1)</script>")]).read_text()
    assert "<script>alert" not in html
    assert "&lt;" in highlight("key: '<b>'")


def test_command_repeats_every_setting(run: Path) -> None:
    words = shlex.split(full_command(read_run(run)))
    assert words[:6] == ["mbkit", "train", "pets", "env=cartpole", "seed=0", "steps=3000"]
    assert {**parse_overrides(words[3:]), "algo": "pets"} == yaml.safe_load((run / "config.yaml").read_text())


@pytest.mark.parametrize(
    "words", [[], ["seed=3", "agent.horizon=7"], ["planner=cem", "planner.iterations=2", "env=reacher"], ["dynamics=mujoco"]]
)
def test_short_command_composes_the_same_experiment(tmp_path: Path, words: list[str]) -> None:
    path = make_run(tmp_path / "run")
    experiment = compose("pets", words)
    (path / "config.yaml").write_text(to_yaml(experiment))
    short = shlex.split(command(read_run(path)))
    assert compose(short[2], short[3:]) == experiment
    assert len(short) <= 3 + 3 + len(words)


def test_unknown_algorithm_falls_back_to_every_setting(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", algo="of_a_plugin"))
    assert command(run) == full_command(run)


@pytest.mark.parametrize(
    "broken",
    [{"calibration": 3}, {"calibration": {"nominal": [0.5]}}, {"horizon": {"steps": [], "median": []}}, {"holdout": {"mse": None}}, []],
)
def test_incomplete_diagnostics_are_no_error(run: Path, broken: Any) -> None:
    (run / "diagnostics.json").write_text(json.dumps(broken))
    absent = draw(MODEL, group_runs([read_run(run)])).absent
    assert [line.partition(":")[0] for line in absent] == ["No calibration", "No error against horizon"]


def test_what_is_no_run_is_refused_by_name(tmp_path: Path, run: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere is not a run directory"):
        write_report([tmp_path / "nowhere"])
    (tmp_path / "plots").mkdir()
    with pytest.raises(UserError, match=r"plots is not a run directory: expected a file config.yaml"):
        write_report([tmp_path / "plots"])
    with pytest.raises(UserError, match="at least one run directory"):
        write_report([])
    with pytest.raises(UserError, match=r"other ran on Hopper-v5.*one environment only"):
        write_report([run, make_run(tmp_path / "other", env="Hopper-v5")])
    with pytest.raises(UserError, match="cannot be written"):
        write_report([run], run / "config.yaml" / "page.html")
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"metrics.jsonl holds no metrics"):
        write_report([run])
    (run / "metrics.jsonl").write_text('{"step": 0}\n')
    (run / "config.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"config.yaml is not valid YAML"):
        write_report([run])


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
def test_numbers_for_a_person(value: float | None, text: str) -> None:
    assert num(value) == text
