"""Statistics against closed forms, and the coverage of the bootstrap interval."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from mbkit.stats import (
    bootstrap,
    bootstrap_curve,
    improvement_interval,
    iqm,
    performance_profile,
    pooled_iqm,
    probability_of_improvement,
    profile_band,
)


def test_iqm_is_the_mean_of_the_middle_half() -> None:
    assert iqm([0, 1, 2, 1000]) == 1.5
    assert iqm([[0, 1000], [1, 2]]) == 1.5  # tasks are pooled
    assert iqm([7.0]) == 7.0
    scores = np.random.default_rng(0).normal(size=(8, 5))
    assert iqm(scores) == pytest.approx(np.sort(scores.ravel())[10:30].mean())


def test_bootstrap_is_stratified_and_seeded() -> None:
    scores = np.array([[0.0, 100.0], [1.0, 101.0], [2.0, 102.0], [3.0, 103.0]])

    def mean(*tasks: np.ndarray, axis: int) -> np.ndarray:
        return np.concatenate(tasks, axis).mean(axis)

    a, b = bootstrap(scores, mean), bootstrap(scores, mean)
    assert a == b
    assert a.point == 51.5
    assert a.low < a.point < a.high
    assert 50 <= a.low <= a.high <= 53  # resampling runs across tasks would spread it over 0..103
    noisy = scores + np.random.default_rng(0).normal(size=scores.shape)
    assert bootstrap(noisy, seed=1) == bootstrap(noisy, seed=1) != bootstrap(noisy, seed=2)


def test_bootstrap_interval_has_its_coverage() -> None:
    generator = np.random.default_rng(1)
    inside = 0
    for trial in range(200):
        interval = bootstrap(generator.normal(size=(20, 2)), confidence=0.9, resamples=300, seed=trial)
        inside += interval.low <= 0 <= interval.high
    assert 0.82 <= inside / 200 <= 0.96


def test_bootstrap_of_one_run_and_of_equal_runs() -> None:
    alone = bootstrap([3.0])
    assert alone.point == 3.0
    assert np.isnan([alone.low, alone.high]).all()
    assert bootstrap([3.0, 3.0, 3.0]) == (3.0, 3.0, 3.0)


def test_performance_profile_counts_runs_above() -> None:
    np.testing.assert_array_equal(performance_profile([[1, 2], [3, 4]], [0, 1, 2.5, 4]), [1, 0.75, 0.5, 0])


def test_probability_of_improvement_is_the_u_statistic() -> None:
    generator = np.random.default_rng(2)
    x, y = generator.integers(0, 5, (6, 3)), generator.integers(0, 5, (4, 3))
    expected = np.mean([mannwhitneyu(x[:, k], y[:, k]).statistic / 24 for k in range(3)])
    assert probability_of_improvement(x, y) == pytest.approx(expected)
    assert probability_of_improvement(x, y) + probability_of_improvement(y, x) == pytest.approx(1)
    assert probability_of_improvement([2, 3], [0, 1]) == 1
    assert probability_of_improvement([1, 1], [1]) == 0.5


@pytest.mark.parametrize("scores", [[], np.zeros((2, 2, 2)), np.zeros((0, 3))])
def test_iqm_of_other_shapes_is_refused(scores: object) -> None:
    with pytest.raises(ValueError, match="runs x tasks"):
        iqm(scores)  # type: ignore[arg-type]


def test_probability_of_improvement_with_other_tasks_is_refused() -> None:
    with pytest.raises(ValueError, match="same tasks, not on 2 and 3"):
        probability_of_improvement(np.zeros((4, 2)), np.zeros((4, 3)))


def test_bootstrap_curve_has_the_limits_of_each_column() -> None:
    scores = np.random.default_rng(3).normal(size=(7, 4))
    curve = bootstrap_curve(scores, resamples=20_000)
    for k in range(4):
        expected = bootstrap(scores[:, k], resamples=20_000)
        np.testing.assert_allclose([curve.point[k], curve.low[k], curve.high[k]], expected, atol=0.04)
        assert curve.point[k] == pytest.approx(iqm(scores[:, k]))
    alone = bootstrap_curve(scores[:1])
    np.testing.assert_array_equal(alone.point, scores[0])
    assert np.isnan([alone.low, alone.high]).all()


def test_pooled_iqm_of_equal_numbers_of_runs_is_that_of_the_matrix() -> None:
    scores = np.random.default_rng(4).normal(size=(9, 3)) + np.arange(3)
    np.testing.assert_allclose(pooled_iqm(scores.T, resamples=20_000), bootstrap(scores, resamples=20_000), atol=0.03)
    assert pooled_iqm([[0.0, 1.0, 2.0], [1000.0]]).point == 1.5
    assert np.isnan(pooled_iqm([[1.0], [2.0]]).low)


def test_profile_band_averages_over_tasks_and_holds_its_point() -> None:
    scores = np.random.default_rng(5).normal(size=(6, 2))
    levels = np.linspace(-2, 2, 9)
    band = profile_band(scores.T, levels)
    np.testing.assert_allclose(band.point, performance_profile(scores, levels))
    assert ((band.low <= band.point) & (band.point <= band.high)).all()
    assert profile_band([[1.0, 1.0, 1.0], [0.0]], [0.5]).point == [0.5]  # the mean over tasks, not over runs


def test_improvement_interval_holds_the_u_statistic() -> None:
    generator = np.random.default_rng(6)
    x, y = generator.normal(0.8, 1, (6, 3)), generator.normal(0, 1, (4, 3))
    interval = improvement_interval(x.T, y.T)
    assert interval.point == pytest.approx(probability_of_improvement(x, y))
    assert interval.low < interval.point < interval.high
    assert improvement_interval([[2.0, 3.0]], [[0.0, 1.0]]) == (1, 1, 1)
    with pytest.raises(ValueError, match="not on 2 and 1"):
        improvement_interval([[1.0], [1.0]], [[1.0]])
    with pytest.raises(ValueError, match="at least one run for each task"):
        improvement_interval([[]], [[1.0]])
