"""Finite MDPs, their soft optima and value errors that several tests of `mbkit.tabular` share."""

from collections.abc import Callable

import numpy as np

from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import MDP, Array
from mbkit.tabular.operators import soft_optimality_q, softmax
from mbkit.tabular.planning import fixed_point

GARNETS = [garnet(seed=s) for s in range(3)] + [garnet(8, 3, 3, seed=s) for s in range(3)]
OFFLINE = garnet(20, 4, 5, seed=0, low=0.1)  # rewards >= 0.1


def episodic(seed: int = 0, S: int = 4, A: int = 2) -> MDP:
    """Random MDP whose last state is terminal and reached with probability at least 0.3 per step."""
    rng = np.random.default_rng(seed)
    P, R = 0.7 * rng.dirichlet(np.ones(S), (S, A)) + 0.3 * np.eye(S)[-1], rng.normal(size=(S, A))
    P[-1], R[-1] = np.eye(S)[-1], 0.0
    return MDP(P, R, np.append(np.full(S - 1, 1 / (S - 1)), 0.0), 0.9, np.arange(S) == S - 1)


def softmax_problem(seed: int) -> tuple[MDP, Array, Array]:
    """Garnet of 8 states and 3 actions, random logits [S, A] and their softmax policy."""
    theta = np.random.default_rng(seed).normal(size=(8, 3))
    return garnet(8, 3, 3, seed=seed), theta, softmax(theta)


def soft_optimum(mdp: MDP, alpha: float) -> Array:
    """Optimal soft Q [S, A] at temperature alpha."""
    return fixed_point(lambda q: soft_optimality_q(mdp, q, alpha), np.zeros((mdp.S, mdp.A)), mdp.gamma, 1e-11).x


def value_errors(mdp: MDP, sigma: float, seed: int = 0, kind: str = "normal") -> Callable[[int], Array]:
    """Function k -> eps_k [S, A] of the seed and k only, so that two algorithms get the same errors."""

    def errors(k: int) -> Array:
        rng = np.random.default_rng([seed, k])
        if kind == "normal":
            return sigma * rng.normal(size=(mdp.S, mdp.A))
        return sigma * np.ones((mdp.S, mdp.A)) if kind == "bias" else sigma * (-1.0) ** k * np.ones((mdp.S, mdp.A))

    return errors
