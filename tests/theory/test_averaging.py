"""Averaging of errors: kinds of noise and losses by hand."""

import math

import numpy as np
import pytest

from mbkit.tabular.bounds import avi_bound
from mbkit.tabular.environments import garnet
from mbkit.tabular.operators import greedy, optimality_q, q_of
from mbkit.tabular.planning import policy_iteration
from mbkit.theory.averaging import NOISES, SCHEMES, Scheme, errors, measure, slope


def test_errors_by_kind_of_noise() -> None:
    mdp = garnet(8, 3, 3)
    fresh, alternating, constant_ = (errors(mdp, noise, 0, 1000) for noise in NOISES)
    assert np.abs(fresh.mean(0)).max() < 0.5 * 5 / math.sqrt(1000)
    np.testing.assert_array_equal(alternating[:-1], -alternating[1:])
    assert np.ptp(constant_, axis=0).max() == 0
    np.testing.assert_array_equal(errors(mdp, "independent", 0, 10), errors(mdp, "independent", 0, 1000)[:10])


def test_measure_is_the_loss_of_the_policy_after_k_errors() -> None:
    """AVI by hand: q_{j} = T* q_{j-1} + eps_j for j = 1..k, then the greedy policy of q_k."""
    mdp, k = garnet(seed=3), 7
    eps, q = errors(mdp, "independent", 3, k), np.zeros((30, 4))
    for e in eps:
        q = optimality_q(mdp, q) + e
    loss, bound, _ = measure(SCHEMES[0], "independent", 3, (k,))
    assert loss[0] == pytest.approx(np.abs(policy_iteration(mdp).q - q_of(mdp, greedy(q))).max(), abs=1e-12)
    assert bound[0] == pytest.approx(avi_bound(mdp, eps))


def test_measure_constant_errors_are_not_averaged() -> None:
    seeds = range(4)
    plain, kl = (np.mean([measure(s, "independent", seed, (100,))[0][0] for seed in seeds]) for s in (SCHEMES[0], Scheme("", 1.0)))
    same = np.mean([measure(Scheme("", 1.0), "constant", seed, (100,))[0][0] for seed in seeds])
    assert kl < plain / 5
    assert same > plain / 5
    assert slope((1, 10, 100), [3.0, 0.3, 0.03]) == pytest.approx(-1)
