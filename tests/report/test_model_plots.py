"""Figures of the final model's diagnostics."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from run_directories import make_run

from mbkit.report.collect import Group, group_runs, read_run
from mbkit.report.model_plots import calibration, dimension_names, dimensions, horizon
from mbkit.report.plots import Plot


def groups_of(*paths: Path) -> list[Group]:
    return group_runs([read_run(path) for path in paths])


def lines(plot: Plot | None) -> int:
    assert plot is not None
    return len(plot.figure.axes[0].get_lines())


def test_calibration_of_a_lone_run_has_a_line_for_each_dimension(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / str(s), seed=s) for s in range(2)]
    plot = calibration(groups_of(paths[0]))
    assert lines(plot) == 2 + 4  # the diagonal, all dimensions together, each of them
    assert plot is not None
    assert plot.caption.endswith("Thin lines: predicted dimensions.")
    assert lines(calibration(groups_of(*paths))) == 2


@pytest.mark.parametrize(
    ("power", "sentence"),
    [
        (1.25, "40\u00a0% intervals contain 32\u00a0% of the outcomes: overconfident; more members (dynamics.members)"),
        (0.8, "30\u00a0% intervals contain 38\u00a0% of the outcomes: underconfident; corrected variances (dynamics.calibrate=true)"),
        (1.0, ": well calibrated."),
    ],
)
def test_calibration_caption_names_the_largest_gap(tmp_path: Path, power: float, sentence: str) -> None:
    (group,) = groups_of(make_run(tmp_path / "run"))
    section = group.runs[0].diagnostics["calibration"]
    section["empirical"] = [level**power for level in section["nominal"]]
    plot = calibration([group])
    assert plot is not None
    assert sentence in plot.caption


@pytest.mark.parametrize(
    ("no_change", "sentence"),
    [(1.0, "on all 30 steps"), (0.065, "up to step 4"), (0.001, "at no step")],  # the error after h steps is 0.01 h^1.1
)
def test_horizon_caption_compares_with_no_change(tmp_path: Path, no_change: float, sentence: str) -> None:
    (group,) = groups_of(make_run(tmp_path / "run"))
    group.runs[0].diagnostics["horizon"]["no_change"] = [no_change] * 30
    plot = horizon([group])
    assert plot is not None
    assert plot.caption.endswith(f"The model predicts better than no change {sentence}, in the root mean square.")


def test_dimensions_of_several_experiments_is_none(tmp_path: Path) -> None:
    groups = groups_of(make_run(tmp_path / "a"), make_run(tmp_path / "b", gamma=0.9))
    plot = dimensions(groups[:1])
    assert plot is not None
    assert len(plot.figure.axes[0].patches) == 4
    assert [tick.get_text() for tick in plot.figure.axes[0].get_xticklabels()] == ["obs 0", "obs 1", "obs 2", "obs 3"]
    assert [text.get_text() for text in plot.figure.axes[0].texts] == ["0.002", "0.004", "0.009", "0.003"]
    assert dimensions(groups) is None


@pytest.mark.parametrize(
    ("names", "count", "expected"),
    [
        (["x", "angle"], 2, ["x", "angle"]),
        (["x", "angle"], 3, ["x", "angle", "reward"]),
        (["x"], 3, ["obs 0", "obs 1", "obs 2"]),
        (None, 2, ["obs 0", "obs 1"]),
    ],
)
def test_dimension_names_are_those_of_the_diagnostics_where_they_fit(names, count, expected):
    group = SimpleNamespace(runs=[SimpleNamespace(diagnostics={} if names is None else {"dimensions": names})])
    assert dimension_names(group, count) == expected
