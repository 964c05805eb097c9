"""Bellman operators on tables, hard, soft and KL-regularised, and their fixed points.

Letters: S states, A actions; V [S], Q [S, A], a policy pi [S, A], a prior pi0 [S, A]. Every operator returns a new array and is a
gamma-contraction in the sup norm. Values of terminal states are read as 0: there is no reward and no entropy bonus there.
"""

import numpy as np

from mbkit.errors import UserError
from mbkit.tabular.mdp import MDP, Array


# ------------------------------------------------------------------------------------------------------- functions of one state
def lse(x: Array, alpha: float = 1.0) -> Array:
    """Log-sum-exp alpha log sum_a exp(x_a / alpha) over the last axis, without overflow; alpha = 0 is the maximum."""
    top = x.max(-1)
    if alpha == 0:
        return np.asarray(top)
    return np.asarray(top + alpha * np.log(np.exp((x - top[..., None]) / alpha).sum(-1)))


def softmax(x: Array, alpha: float = 1.0) -> Array:
    """Softmax of x / alpha over the last axis, without overflow."""
    weights = np.exp((x - x.max(-1, keepdims=True)) / alpha)
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def log_softmax(x: Array, alpha: float = 1.0) -> Array:
    """Log-softmax of x / alpha over the last axis, finite where softmax underflows."""
    return np.asarray((x - lse(x, alpha)[..., None]) / alpha)


def entropy(pi: Array) -> Array:
    """Entropy -sum_a pi log pi; 0 log 0 = 0."""
    return np.asarray(-(pi * np.log(np.where(pi > 0, pi, 1.0))).sum(-1))


def kl(pi: Array, mu: Array) -> Array:
    """KL divergence KL(pi || mu) over the last axis; infinite where mu is 0 and pi is not."""
    with np.errstate(divide="ignore"):
        logs = np.log(np.where(pi > 0, pi, 1.0)) - np.log(np.where(pi > 0, mu, 1.0))
    return np.asarray((pi * logs).sum(-1))


def expectation(pi: Array, q: Array) -> Array:
    """Expectation <pi, q>(s) = sum_a pi q."""
    return np.asarray((pi * q).sum(-1))


def greedy(q: Array, slack: float = 0.0) -> Array:
    """Greedy policy argmax_a q as a table of probabilities; of the actions within `slack` of the maximum the lowest index."""
    best = q >= q.max(-1, keepdims=True) - slack
    return np.asarray(np.eye(q.shape[-1])[best.argmax(-1)])


# ---------------------------------------------------------------------------------------------------------------- the operators
def backup(mdp: MDP, v: Array) -> Array:
    """Backup of state values: R + gamma P V, [S, A]."""
    return np.asarray(mdp.R + mdp.gamma * (mdp.P @ np.where(mdp.terminal, 0.0, v)))


def bellman_v(mdp: MDP, pi: Array, v: Array) -> Array:
    """Bellman operator B_V^pi: r_pi + gamma P_pi V."""
    return expectation(pi, backup(mdp, v))


def bellman_q(mdp: MDP, pi: Array, q: Array) -> Array:
    """Bellman operator B_Q^pi: R + gamma P <pi, Q>."""
    return backup(mdp, expectation(pi, q))


def optimality_v(mdp: MDP, v: Array) -> Array:
    """Bellman optimality operator B*_V: max_a (R + gamma P V)."""
    return np.asarray(backup(mdp, v).max(-1))


def optimality_q(mdp: MDP, q: Array) -> Array:
    """Bellman optimality operator B*_Q: R + gamma P max_a Q."""
    return backup(mdp, q.max(-1))


def soft_bellman_v(mdp: MDP, pi: Array, v: Array, alpha: float) -> Array:
    """Soft Bellman operator B_V^pi: r_pi + alpha H(pi) + gamma P_pi V; 0 in terminal states."""
    return np.where(mdp.terminal, 0.0, bellman_v(mdp, pi, v) + alpha * entropy(pi))


def soft_bellman_q(mdp: MDP, pi: Array, q: Array, alpha: float) -> Array:
    """Soft Bellman operator B_Q^pi: R + gamma P (<pi, Q> + alpha H(pi))."""
    return backup(mdp, expectation(pi, q) + alpha * entropy(pi))


def soft_optimality_q(mdp: MDP, q: Array, alpha: float) -> Array:
    """Soft Bellman optimality operator B*_Q: R + gamma P lse_alpha(Q)."""
    return backup(mdp, lse(q, alpha))


def kl_bellman_q(mdp: MDP, pi: Array, q: Array, prior: Array, alpha: float) -> Array:
    """KL-regularised Bellman operator B_Q^pi: R + gamma P (<pi, Q> - alpha KL(pi || pi0))."""
    return backup(mdp, expectation(pi, q) - alpha * kl(pi, prior))


def kl_optimality_q(mdp: MDP, q: Array, prior: Array, alpha: float) -> Array:
    """KL-regularised optimality operator B*_Q: R + gamma P alpha log sum_a pi0 exp(Q / alpha).

    With a uniform prior it differs from the soft operator by gamma alpha ln A.
    """
    return backup(mdp, lse(q + alpha * log_table(prior), alpha))


def log_table(p: Array) -> Array:
    """Logarithm of a table, -inf at 0 without a warning."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(p))


# ----------------------------------------------------------------------------------------------------------------- fixed points
def value_of(mdp: MDP, pi: Array, bonus: Array | float = 0.0) -> Array:
    """State values V^pi = (I - gamma P_pi)^{-1} (r_pi + bonus), [S], by a linear solve; bonus [S] is added in non-terminal states."""
    alive = ~mdp.terminal
    transition = np.einsum("sa,sat->st", pi, mdp.P) * alive  # terminal states have value 0, so gamma = 1 works too
    return np.linalg.solve(np.eye(mdp.S) - mdp.gamma * transition, np.where(alive, expectation(pi, mdp.R) + bonus, 0.0))


def q_of(mdp: MDP, pi: Array, bonus: Array | float = 0.0) -> Array:
    """Action values Q^pi = R + gamma P V^pi, [S, A]."""
    return backup(mdp, value_of(mdp, pi, bonus))


def soft_q_of(mdp: MDP, pi: Array, alpha: float) -> Array:
    """Fixed point of `soft_bellman_q`; excludes the entropy of the current step, as usual."""
    return q_of(mdp, pi, alpha * entropy(pi))


def kl_q_of(mdp: MDP, pi: Array, prior: Array, alpha: float) -> Array:
    """Fixed point of `kl_bellman_q`.

    Raises:
        UserError: the prior is 0 where pi is not, so that the KL divergence is infinite.
    """
    cost = kl(pi, prior)
    if not np.isfinite(cost).all():
        raise UserError(f"pi needs the prior's support: in state {np.flatnonzero(~np.isfinite(cost))[0]} the prior is 0 where pi is not")
    return q_of(mdp, pi, -alpha * cost)


def performance(mdp: MDP, pi: Array) -> float:
    """Expected discounted return J(pi) = mu0 . V^pi."""
    return float(mdp.mu0 @ value_of(mdp, pi))
