"""C17, C18: Donsker-Varadhan, KL constraints and their duals, and what a wrong model costs."""

import numpy as np
import pytest

from mbkit.tabular.divergences import (
    constrained_gain,
    constrained_policy,
    constraint_dual,
    forward_kl_policy,
    log_partition,
    reverse_kl_policy,
)
from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import MDP, TabularError, random_policy
from mbkit.tabular.model_error import compounding, one_step_error, simulation_bound, value_expansion
from mbkit.tabular.operators import expectation, greedy, kl, q_of, value_of

RNG = np.random.default_rng(0)
B, ADV = RNG.dirichlet(np.ones(5), 40), 2 * RNG.normal(size=(40, 5))


@pytest.mark.parametrize("eta", [0.01, 0.3, 1.0, 10.0])
def test_c18_donsker_varadhan(eta: float) -> None:
    best = reverse_kl_policy(B, ADV, eta)
    attained = expectation(best, ADV) - eta * kl(best, B)
    assert np.abs(attained - log_partition(B, ADV, eta)).max() <= 1e-8
    for _ in range(100):
        other = RNG.dirichlet(np.ones(5), 40)
        assert (expectation(other, ADV) - eta * kl(other, B) <= attained + 1e-8).all()


@pytest.mark.parametrize("delta", [1e-4, 1e-2, 0.3, 1.0])
def test_c18_kl_constraint_has_no_duality_gap(delta: float) -> None:
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


def test_c18_forward_kl_is_stationary_and_best() -> None:
    for weight in (0.01, 0.3, 5.0):
        pi = forward_kl_policy(B, ADV, weight)
        nu = ADV + weight * B / pi
        assert (np.ptp(nu, axis=1) <= 1e-8 * np.abs(nu).max(1)).all()
        best = expectation(pi, ADV) - weight * kl(B, pi)
        for _ in range(50):
            other = RNG.dirichlet(np.ones(5), 40)
            assert (expectation(other, ADV) - weight * kl(B, other) <= best + 1e-8).all()


def test_zero_support_stays_zero() -> None:
    b = np.array([[0.5, 0.5, 0.0]])
    adv = np.array([[0.0, 1.0, 100.0]])
    for pi in (reverse_kl_policy(b, adv, 0.5), constrained_policy(b, adv, 0.1)[0], forward_kl_policy(b, adv, 0.5)):
        assert pi[0, 2] == 0
        assert abs(pi.sum() - 1) < 1e-12
    assert abs(kl(constrained_policy(b, adv, 0.1)[0], b)[0] - 0.1) < 1e-8
    with pytest.raises(TabularError, match="delta > 0"):
        constrained_policy(b, adv, 0.0)


# ------------------------------------------------------------------------------------------------------------------ model error
def perturbed(mdp: MDP, size: float, seed: int, rewards: bool = True) -> MDP:
    rng = np.random.default_rng(seed)
    P = (1 - size) * mdp.P + size * rng.dirichlet(np.ones(mdp.S), (mdp.S, mdp.A))
    return MDP(P, mdp.R + rewards * size * rng.normal(size=mdp.R.shape), mdp.mu0, mdp.gamma)


def test_c17_value_expansion_with_a_perfect_model_gains_gamma_a_step() -> None:
    mdp = garnet()
    pi, q = random_policy(mdp, RNG), 5 * RNG.normal(size=(30, 4))
    start = np.abs(q - q_of(mdp, pi)).max()
    targets = value_expansion(mdp, pi, q, 20)
    assert targets[0] is q
    for depth, target in enumerate(targets):
        assert np.abs(target - q_of(mdp, pi)).max() <= mdp.gamma**depth * start + 1e-12
    constant = value_expansion(mdp, pi, q_of(mdp, pi) + 1.0, 20)[-1] - q_of(mdp, pi)
    assert np.abs(constant - mdp.gamma**20).max() <= 1e-12  # attained


@pytest.mark.parametrize("rewards", [True, False])
@pytest.mark.parametrize("size", [0.0, 0.01, 0.1, 1.0])
def test_c17_simulation_lemma(size: float, rewards: bool) -> None:
    for seed in range(5):
        mdp = garnet(seed=seed)
        model, pi = perturbed(mdp, size, seed, rewards), random_policy(mdp, RNG)
        gap = np.abs(value_of(mdp, pi) - value_of(model, pi)).max()
        assert gap <= simulation_bound(mdp, model, pi) + 1e-12


def test_c17_simulation_lemma_is_tight_for_rewards() -> None:
    mdp = garnet()
    model, pi = MDP(mdp.P, mdp.R + 0.1, mdp.mu0, mdp.gamma), random_policy(mdp, RNG)
    gap = np.abs(value_of(mdp, pi) - value_of(model, pi)).max()
    assert abs(gap - simulation_bound(mdp, model, pi)) <= 1e-12


@pytest.mark.parametrize("size", [0.01, 0.1, 0.5])
def test_c17_state_laws_drift_apart_linearly_at_most(size: float) -> None:
    mdp = garnet()
    model, pi = perturbed(mdp, size, 1), random_policy(mdp, RNG)
    k = np.arange(51)
    assert (compounding(mdp, model, pi, 50) <= k * one_step_error(mdp, model, pi) + 1e-12).all()
    assert compounding(mdp, mdp, pi, 5).max() == 0
