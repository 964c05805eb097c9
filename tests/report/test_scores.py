"""Methods compared over environments."""

import json
from pathlib import Path

import numpy as np
import pytest
from run_directories import make_run

from mbkit.data.scores import scores_of
from mbkit.report.collect import group_runs, read_run
from mbkit.report.scores import MethodScores
from mbkit.stats import iqm, probability_of_improvement


def scored(path: Path, algo: str, env: str, returns: list[float]) -> list[Path]:
    """Finished runs of one method with these returns."""
    paths = []
    for seed, value in enumerate(returns):
        paths.append(make_run(path / algo / env / str(seed), algo=algo, env=env, seed=seed, steps=400, learned=False))
        summary = json.loads((paths[-1] / "summary.json").read_text())
        (paths[-1] / "summary.json").write_text(json.dumps(summary | {"eval_return_mean": value, "steps": 400}))
    return paths


def scores_of_runs(*paths: list[Path]) -> MethodScores:
    return MethodScores(group_runs([read_run(path) for runs in paths for path in runs]))


def test_scores_of_one_environment_are_returns(tmp_path: Path) -> None:
    a, b = [1.0, 5.0, 3.0, 9.0], [2.0, 4.0]
    scores = scores_of_runs(scored(tmp_path, "sac", "cartpole", a), scored(tmp_path, "td3", "cartpole", b))
    assert scores.aggregates["sac"].point == iqm(a)
    assert list(scores.aggregates) == ["sac", "td3"]  # best first
    assert scores.improvement["sac", "td3"].point == pytest.approx(probability_of_improvement(a, b))
    assert scores.improvement["td3", "sac"].point == pytest.approx(1 - probability_of_improvement(a, b))


def test_scores_of_several_environments_are_between_the_worst_and_the_best_run(tmp_path: Path) -> None:
    scores = scores_of_runs(
        scored(tmp_path, "sac", "cartpole", [0.0, 5.0]),
        scored(tmp_path, "sac", "reacher", [100.0]),
        scored(tmp_path, "td3", "cartpole", [10.0]),
    )
    np.testing.assert_allclose(np.concatenate(scores.tasks("sac")), [0, 0.5, 0])
    np.testing.assert_allclose(np.concatenate(scores.tasks("td3")), [1])
    assert not scores.complete
    assert "worst" in scores.meaning
    assert scores.improvement["td3", "sac"] == (1, 1, 1)  # on the environment that both were run on


def test_scores_by_known_constants_where_there_are_some_for_all(tmp_path: Path) -> None:
    scores = scores_of_runs(scored(tmp_path, "sac", "Hopper-v5", [2000.0]), scored(tmp_path, "sac", "Walker2d-v5", [1000.0]))
    expected = [scores_of(env, value, 0)[0].mean / 100 for env, value in (("Hopper-v5", 2000.0), ("Walker2d-v5", 1000.0))]
    np.testing.assert_allclose(np.concatenate(scores.tasks("sac")), expected)
    assert "expert" in scores.meaning
