"""Figures of returns and of metrics against environment steps."""

from pathlib import Path

import numpy as np
import pytest
from run_directories import add_diagnostics, log, make_run

from mbkit.report.collect import Group, Series, group_runs, read_run
from mbkit.report.figure import axes
from mbkit.report.plots import Curves, Kind, Plot, learning, over_steps, single_points, value_axis, value_text

ERRORS = Curves({f"{h} steps": (f"diagnose/error_{h}",) for h in (1, 5, 15, 30)}, "Error", "error", "Caption.", "log")
HOLDOUT = Curves({"": ("model/holdout_error",)}, "Hold-out error", "error", "Caption.", members=True)


def groups_of(*paths: Path) -> list[Group]:
    return group_runs([read_run(path) for path in paths])


def legend_of(plot: Plot | None) -> list[str]:
    assert plot is not None
    legend = plot.figure.axes[0].get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def test_over_steps_lone_experiment_shows_every_line(tmp_path: Path) -> None:
    paths = [add_diagnostics(make_run(tmp_path / str(s), seed=s), s) for s in range(2)]
    assert legend_of(over_steps(groups_of(*paths), ERRORS)) == ["1 steps", "5 steps", "15 steps", "30 steps"]


def test_over_steps_several_experiments_show_the_first_line(tmp_path: Path) -> None:
    paths = [add_diagnostics(make_run(tmp_path / name, gamma=gamma)) for name, gamma in (("a", 0.99), ("b", 0.9))]
    plot = over_steps(groups_of(*paths), ERRORS)
    assert plot is not None
    assert plot.title == "Error, 1 steps"
    assert legend_of(plot) == ["pets gamma=0.99", "pets gamma=0.9"]


def test_over_steps_several_experiments_prefer_a_line_that_all_logged(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / name, algo=name, learned=False) for name in ("vtrace", "retrace")]
    for step in (100, 200):
        log(paths[0], step, {"diagnose/error_1": 1.0, "diagnose/error_5": 2.0})
        log(paths[1], step, {"diagnose/error_5": 3.0})
    plot = over_steps(groups_of(*paths), ERRORS)
    assert plot is not None
    assert plot.title == "Error, 5 steps"
    assert [line.get_ydata()[0] for line in plot.figure.axes[0].get_lines()] == [2, 3]


def test_over_steps_members_are_thin_lines_of_a_lone_experiment(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / name, gamma=gamma) for name, gamma in (("a", 0.99), ("b", 0.9))]
    plot = over_steps(groups_of(paths[0]), HOLDOUT)
    assert plot is not None
    assert len(plot.figure.axes[0].get_lines()) == 6
    assert plot.caption == "Caption. Thin lines: members of the ensemble."
    several = over_steps(groups_of(*paths), HOLDOUT)
    assert several is not None
    assert len(several.figure.axes[0].get_lines()) == 2
    assert several.caption == "Caption."


def test_over_steps_nothing_logged_is_none(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", algo="sac", learned=False)
    log(path, 100, {"diagnose/error_1": None})
    assert over_steps(groups_of(path), ERRORS) is None


def test_learning_rarely_evaluated_shows_training_episodes(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", steps=400)
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text("".join(line for line in lines if "eval/return" not in line or '"step": 400' in line))
    plot = learning(groups_of(path), "steps")
    assert plot is not None
    assert plot.caption == "Point and bar: evaluation, one standard deviation over episodes. Thin line: training episodes."


def test_learning_caption_depends_on_seeds(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / str(s), seed=s) for s in range(2)]
    lone, several = learning(groups_of(paths[0]), "seconds"), learning(groups_of(*paths), "seconds")
    assert lone is not None
    assert several is not None
    assert lone.caption == "Line and band: evaluation, one standard deviation over episodes. Faint dots: training episodes."
    assert several.caption.startswith("Line and band: evaluation, interquartile mean over seeds, 95\u00a0% bootstrap interval.")
    assert lone.figure.axes[0].get_xlabel() == "wall-clock time (minutes)"


@pytest.mark.parametrize(
    ("kind", "values", "scale", "limits"),
    [
        ("log", [0.1, 2.0], "log", None),
        ("log", [0.5, 2.0], "linear", None),
        ("log", [-1.0, 200.0], "linear", None),
        ("share", [0.4, 0.6], "linear", (0, 1.03)),
        ("coverage", [0.8, 0.9], "linear", (0.5, 1.03)),
        ("coverage", [0.3, 0.9], "linear", (0.28, 1.03)),
        ("whole", [1.0, 1.0], "linear", (0, 1.06)),
        ("count", [5.0, 100.0], "linear", (0, 106)),
    ],
)
def test_value_axis_kind_decides_scale_and_limits(kind: Kind, values: list[float], scale: str, limits: tuple[float, float] | None) -> None:
    _, ax = axes("environment steps", "value")
    x = np.arange(2.0)
    value_axis(ax, kind, [Series(x, x, np.array(values))])
    assert ax.get_yscale() == scale
    assert limits is None or ax.get_ylim() == pytest.approx(limits)


def test_value_axis_gigabytes_has_units() -> None:
    _, ax = axes("environment steps", "size")
    x = np.arange(2.0)
    value_axis(ax, "gigabytes", [Series(x, x, np.array([0.0, 0.002]))])
    assert ax.yaxis.get_major_formatter()(0.002) == "2\u00a0MB"


def test_single_points_of_a_lone_run_are_numbers(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    log(run, 5, {"diagnose/error_1": 0.0123, "diagnose/error_5": 0.25})
    assert single_points(groups_of(run), ERRORS) == [("Error, 1 steps", "0.0123"), ("Error, 5 steps", "0.25")]
    log(run, 9, {"diagnose/error_5": 0.2})
    assert single_points(groups_of(run), ERRORS) == []


def test_value_text_has_the_unit_of_the_axis() -> None:
    assert value_text(0.914, HOLDOUT._replace(kind="coverage")) == "91\u00a0%"
    assert value_text(0.0021, HOLDOUT._replace(kind="gigabytes")) == "2.1\u00a0MB"
    assert value_text(-12.34, HOLDOUT) == "\u221212.3"
