"""Run directories are read as they lie on disk, and runs of one experiment form a group."""

import json
from pathlib import Path

import pytest
from run_directories import log, make_run

from mbkit.errors import UserError
from mbkit.report.collect import by_environment, group_runs, natural, read_run


def test_read_run_orders_lines_by_step(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", steps=400)
    log(path, 100, {"eval/return": 5.0})
    assert read_run(path).series("eval/return").steps.tolist() == [0, 100, 200, 400]


def test_read_run_cut_short_has_no_summary(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", finished=False)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1600, "sec')
    run = read_run(path)
    assert (run.finished, run.unreadable, run.steps, run.planned, run.videos) == (False, 1, 1400, 3000, [])
    mean, std, episodes = run.final()
    assert (mean, std, episodes) == (run.series("eval/return").values[-1], run.series("eval/return_std").values[-1], None)


def test_read_run_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere is not a run directory: .*no directory"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "plots").mkdir()
    with pytest.raises(UserError, match=r"plots is not a run directory: expected a file config.yaml"):
        read_run(tmp_path / "plots")
    path = make_run(tmp_path / "run")
    (path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"metrics.jsonl holds no metrics"):
        read_run(path)
    (path / "metrics.jsonl").write_text('{"step": 0}\n')
    (path / "config.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"config.yaml is not valid YAML"):
        read_run(path)


def test_series_skips_values_that_are_not_finite(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", algo="sac", learned=False)
    for step, value in ((100, 1.0), (200, None), (300, 3.0)):
        log(path, step, {"alpha": value})
    series = read_run(path).series("alpha")
    assert (series.steps.tolist(), series.values.tolist()) == ([100, 300], [1, 3])


def test_series_under_several_names_takes_the_one_logged(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", algo="trpo", learned=False)
    log(path, 100, {"trpo/kl": 0.01})
    assert read_run(path).series("actor/kl", "trpo/kl").values.tolist() == [0.01]
    assert len(read_run(path).series("actor/kl")) == 0


def test_member_series_is_ordered_by_member(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", algo="sac", learned=False)
    log(path, 100, {f"model/holdout_mse/{m}": float(m) for m in (10, 2, 0)} | {"model/holdout_mse": 5.0, "model/holdout_nll": 1.0})
    assert [series.values.tolist() for series in read_run(path).member_series("model/holdout_mse")] == [[0], [2], [10]]


def test_group_runs_separates_experiments(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / f"a{s}", seed=s) for s in range(3)]
    paths += [make_run(tmp_path / "b", gamma=0.9), make_run(tmp_path / "c", algo="sac", learned=False)]
    groups = group_runs([read_run(path) for path in paths])
    assert [(group.label, len(group.runs)) for group in groups] == [("pets gamma=0.99", 3), ("pets gamma=0.9", 1), ("sac", 1)]


@pytest.mark.parametrize(
    "options",
    [
        {"tensorboard": True},
        {"precision": "high"},
        {"device": "cuda"},
        {"threads": 2},
        {"preset": "demo"},
        {"eval": {"every": 500}},
        {"checkpoint": {"keep": "all"}},
        {"run_dir": "runs/second"},
    ],
)
def test_group_runs_incidental_option_keeps_one_group(tmp_path: Path, options: dict[str, object]) -> None:
    paths = [make_run(tmp_path / "a", seed=0), make_run(tmp_path / "b", seed=1, steps=2000, **options)]
    (group,) = group_runs([read_run(path) for path in paths])
    assert (group.label, [run.seed for run in group.runs]) == ("pets", [0, 1])


def test_group_runs_many_differences_are_abbreviated(tmp_path: Path) -> None:
    planners = [{"name": "icem", "horizon": 25, "elites": 5, "iterations": 2}, {"name": "cem", "horizon": 9, "elites": 4, "iterations": 3}]
    groups = group_runs([read_run(make_run(tmp_path / planner["name"], planner=planner)) for planner in planners])
    assert groups[1].label == "pets planner.name=cem planner.horizon=9 planner.elites=4 …"


def test_group_runs_of_several_environments_match_by_label_and_colour(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"a{gamma}", gamma=gamma) for gamma in (0.99, 0.9)]
    runs += [make_run(tmp_path / "sac", algo="sac", learned=False, env="Hopper-v5")]
    runs += [make_run(tmp_path / "b", gamma=0.9, env="Hopper-v5", planner={"name": "icem", "horizon": 9})]
    groups = group_runs([read_run(path) for path in runs])
    assert [(group.label, group.env, group.index) for group in groups] == [
        ("pets gamma=0.99", "cartpole", 0),
        ("pets gamma=0.9", "cartpole", 1),
        ("sac", "Hopper-v5", 2),
        ("pets gamma=0.9", "Hopper-v5", 1),  # the horizon differs between environments, not within one
    ]
    assert {env: len(members) for env, members in by_environment(groups).items()} == {"cartpole": 2, "Hopper-v5": 2}


def test_finished_extended_run_is_not(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", steps=400)
    assert read_run(path).finished
    summary = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(json.dumps(summary | {"steps": 200}))
    assert not read_run(path).finished


def test_natural_sorts_numbers_by_value() -> None:
    names = ["step-1000.mp4", "step-900.mp4", "final.mp4"]
    assert [path.name for path in sorted(map(Path, names), key=natural)] == ["final.mp4", "step-900.mp4", "step-1000.mp4"]


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"steps": "x", "eval_episodes": [1]}', '{"steps": 1' + "0" * 5000 + "}", "null", '{"steps": 1e999}']
)
def test_read_run_with_an_odd_summary_is_read_without_it(tmp_path, content):
    path = make_run(tmp_path / "run")
    (path / "summary.json").write_text(content)
    with (path / "metrics.jsonl").open("a") as file:
        file.write(content + "\n")
    run = read_run(path)
    assert run.finished is False or run.steps
    assert run.final()[2] is None or run.final()[2] >= 0


def test_read_run_videos_are_files_with_content(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    (path / "videos/step-1.mp4").symlink_to("nowhere")
    (path / "videos/step-2.mp4").write_bytes(b"")
    (path / "videos/step-4.mp4").mkdir()
    assert [video.name for video in read_run(path).videos] == ["step-3000.mp4"]
