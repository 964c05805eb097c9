"""State distributions of a policy: discounted occupancy, stationary distribution, and the limit gamma -> 1. S states, A actions.

Exact gradients weight states by the discounted occupancy, not by the stationary distribution: with an absorbing state all stationary
mass lies there.
"""

import numpy as np

from mbkit.errors import UserError
from mbkit.tabular.mdp import MDP, Array

RANK = 1e-9  # singular values below this count as zero


def transition_of(mdp: MDP, pi: Array) -> Array:
    """State transition matrix P_pi [S, S]."""
    return np.asarray(np.einsum("sa,sat->st", pi, mdp.P))


def discounted(mdp: MDP, pi: Array, gamma: float | None = None) -> Array:
    """Discounted occupancy d_gamma = (1 - gamma) mu0^T (I - gamma P_pi)^{-1}, [S], sums to 1; gamma None: that of the MDP."""
    gamma = mdp.gamma if gamma is None else gamma
    if not gamma < 1:
        raise UserError(f"the discounted occupancy needs gamma < 1, not {gamma!r}; its limit is `abel_limit`")
    return np.asarray((1 - gamma) * np.linalg.solve((np.eye(mdp.S) - gamma * transition_of(mdp, pi)).T, mdp.mu0))


def discounted_pairs(mdp: MDP, pi: Array, gamma: float | None = None) -> Array:
    """Discounted occupancy of pairs d_gamma(s) pi(a|s), [S, A]."""
    return discounted(mdp, pi, gamma)[:, None] * pi


def limit_matrix(transition: Array) -> Array:
    """Limit matrix P* = lim (1 - gamma)(I - gamma P)^{-1}, [S, S]: projection on the null space of I - P along its range."""
    u, sizes, vt = np.linalg.svd(np.eye(len(transition)) - transition)
    left, right = u[:, sizes < RANK], vt[sizes < RANK].T
    return np.asarray(right @ np.linalg.solve(left.T @ right, left.T))


def abel_limit(mdp: MDP, pi: Array) -> Array:
    """Limit of d_gamma for gamma -> 1, [S]; depends on mu0 where the chain has several recurrent classes."""
    return np.asarray(mdp.mu0 @ limit_matrix(transition_of(mdp, pi)))


def stationary(mdp: MDP, pi: Array) -> Array:
    """Stationary distribution d = d P_pi, [S].

    Raises:
        UserError: it is not unique, because the chain has more than one recurrent class.
    """
    classes = int(np.sum(np.linalg.svd(np.eye(mdp.S) - transition_of(mdp, pi), compute_uv=False) < RANK))
    if classes > 1:
        raise UserError(f"the stationary distribution is not unique: the chain has {classes} recurrent classes (see `abel_limit`)")
    return abel_limit(mdp, pi)


def total_variation(p: Array, q: Array) -> Array:
    """Total variation: half the L1 distance over the last axis."""
    return np.asarray(0.5 * np.abs(p - q).sum(-1))
