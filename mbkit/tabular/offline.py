"""Offline learning from a fixed data set: counts, the empirical MDP, fitted Q-iteration, implicit and conservative Q-learning.

N transitions (s, a, r, s', discount), S states, A actions. Sources: Ernst et al. 2005; IQL, arXiv:2110.06169; CQL, arXiv:2006.04779.
"""

import numpy as np

from mbkit.errors import UserError
from mbkit.tabular.environments import Episodes
from mbkit.tabular.mdp import MDP, Array
from mbkit.tabular.operators import backup, expectation, value_of
from mbkit.tabular.planning import fixed_point


def counts(data: Episodes, S: int, A: int) -> Array:
    """Number of rows of each (s, a), [S, A]."""
    return np.bincount(data.state * A + data.action, minlength=S * A).reshape(S, A).astype(float)


def behaviour(data: Episodes, S: int, A: int) -> Array:
    """Maximum-likelihood behaviour policy [S, A]; uniform in states without data."""
    n = counts(data, S, A)
    total = n.sum(1, keepdims=True)
    return np.where(total > 0, n / np.maximum(total, 1), 1 / A)


def empirical_mdp(data: Episodes, S: int, A: int, gamma: float, mu0: Array) -> MDP:
    """Maximum-likelihood MDP with S + 1 states: the last is terminal, and pairs (s, a) without data lead there with reward 0.

    Tabular fitted Q-iteration leaves such pairs at their initial value 0 and so solves this MDP.
    """
    n = counts(data, S, A)
    pair = data.state * A + data.action
    P = np.zeros((S + 1, A, S + 1))
    np.add.at(P, (data.state, data.action, np.where(data.discount > 0, data.next_state, S)), 1.0)
    P[:S] /= np.maximum(n, 1)[:, :, None]
    P[:S, :, S] += n == 0
    P[S, :, S] = 1.0
    R = np.zeros((S + 1, A))
    R[:S] = np.bincount(pair, data.reward, S * A).reshape(S, A) / np.maximum(n, 1)
    return MDP(P, R, np.append(mu0, 0.0), gamma, np.arange(S + 1) == S)


def fitted_q_iteration(data: Episodes, S: int, A: int, gamma: float, iterations: int) -> Array:
    """Fitted Q-iteration: Q <- argmin sum_i (r_i + gamma discount_i max Q(s'_i) - Q'(s_i, a_i))^2 over tables, from 0; [S, A].

    The least-squares table holds the mean target of each pair.
    """
    n = np.maximum(counts(data, S, A), 1)
    pair, q = data.state * A + data.action, np.zeros((S, A))
    for _ in range(iterations):
        target = data.reward + gamma * data.discount * q.max(1)[data.next_state]
        q = np.bincount(pair, target, S * A).reshape(S, A) / n
    return q


# ---------------------------------------------------------------------------------------------------------- implicit Q-learning
def expectile(x: Array, p: Array, tau: float) -> Array:
    """tau-expectile m of the distribution p over the last axis: exact solution of sum p |tau - 1[x < m]| (x - m) = 0.

    The weights depend on m only through the set of x below it, so each split of the sorted x has one candidate; the solution is the
    candidate consistent with its split. tau = 0.5 is the mean; tau -> 1 tends to the largest x with p > 0.
    """
    if not 0 < tau < 1:
        raise UserError(f"tau of an expectile must lie in (0, 1), not {tau!r}")
    order = np.argsort(x, -1)
    x, p = np.take_along_axis(x, order, -1), np.take_along_axis(p, order, -1)
    below_mass, below_sum = np.cumsum(p, -1), np.cumsum(p * x, -1)  # cumulative over the lowest 1, 2, ... values
    above_mass, above_sum = below_mass[..., -1:] - below_mass, below_sum[..., -1:] - below_sum
    candidate = ((1 - tau) * below_sum + tau * above_sum) / ((1 - tau) * below_mass + tau * above_mass)
    # The weighted mean of a split is largest (tau >= 1/2) or smallest (tau < 1/2) at the consistent split.
    return np.asarray(candidate.max(-1) if tau >= 0.5 else candidate.min(-1))


def implicit_q(mdp: MDP, beta: Array, tau: float, tol: float = 1e-12) -> tuple[Array, Array]:
    """Tabular IQL: V = tau-expectile of Q(s, a), a ~ beta; Q = R + gamma P V. Returns (V [S], Q [S, A]).

    V increases with tau from V^beta (tau = 0.5) to the optimal value within beta's support as tau -> 1.
    """
    v = fixed_point(lambda v: expectile(backup(mdp, v), beta, tau), np.zeros(mdp.S), mdp.gamma, tol).x
    return v, backup(mdp, v)


# ------------------------------------------------------------------------------------------------------ conservative Q-learning
def _ratio(mu: Array, beta: Array) -> Array:
    if ((mu > 0) & (beta <= 0)).any():
        s, a = np.argwhere((mu > 0) & (beta <= 0))[0]
        raise UserError(f"conservative Q is unbounded at state {s}, action {a}: mu is > 0, but the data do not contain it")
    return np.where(mu > 0, mu / np.where(beta > 0, beta, 1.0), 0.0)


def conservative_q(mdp: MDP, pi: Array, beta: Array, alpha: float, mu: Array | None = None, push_up: bool = True) -> Array:
    """Critic of exact CQL for a fixed policy: Q = B^pi Q - alpha (mu / beta - 1) on the data, [S, A].

    Args:
        mdp: the model.
        pi: evaluated policy.
        beta: behaviour policy; its support must contain that of mu.
        alpha: weight of the penalty, relative to half the squared error.
        mu: policy whose actions are penalised; pi if None.
        push_up: True: equation 2 of the paper, a bound on V. False: equation 1 (-alpha mu / beta), a pointwise bound on Q.
    """
    mu = pi if mu is None else mu
    penalty = alpha * (_ratio(mu, beta) - push_up) * (beta > 0)
    v = value_of(mdp, pi, -expectation(pi, penalty))
    return backup(mdp, v) - penalty


def conservative_gap(mdp: MDP, pi: Array, beta: Array, alpha: float) -> Array:
    """Gap of CQL's V below V^pi: alpha (I - gamma P_pi)^{-1} D, D = sum_a pi (pi / beta - 1) >= 0, [S]."""
    D = expectation(pi, _ratio(pi, beta) - 1)
    return value_of(mdp, pi, alpha * D) - value_of(mdp, pi)
