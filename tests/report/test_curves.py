"""Several runs as one curve with an interval."""

from pathlib import Path

import numpy as np
from run_directories import make_run

from mbkit.report.collect import Group, Series, group_runs, read_run
from mbkit.report.curves import common_grid, diagnostic, eval_curve, final_score, thin


def seeds(tmp_path: Path, count: int = 3) -> Group:
    (group,) = group_runs([read_run(make_run(tmp_path / str(s), seed=s)) for s in range(count)])
    return group


def test_eval_curve_of_seeds_is_their_interquartile_mean(tmp_path: Path) -> None:
    group = seeds(tmp_path)
    curve = eval_curve(group, "steps")
    assert curve is not None
    mean = np.mean([run.series("eval/return").values for run in group.runs], axis=0)  # of three runs a quarter trims none
    np.testing.assert_allclose(curve.y, mean)
    assert (curve.low <= curve.y + 1e-9).all()
    assert (curve.y <= curve.high + 1e-9).all()


def test_eval_curve_of_one_run_has_its_standard_deviation(tmp_path: Path) -> None:
    group = seeds(tmp_path, 1)
    curve = eval_curve(group, "seconds")
    assert curve is not None
    std = group.runs[0].series("eval/return_std")
    np.testing.assert_array_equal(curve.x, std.seconds)
    np.testing.assert_allclose(curve.high - curve.y, std.values)
    np.testing.assert_allclose(curve.y - curve.low, std.values)


def test_final_score_of_seeds_is_between_them(tmp_path: Path) -> None:
    mean, low, high = final_score(seeds(tmp_path).runs)
    assert 178.25 <= low <= mean <= high <= 180.25


def test_common_grid_stays_in_the_shared_range() -> None:
    assert common_grid([np.array([0.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0])]).tolist() == [1, 2, 3]
    assert common_grid([np.array([0.0, 1.0]), np.array([5.0, 6.0, 7.0])]).tolist() == [5, 6, 7]
    assert len(common_grid([np.arange(500.0), np.arange(500.0)])) == 60


def test_thin_long_series_is_at_most_the_limit() -> None:
    x = np.arange(1300.0)
    assert thin(Series(x, x, x), 600).values.tolist() == list(range(0, 1300, 3))
    assert len(thin(Series(x[:600], x[:600], x[:600]), 600)) == 600


def test_diagnostic_of_seeds_is_their_mean_at_the_shortest_length(tmp_path: Path) -> None:
    group = seeds(tmp_path, 2)
    for run, values in zip(group.runs, ([1.0, 2.0, None], [3.0, 6.0]), strict=True):
        run.diagnostics["horizon"] = {"median": values}
    (median,) = diagnostic(group, "horizon", "median") or []
    assert median.tolist() == [2, 4]
    assert diagnostic(group, "horizon", "median", "low") is None
    assert diagnostic(group, "return_gap", "mean") is None
