"""Policy improvement under KL divergences: Donsker-Varadhan, constraints and their duals."""

import numpy as np
import pytest

from mbkit.errors import UserError
from mbkit.tabular.divergences import (
    constrained_gain,
    constrained_policy,
    constraint_dual,
    forward_kl_policy,
    log_partition,
    reverse_kl_policy,
)
from mbkit.tabular.operators import expectation, greedy, kl

RNG = np.random.default_rng(0)
B, ADV = RNG.dirichlet(np.ones(5), 40), 2 * RNG.normal(size=(40, 5))


@pytest.mark.parametrize("eta", [0.01, 0.3, 1.0, 10.0])
def test_log_partition_is_the_donsker_varadhan_maximum(eta: float) -> None:
    best = reverse_kl_policy(B, ADV, eta)
    attained = expectation(best, ADV) - eta * kl(best, B)
    assert np.abs(attained - log_partition(B, ADV, eta)).max() <= 1e-8
    for _ in range(100):
        other = RNG.dirichlet(np.ones(5), 40)
        assert (expectation(other, ADV) - eta * kl(other, B) <= attained + 1e-8).all()


@pytest.mark.parametrize("delta", [1e-4, 1e-2, 0.3, 1.0])
def test_constrained_policy_has_no_duality_gap(delta: float) -> None:
    pi, eta = constrained_policy(B, ADV, delta)
    spent = kl(pi, B)
    assert (spent <= delta + 1e-8).all()
    loose = -np.log((B * greedy(ADV)).sum(1)) <= delta  # even the greedy policy is allowed there
    assert np.abs(spent[~loose] - delta).max() <= 1e-8
    assert np.abs(pi - greedy(ADV))[loose].max(initial=0) <= 1e-8
    gain = constrained_gain(B, ADV, delta)
    assert np.abs(constraint_dual(B, ADV, delta, eta) - gain).max() <= 1e-8
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert (constraint_dual(B, ADV, delta, factor * eta) >= gain - 1e-8).all()
    for _ in range(100):  # shrink a random policy towards b until it is feasible
        other = RNG.dirichlet(np.ones(5), 40)
        mix = np.minimum(1.0, delta / kl(other, B))[:, None]  # KL is convex: the mixture spends at most delta
        assert (expectation(mix * other + (1 - mix) * B, ADV) <= gain + 1e-8).all()


def test_forward_kl_policy_is_stationary_and_optimal() -> None:
    for weight in (0.01, 0.3, 5.0):
        pi = forward_kl_policy(B, ADV, weight)
        nu = ADV + weight * B / pi
        assert (np.ptp(nu, axis=1) <= 1e-8 * np.abs(nu).max(1)).all()
        best = expectation(pi, ADV) - weight * kl(B, pi)
        for _ in range(50):
            other = RNG.dirichlet(np.ones(5), 40)
            assert (expectation(other, ADV) - weight * kl(B, other) <= best + 1e-8).all()


def test_divergence_policies_outside_the_support_are_0() -> None:
    b = np.array([[0.5, 0.5, 0.0]])
    adv = np.array([[0.0, 1.0, 100.0]])
    for pi in (reverse_kl_policy(b, adv, 0.5), constrained_policy(b, adv, 0.1)[0], forward_kl_policy(b, adv, 0.5)):
        assert pi[0, 2] == 0
        assert abs(pi.sum() - 1) < 1e-12
    assert abs(kl(constrained_policy(b, adv, 0.1)[0], b)[0] - 0.1) < 1e-8
    with pytest.raises(UserError, match="delta > 0"):
        constrained_policy(b, adv, 0.0)
