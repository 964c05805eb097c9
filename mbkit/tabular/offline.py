"""Learning from a fixed table of transitions: counts, the empirical MDP, fitted Q-iteration, implicit and conservative Q-learning.

N transitions (s, a, r, s', discount), S states, A actions. Sources: Ernst et al. 2005; IQL, arXiv:2110.06169; CQL, arXiv:2006.04779.
"""

import numpy as np

from mbkit.tabular.environments import Episodes
from mbkit.tabular.mdp import MDP, Array, TabularError
from mbkit.tabular.operators import backup, expectation, value_of
from mbkit.tabular.planning import fixed_point


def counts(data: Episodes, S: int, A: int) -> Array:
    """How often each (s, a) was seen, [S, A]."""
    return np.bincount(data.state * A + data.action, minlength=S * A).reshape(S, A).astype(float)


def behaviour(data: Episodes, S: int, A: int) -> Array:
    """The maximum-likelihood behaviour policy [S, A]; uniform in states without data."""
    n = counts(data, S, A)
    seen = n.sum(1, keepdims=True)
    return np.where(seen > 0, n / np.maximum(seen, 1), 1 / A)


def empirical_mdp(data: Episodes, S: int, A: int, gamma: float, mu0: Array) -> MDP:
    """The maximum-likelihood MDP, with S + 1 states: the last is terminal, and unseen (s, a) lead there with reward 0.

    Fitted Q-iteration on a table leaves unseen pairs at their start, 0; that is this MDP.
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
    """Q <- argmin sum_i (r_i + gamma discount_i max Q(s'_i) - Q'(s_i, a_i))^2 over tables, from 0; [S, A].

    The least-squares table is the mean target of each pair.
    """
    n = np.maximum(counts(data, S, A), 1)
    pair, q = data.state * A + data.action, np.zeros((S, A))
    for _ in range(iterations):
        target = data.reward + gamma * data.discount * q.max(1)[data.next_state]
        q = np.bincount(pair, target, S * A).reshape(S, A) / n
    return q


# --------------------------------------------------------------------------------------------------------------------- implicit
def expectile(x: Array, p: Array, tau: float) -> Array:
    """The tau-expectile m of the law p over the last axis: sum p |tau - 1[x < m]| (x - m) = 0, exactly.

    The weights depend on m only through which x lie below it, so each split of the sorted x has one candidate; the right one agrees
    with its own split. tau = 0.5 is the mean; tau -> 1 tends to the largest x that has p > 0.
    """
    if not 0 < tau < 1:
        raise TabularError(f"tau of an expectile must lie in (0, 1), not {tau!r}")
    order = np.argsort(x, -1)
    x, p = np.take_along_axis(x, order, -1), np.take_along_axis(p, order, -1)
    below_mass, below_sum = np.cumsum(p, -1), np.cumsum(p * x, -1)  # of the lowest 1, 2, ... values
    above_mass, above_sum = below_mass[..., -1:] - below_mass, below_sum[..., -1:] - below_sum
    candidate = ((1 - tau) * below_sum + tau * above_sum) / ((1 - tau) * below_mass + tau * above_mass)
    # The weighted mean of a split is largest (tau > 1/2), or smallest, at the right split: any other gives weight to the wrong side.
    return np.asarray(candidate.max(-1) if tau >= 0.5 else candidate.min(-1))


def implicit_q(mdp: MDP, beta: Array, tau: float, tol: float = 1e-12) -> tuple[Array, Array]:
    """Tabular IQL: V = tau-expectile of Q(s, a), a ~ beta; Q = R + gamma P V. Returns (V [S], Q [S, A]).

    V increases with tau from V^beta (tau = 0.5) towards the best value inside beta's support, which it never exceeds.
    """
    found = fixed_point(lambda v: expectile(backup(mdp, v), beta, tau), np.zeros(mdp.S), mdp.gamma, tol)
    return found.x, backup(mdp, found.x)


# ----------------------------------------------------------------------------------------------------------------- conservative
def _ratio(mu: Array, beta: Array) -> Array:
    if ((mu > 0) & (beta <= 0)).any():
        s, a = np.argwhere((mu > 0) & (beta <= 0))[0]
        raise TabularError(f"the critic is pushed down without limit at state {s}, action {a}: the data never hold it")
    return np.where(mu > 0, mu / np.where(beta > 0, beta, 1.0), 0.0)


def conservative_q(mdp: MDP, pi: Array, beta: Array, alpha: float, mu: Array | None = None, push_up: bool = True) -> Array:
    """The critic of exact CQL for a fixed policy: Q = B^pi Q - alpha (mu / beta - 1) on the data, [S, A].

    Args:
        mdp: the model.
        pi: evaluated policy.
        beta: behaviour policy; mu needs its support.
        alpha: weight of the penalty, with the squared error halved.
        mu: where the critic is pushed down; pi if None.
        push_up: equation 2 of the paper, which bounds V; False is equation 1 (-alpha mu / beta), which bounds Q pointwise.
    """
    mu = pi if mu is None else mu
    penalty = alpha * (_ratio(mu, beta) - push_up) * (beta > 0)
    v = value_of(mdp, pi, -expectation(pi, penalty))
    return backup(mdp, v) - penalty


def conservative_gap(mdp: MDP, pi: Array, beta: Array, alpha: float) -> Array:
    """alpha (I - gamma P_pi)^{-1} D, D = sum_a pi (pi / beta - 1) >= 0: how far V of CQL lies below V^pi, [S]."""
    D = expectation(pi, _ratio(pi, beta) - 1)
    return value_of(mdp, pi, alpha * D) - value_of(mdp, pi)
