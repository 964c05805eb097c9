"""Error bounds of regularised value iteration and the regret of a softmax policy."""

import numpy as np
import pytest
from tabular_problems import value_errors

from mbkit.tabular.bounds import avi_bound, lambert_w, md_vi_bound, md_vi_entropy_bound, softmax_regret
from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import MDP
from mbkit.tabular.operators import (
    bellman_q,
    expectation,
    optimality_q,
    q_of,
    soft_q_of,
    softmax,
)
from mbkit.tabular.planning import policy_iteration, soft_policy_iteration
from mbkit.tabular.regularised import (
    avi,
    md_vi,
    take,
)

RNG = np.random.default_rng(0)
Table = np.ndarray


@pytest.mark.parametrize(("A", "sup"), [(2, 0.2785), (3, 0.4631), (4, 0.6035)])
def test_softmax_regret_is_tight(A: int, sup: float) -> None:
    """0 <= max Q - <softmax(Q / alpha), Q> <= alpha W((A-1)/e), attained where the others tie, <= (A-1) alpha / e, <= alpha ln A."""
    alpha = 0.7
    q = RNG.normal(size=(20_000, A)) * RNG.exponential(2, size=(20_000, 1))
    regret = q.max(-1) - expectation(softmax(q, alpha), q)
    assert regret.min() >= -1e-9
    assert regret.max() <= softmax_regret(A, alpha) + 1e-9
    gap = alpha * (1 + lambert_w((A - 1) / np.e))  # the worst gap: d/dx x / (e^x + A-1) = 0
    worst = np.append(0.0, np.full(A - 1, -gap))
    assert abs(-expectation(softmax(worst, alpha), worst) - softmax_regret(A, alpha)) <= 1e-9
    assert softmax_regret(A, alpha) <= alpha * min((A - 1) / np.e, np.log(A))
    assert round(softmax_regret(A, 1.0), 4) == sup


def test_softmax_regret_backup_multiplies_it_by_gamma() -> None:
    mdp, alpha = garnet(), 0.7
    q = RNG.normal(size=(mdp.S, mdp.A))
    gap = optimality_q(mdp, q) - bellman_q(mdp, softmax(q, alpha), q)
    assert gap.min() >= -1e-9
    assert gap.max() <= mdp.gamma * softmax_regret(mdp.A, alpha) + 1e-9


@pytest.mark.parametrize("lam", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("mdp", [garnet(), garnet(8, 3, 3, seed=1)], ids=["default", "small"])
def test_avi_bound_and_md_vi_bound_hold(mdp: MDP, lam: float) -> None:
    """The policy after k errors is pi_{k+1}; its loss satisfies the bounds."""
    best, zeros = policy_iteration(mdp).q, np.zeros((mdp.S, mdp.A))
    for kind in ("normal", "bias", "alternating"):
        for sigma in (0.0, 0.1, 0.5):
            errors = value_errors(mdp, sigma, 3, kind)
            eps = np.array([errors(k) for k in range(1, 101)])
            kl, plain = take(md_vi(mdp, zeros, lam, 0.0, errors), 101), take(avi(mdp, zeros, errors), 101)
            for k in (1, 5, 30, 100):
                loss = np.abs(best - q_of(mdp, np.exp(kl[k].log_pi))).max()
                assert loss <= md_vi_bound(mdp, eps[:k], lam)
                assert np.abs(best - q_of(mdp, np.exp(plain[k].log_pi))).max() <= avi_bound(mdp, eps[:k])


@pytest.mark.parametrize(("lam", "tau"), [(1.0, 0.1), (0.1, 0.1), (10.0, 0.01), (0.5, 1.0), (0.0, 0.5)])
def test_md_vi_entropy_bound_holds(lam: float, tau: float) -> None:
    mdp = garnet(8, 3, 3, seed=1)
    best, zeros = soft_policy_iteration(mdp, tau).q, np.zeros((mdp.S, mdp.A))
    for kind in ("normal", "bias", "alternating"):
        for sigma in (0.0, 0.1, 0.5):
            errors = value_errors(mdp, sigma, 3, kind)
            eps = np.array([errors(k) for k in range(1, 101)])
            iterates = take(md_vi(mdp, zeros, lam, tau, errors), 101)
            for k in (1, 5, 30, 100):
                loss = np.abs(best - soft_q_of(mdp, np.exp(iterates[k].log_pi), tau)).max()
                assert loss <= md_vi_entropy_bound(mdp, eps[:k], lam, tau)
