"""Exact CQL(H) with discrete actions (Kumar et al. 2020, arXiv:2006.04779, eq. 4), for many tables and lambdas at once.

In a state with data a ~ beta and targets y the critic minimises 1/2 <beta, (Q - y)^2> + lambda (lse Q - <beta, Q>), and so satisfies

    Q = y - lambda (mu / beta - 1),    mu = softmax(Q),    <beta, Q> = <beta, y>.

Its Jacobian dQ/dy is a stochastic matrix, so the backup y = R + gamma P max Q is a gamma-contraction for every lambda. Actions outside
the data have mu = 0. Letters: L lambdas, N tables (seeds), S states, A actions.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import wrightomega

from mbkit.tabular.mdp import Array
from mbkit.tabular.operators import entropy, expectation
from mbkit.tabular.planning import fixed_point

NEWTON_STEPS = 60  # maximum number; about ten are needed, two from a good start
NEWTON_TOL = 1e-14  # tolerance of sum mu - 1; times lambda it is the error of the level


class Tables(NamedTuple):
    """N empirical MDPs of one size; terminal states lead to themselves with reward 0, so that their values are 0."""

    P: Array  # [N, S, A, S]
    R: Array  # [N, S, A]
    beta: Array  # [N, S, A] behaviour policy, uniform where there are no data
    terminal: NDArray[np.bool_]  # [N, S]
    gamma: float


class ConservativeFixedPoint(NamedTuple):
    """Fixed point of CQL(H)."""

    q: Array  # [L, N, S, A] finite; y where beta is 0, where the limit is -inf
    mu: Array  # [L, N, S, A] softmax(Q), the policy whose Q is penalised
    y: Array  # [L, N, S, A] targets


def critic(y: Array, beta: Array, lam: Array, start: Array | None = None) -> tuple[Array, Array, Array]:
    """Optimal critic for targets y: (Q [..., S, A], mu [..., S, A], level lse Q [..., S]); lam > 0 broadcasts against y.

    Given the level l, mu_a = beta_a / lambda * omega(log(lambda / beta_a) + y_a + lambda - l), omega the Wright function
    omega e^omega = e^z. The sum over actions is convex and decreasing in l; Newton's method from the left of its root, from
    <beta, y> + H(beta) or from `start` after one step, cannot overshoot.
    """
    inside = beta > 0
    safe = np.where(inside, beta, 1.0)
    offset = np.where(inside, np.log(lam / safe) + y + lam, -np.inf)
    bound = expectation(beta, np.where(inside, y, 0.0)) + entropy(beta)
    level = bound if start is None else np.maximum(start, bound)
    for _ in range(NEWTON_STEPS):
        omega = wrightomega(offset - level[..., None])
        mu = safe / lam * omega
        total = mu.sum(-1)
        if np.abs(total - 1).max() <= NEWTON_TOL:
            break
        level = np.maximum(level + (total - 1) / (mu / (1 + omega)).sum(-1), bound)
    mu /= total[..., None]
    return np.where(inside, y - lam * (mu / safe - 1), y), mu, level


def conservative(tables: Tables, lams: Array, tol: float = 1e-6) -> ConservativeFixedPoint:
    """Fixed point of y = R + gamma P max_{beta > 0} Q for every lambda [L] and every table.

    Rounding errors are about 1e-15 lambda / (1 - gamma); raises UserError if `tol` is smaller.
    """
    lam = lams[:, None, None, None]
    inside = tables.beta > 0
    N, S, A = tables.R.shape
    flat = tables.P.reshape(N, S * A, S)
    level: Array | None = None

    def target(v: Array) -> Array:
        return tables.R + tables.gamma * np.moveaxis(flat @ np.moveaxis(v, 0, -1), -1, 0).reshape(-1, N, S, A)

    def sweep(v: Array) -> Array:
        nonlocal level
        q, _, level = critic(target(v), tables.beta, lam, level)
        return np.where(tables.terminal, 0.0, np.where(inside, q, -np.inf).max(-1))

    v = fixed_point(sweep, np.zeros((len(lams), N, S)), tables.gamma, tol, max_iterations=3000).x
    y = target(v)
    q, mu, _ = critic(y, tables.beta, lam)
    return ConservativeFixedPoint(q, mu, y)


def large_lambda_bonus(beta: Array) -> Array:
    """Excess of max Q over <beta, y> in the limit of large lambda: <beta, log(max beta / beta)> >= 0, [..., S]; 0 for uniform beta."""
    with np.errstate(divide="ignore"):
        logs = np.where(beta > 0, np.log(beta), 0.0)
    return np.asarray(np.log(beta.max(-1)) - expectation(beta, logs))
