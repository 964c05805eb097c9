"""Baselines of the policy gradient: variances by brute force."""

import numpy as np
import pytest
from tabular_problems import softmax_problem

from mbkit.tabular.occupancy import discounted
from mbkit.tabular.operators import q_of
from mbkit.theory import baselines as b

SEEDS = range(5)


def test_one_sample_variances_are_ordered_and_unbiased() -> None:
    for seed in SEEDS:
        (none, moved), (v, moved_v), (best, moved_best), (each, moved_each) = b.one_sample(seed, 0.0, 1.0)
        assert none >= v >= best >= each
        assert max(moved, moved_v, moved_best, moved_each) <= 1e-10


def test_optimal_baseline_has_the_smallest_variance() -> None:
    mdp, _, pi = softmax_problem(0)
    q, law, rng = q_of(mdp, pi), discounted(mdp, pi), np.random.default_rng(0)
    best = b.optimal_baseline(pi, q)
    least, _ = b.sample_covariance(law, pi, q, np.repeat(best[:, None], 3, 1))
    for size in (1e-3, 0.1, 1.0):
        other = best + size * rng.normal(size=8)
        assert b.sample_covariance(law, pi, q, np.repeat(other[:, None], 3, 1))[0] > least
    components = b.component_baselines(pi, q)
    lowest, _ = b.sample_covariance(law, pi, q, components)
    assert b.sample_covariance(law, pi, q, components + 0.1 * rng.normal(size=(8, 3)))[0] > lowest


def test_sample_covariance_equals_that_of_samples() -> None:
    mdp, _, pi = softmax_problem(1)
    q, law, rng, n = q_of(mdp, pi), discounted(mdp, pi), np.random.default_rng(0), 200_000
    pair = rng.choice(24, n, p=(law[:, None] * pi).ravel())
    s, a = np.divmod(pair, 3)
    x = np.zeros((n, 8, 3))
    x[np.arange(n), s] = (np.eye(3)[a] - pi[s]) * q[s, a][:, None]
    trace, mean = b.sample_covariance(law, pi, q, np.zeros((8, 3)))
    assert x.reshape(n, 24).var(0).sum() == pytest.approx(trace, rel=0.01)
    assert np.abs(x.mean(0) - mean).max() < 5 * x.std(0).max() / np.sqrt(n)


def test_counterexample_v_is_worse_than_no_baseline() -> None:
    none, v, best = b.counterexample()
    assert v > 10 * none
    assert best <= 1e-15


def test_episode_gradients_by_hand() -> None:
    mdp, _, pi = softmax_problem(2)
    rng = np.random.default_rng(0)
    state, action = b.rollouts(mdp, pi, rng, 5, 7)
    weight = rng.normal(size=(7, 5))
    out = b.episode_gradients(pi, state, action, weight).reshape(5, 8, 3)
    for n in range(5):
        expected = np.zeros((8, 3))
        for t in range(7):
            s = state[t, n]
            expected[s] += weight[t, n] * (np.eye(3)[action[t, n]] - pi[s])
        assert np.abs(out[n] - expected).max() <= 1e-12
