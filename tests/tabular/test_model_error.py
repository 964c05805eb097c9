"""Value expansion, the simulation lemma and compounding errors of a model."""

import numpy as np
import pytest

from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import MDP, random_policy
from mbkit.tabular.model_error import compounding, one_step_error, simulation_bound, value_expansion
from mbkit.tabular.operators import q_of, value_of

RNG = np.random.default_rng(0)


def perturbed(mdp: MDP, size: float, seed: int, rewards: bool = True) -> MDP:
    rng = np.random.default_rng(seed)
    P = (1 - size) * mdp.P + size * rng.dirichlet(np.ones(mdp.S), (mdp.S, mdp.A))
    return MDP(P, mdp.R + rewards * size * rng.normal(size=mdp.R.shape), mdp.mu0, mdp.gamma)


def test_value_expansion_perfect_model_contracts_by_gamma_per_step() -> None:
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
def test_simulation_bound_holds(size: float, rewards: bool) -> None:
    for seed in range(5):
        mdp = garnet(seed=seed)
        model, pi = perturbed(mdp, size, seed, rewards), random_policy(mdp, RNG)
        gap = np.abs(value_of(mdp, pi) - value_of(model, pi)).max()
        assert gap <= simulation_bound(mdp, model, pi) + 1e-12


def test_simulation_bound_reward_error_is_tight() -> None:
    mdp = garnet()
    model, pi = MDP(mdp.P, mdp.R + 0.1, mdp.mu0, mdp.gamma), random_policy(mdp, RNG)
    gap = np.abs(value_of(mdp, pi) - value_of(model, pi)).max()
    assert abs(gap - simulation_bound(mdp, model, pi)) <= 1e-12


@pytest.mark.parametrize("size", [0.01, 0.1, 0.5])
def test_compounding_is_at_most_linear(size: float) -> None:
    mdp = garnet()
    model, pi = perturbed(mdp, size, 1), random_policy(mdp, RNG)
    k = np.arange(51)
    assert (compounding(mdp, model, pi, 50) <= k * one_step_error(mdp, model, pi) + 1e-12).all()
    assert compounding(mdp, mdp, pi, 5).max() == 0
