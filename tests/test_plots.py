"""Figures on a user's own axis."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from run_directories import make_run

from mbkit import plots
from mbkit.errors import UserError
from mbkit.report.predictions import Predictions
from mbkit.stats import iqm, performance_profile, probability_of_improvement


@pytest.fixture
def ax() -> Axes:
    axes: Axes = Figure().subplots()
    return axes


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three seeds of two methods, with returns 178.25 to 180.25 and 100 to 300."""
    for seed in range(3):
        make_run(tmp_path / "pets" / str(seed), seed=seed, steps=1000)
        summary = make_run(tmp_path / "sac" / str(seed), algo="sac", seed=seed, steps=1000, learned=False) / "summary.json"
        summary.write_text(json.dumps(json.loads(summary.read_text()) | {"eval_return_mean": 100.0 * (seed + 1)}))
    return tmp_path


def lines(ax: Axes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {str(line.get_label()): line.get_data() for line in ax.get_lines() if not str(line.get_label()).startswith("_")}


def test_learning_curve_is_the_interquartile_mean_over_seeds(ax: Axes, runs: Path) -> None:
    plots.learning_curve(ax, runs)
    x, y = lines(ax)["pets"]
    rows = [json.loads(line) for seed in range(3) for line in (runs / "pets" / str(seed) / "metrics.jsonl").read_text().splitlines()]
    for step, value in zip(x, y, strict=True):
        assert value == pytest.approx(iqm([row["eval/return"] for row in rows if row["step"] == step and "eval/return" in row]))
    assert set(lines(ax)) == {"pets", "sac"}
    assert ax.get_xlabel() == "environment steps"


def test_learning_curve_of_a_loaded_run_against_minutes(ax: Axes, runs: Path) -> None:
    plots.learning_curve(ax, [SimpleNamespace(path=runs / "pets" / "0")], x="minutes")
    x, _ = lines(ax)["pets"]
    np.testing.assert_allclose(x, (0.11 * np.arange(0, 1001, 200) + 2) / 60)


def test_performance_profile_counts_runs(ax: Axes, runs: Path) -> None:
    plots.performance_profile(ax, runs)
    x, y = lines(ax)["sac"]
    np.testing.assert_allclose(y, performance_profile([100.0, 200.0, 300.0], x))


def test_probability_of_improvement_stands_in_its_cell(ax: Axes, runs: Path) -> None:
    plots.probability_of_improvement(ax, runs)
    chance = probability_of_improvement([178.25, 179.25, 180.25], [100.0, 200.0, 300.0])
    cells = {text.get_position(): text.get_text() for text in ax.texts}
    assert cells == {(1.5, 0.5): f"{chance:.2f}", (0.5, 1.5): f"{1 - chance:.2f}"}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["pets", "sac"]


def test_aggregate_scores_and_latency(ax: Axes, runs: Path) -> None:
    plots.aggregate_scores(ax, runs)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["sac", "pets"]  # 200 against 179.25
    other = Figure().subplots()
    plots.latency(other, runs)
    (x,), (y,) = lines(other)["pets"]
    assert y == 179.25
    last = [
        [json.loads(s) for s in (runs / "pets" / str(i) / "metrics.jsonl").read_text().splitlines() if "act_ms" in s][-1] for i in range(3)
    ]
    assert x == np.median([row["time/act_ms"] for row in last])


def test_figures_of_what_cannot_be_drawn_are_refused(ax: Axes, runs: Path) -> None:
    with pytest.raises(UserError, match="at least 2 methods, came sac"):
        plots.probability_of_improvement(ax, runs / "sac")
    with pytest.raises(UserError, match=r"x='years': expected steps, seconds"):
        plots.learning_curve(ax, runs, x="years")
    with pytest.raises(UserError, match="none of the runs has logged time/act_ms"):
        plots.latency(ax, runs / "sac")
    with pytest.raises(UserError, match="came none"):
        plots.learning_curve(ax, [])
    other = make_run(runs / "other", env="Hopper-v5", steps=400)
    with pytest.raises(UserError, match="have no common axis: expected runs on one environment"):
        plots.learning_curve(ax, [runs / "pets" / "0", other])
    with pytest.raises(UserError, match="dimension=2: expected one of the 2 dimensions"):
        plots.ensemble_fan(ax, table(), 2)


def table() -> Predictions:
    """Of two dimensions: rollouts that are off by -1, 0 and 1, and a plan that is off by its quantile."""
    obs = np.stack([np.arange(11.0), np.zeros(11)], 1)
    fan = obs[2:8] + np.array([-1.0, 0.0, 1.0])[:, None, None]
    plans = np.stack([np.tile([[q, q]], (4, 1)) for q in (0.0, 1.0, 2.0, 3.0, 4.0)])[None]
    ones, nothing = np.ones(10), np.empty((0, 0))
    return Predictions(["x", "y"], obs, 2, fan, np.array([3.0]), plans, True, ones, 2 * ones, 3 * ones, obs, nothing, nothing)


def test_ensemble_fan_has_the_truth_in_it(ax: Axes) -> None:
    plots.ensemble_fan(ax, table(), 0)
    drawn = lines(ax)
    np.testing.assert_allclose(drawn["real"], [np.arange(2, 8), np.arange(2, 8)])
    np.testing.assert_allclose(drawn["model"], [np.arange(2, 8), np.arange(2, 8)])  # the median rollout
    assert len(ax.collections) == 3  # half, 90 %, and the faint one of the median


def test_planned_trajectory_begins_where_it_was_planned(ax: Axes) -> None:
    plots.planned_trajectory(ax, table(), 1)
    drawn = lines(ax)
    np.testing.assert_allclose(drawn["planned at step 3"], [[3, 4, 5, 6], [2, 2, 2, 2]])
    np.testing.assert_allclose(drawn["real"], [np.arange(11), np.zeros(11)])


def test_uncertainty_is_drawn_at_every_step(ax: Axes) -> None:
    plots.uncertainty(ax, table())
    assert {name: y[0] for name, (_, y) in lines(ax).items()} == {"error": 3, "disagreement of the members": 1, "noise of the members": 2}
