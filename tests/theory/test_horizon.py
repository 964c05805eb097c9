"""Worst-case problems: losses and bounds."""

import numpy as np
import pytest

from mbkit.tabular.bounds import md_vi_bound
from mbkit.tabular.operators import q_of
from mbkit.tabular.planning import policy_iteration
from mbkit.tabular.regularised import avi, take
from mbkit.theory.horizon import EPSILON, LEFT, STAY, both, chain, chain_errors, errors_of, loop_errors, loops


def test_chain_misleads_value_iteration() -> None:
    gamma, n = 0.9, 40
    mdp, eps = chain(gamma, n)
    assert np.abs(eps).max() == EPSILON
    u = EPSILON * (1 - gamma ** np.arange(n + 2)) / (1 - gamma)
    iterates = take(avi(mdp, np.zeros((n + 1, 2)), errors_of(eps)), n + 1)
    for i in range(1, n):
        v = iterates[i - 1].q.max(-1)  # after i errors
        assert v[i] == pytest.approx(-u[i], rel=1e-6)
        assert v[i + 1] == pytest.approx(u[i], rel=1e-6)
    assert iterates[n].log_pi[n].argmax() == STAY
    best = policy_iteration(mdp)
    assert np.abs(best.v).max() < 1e-9
    assert (best.pi[1:, LEFT] == 1).all()
    loss = np.abs(best.q - q_of(mdp, np.exp(iterates[n].log_pi))).max()
    assert loss == pytest.approx(2 * gamma * u[n] / (1 - gamma), rel=1e-6)


def test_chain_errors_and_loop_errors_attain_the_bounds() -> None:
    loss, bound, kl, _ = chain_errors(10)
    assert 0.97 < loss / bound <= 1
    assert kl < 1e-6
    plain, plain_bound, loss, bound = loop_errors(10)
    assert loss == pytest.approx(2 * 0.9 * EPSILON / 0.1, rel=1e-6)
    assert 0.9 * 0.98 < loss / bound <= 1
    assert plain == pytest.approx(loss)
    assert plain_bound > 8 * plain


def test_both_without_errors_has_a_small_loss() -> None:
    mdp, _ = loops(0.9)
    eps = np.zeros((500, 1, 2))
    plain, _, kl, bound = both(mdp, eps, 0.1)
    assert plain == 0
    assert 0 <= kl <= bound == md_vi_bound(mdp, eps, 0.1)
