"""Entropy-regularised natural policy gradient: bound and rates."""

import numpy as np
import pytest

from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import random_policy
from mbkit.tabular.natural_gradient import npg_step
from mbkit.tabular.operators import q_of
from mbkit.tabular.planning import policy_iteration, soft_policy_iteration
from mbkit.theory.entropy_npg import hard_loss, run, tail_rate


def test_run_satisfies_the_bound() -> None:
    mdp = garnet(8, 3, 3)
    for share in (0.1, 0.5):
        error, bound = run(mdp, 0.3, share, 0, 120)
        assert (error <= bound + 1e-9).all()
        assert bound[1] / bound[0] == pytest.approx(1 - share * 0.1)
        assert tail_rate(error) == pytest.approx((1 - share) ** 2, abs=0.02)
    error, _ = run(mdp, 0.3, 1.0, 0, 5)
    history = soft_policy_iteration(mdp, 0.3, random_policy(mdp, np.random.default_rng(0))).history
    best = soft_policy_iteration(mdp, 0.3, tol=1e-10).q
    for mine, q in zip(error, history[1:], strict=False):
        assert mine == pytest.approx(np.abs(best - q).max(), abs=1e-9)


def test_tail_rate_geometric_sequence_is_its_ratio() -> None:
    assert tail_rate(3 * 0.7 ** np.arange(100)) == pytest.approx(0.7)
    assert tail_rate(1e-4 ** np.arange(5)) == pytest.approx(1e-4)


def test_hard_loss_small_tau_is_the_plain_natural_gradient() -> None:
    mdp = garnet(8, 3, 3)
    plain, nearly = hard_loss(mdp, 0.0, 0, 30), hard_loss(mdp, 1e-7, 0, 30)
    np.testing.assert_allclose(plain, nearly, atol=1e-4)
    pi = npg_step(mdp, random_policy(mdp, np.random.default_rng(0)), 0.1)
    assert plain[0] == pytest.approx(np.abs(policy_iteration(mdp).q - q_of(mdp, pi)).max())
    assert hard_loss(mdp, 1.0, 0, 30)[-1] > 10 * plain[-1]
