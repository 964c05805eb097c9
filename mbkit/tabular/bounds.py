"""Bounds as numbers: error propagation of regularised value iteration and the regret of a softmax policy.

Sup norms over [S, A]; eps is [k, S, A], the errors of iterations 1..k.
"""

import numpy as np

from mbkit.tabular.mdp import MDP, Array


def _norms(eps: Array) -> Array:
    return np.asarray(np.abs(eps).reshape(len(eps), -1).max(1))


def avi_bound(mdp: MDP, eps: Array) -> float:
    """Bound on |q* - q_{pi_{k+1}}| of approximate value iteration.

    2 gamma / (1-gamma)^2 (1-gamma) sum gamma^{k-j} |eps_j| + 2 gamma^k v_max / (1-gamma), v_max = r_max / (1 - gamma), which must bound
    q_0 too. The horizon enters squared, and errors are not averaged.
    """
    gamma, k = mdp.gamma, len(eps)
    discounted = (1 - gamma) * float((gamma ** np.arange(k - 1, -1, -1)) @ _norms(eps))
    v_max = float(np.abs(mdp.R).max()) / (1 - gamma)
    return 2 * gamma / (1 - gamma) ** 2 * discounted + 2 * gamma**k * v_max / (1 - gamma)


def md_vi_bound(mdp: MDP, eps: Array, lam: float) -> float:
    """Bound on |q* - q_{pi_{k+1}}| of MD-VI(lambda, 0): 2/(1-gamma) |mean_j eps_j| + 4 v / ((1-gamma) k) (theorem 1 of arXiv:2003.14089).

    v = (r_max + lambda ln A) / (1 - gamma). The horizon enters linearly, and the norm of the mean error replaces the mean of norms.
    """
    v = (float(np.abs(mdp.R).max()) + lam * np.log(mdp.A)) / (1 - mdp.gamma)
    return float(2 / (1 - mdp.gamma) * np.abs(eps.mean(0)).max() + 4 * v / ((1 - mdp.gamma) * len(eps)))


def md_vi_entropy_bound(mdp: MDP, eps: Array, lam: float, tau: float) -> float:
    """Bound on |q*^tau - q^tau_{pi_{k+1}}| of MD-VI(lambda, tau > 0) (theorem 2): a moving average of the errors, plus a transient.

    2/(1-gamma) |E_k| + gamma^k (1 + (1-beta)/(1-gamma)) sum_{j<=k} (beta/gamma)^j v, E_k = (1-beta) sum beta^{k-j} eps_j,
    v = (r_max + tau ln A) / (1 - gamma).
    """
    gamma, beta, k = mdp.gamma, lam / (lam + tau), len(eps)
    average = (1 - beta) * np.tensordot(beta ** np.arange(k - 1, -1, -1.0), eps, 1)
    v = (float(np.abs(mdp.R).max()) + tau * np.log(mdp.A)) / (1 - gamma)
    start = float(sum(gamma ** (k - j) * beta**j for j in range(k + 1)))
    return float(2 / (1 - gamma) * np.abs(average).max() + (1 + (1 - beta) / (1 - gamma)) * start * v)


def lambert_w(x: float) -> float:
    """Lambert W: w >= 0 with w e^w = x, by Newton's method; x >= 0."""
    w = np.log1p(x)
    for _ in range(50):
        w -= (w * np.exp(w) - x) / (np.exp(w) * (1 + w))
    return float(w)


def softmax_regret(actions: int, alpha: float) -> float:
    """Supremum over Q of max Q - <softmax(Q / alpha), Q> = alpha W((A - 1) / e), attained when all actions but one tie."""
    return alpha * lambert_w((actions - 1) / np.e)
