"""CQL(H) with discrete actions, exactly (Kumar et al. 2020, arXiv:2006.04779, eq. 4): many tables and many lambdas in one solve.

In a state with data a ~ beta and targets y the critic minimises 1/2 <beta, (Q - y)^2> + lambda (lse Q - <beta, Q>), and so satisfies

    Q = y - lambda (mu / beta - 1),    mu = softmax(Q),    <beta, Q> = <beta, y>.

Its Jacobian dQ/dy is a stochastic matrix, hence the backup y = R + gamma P max Q is a gamma-contraction for every lambda. Actions that the
data never hold have mu = 0. Letters: L lambdas, N tables (seeds), S states, A actions.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import wrightomega

from mbkit.tabular.mdp import Array
from mbkit.tabular.operators import entropy, expectation
from mbkit.tabular.planning import fixed_point

NEWTON_STEPS = 60  # at most; about ten are needed, two from a good start
NEWTON_TOL = 1e-14  # of sum mu - 1; times lambda it is the error of the level


class Tables(NamedTuple):
    """N empirical MDPs of one size; terminal states lead to themselves and pay nothing, so that their values come out as 0."""

    P: Array  # [N, S, A, S]
    R: Array  # [N, S, A]
    beta: Array  # [N, S, A] behaviour, uniform where there are no data
    terminal: NDArray[np.bool_]  # [N, S]
    gamma: float


class Conservative(NamedTuple):
    """Where CQL(H) comes to rest."""

    q: Array  # [L, N, S, A] finite; where beta is 0 the limit is -inf and y stands here
    mu: Array  # [L, N, S, A] softmax(Q), the policy that the critic pushes down
    y: Array  # [L, N, S, A] targets


def critic(y: Array, beta: Array, lam: Array, start: Array | None = None) -> tuple[Array, Array, Array]:
    """The minimiser for targets y: (Q [..., S, A], mu [..., S, A], level lse Q [..., S]); lam > 0 broadcasts against y.

    With the level l known, mu_a = beta_a / lambda * omega(log(lambda / beta_a) + y_a + lambda - l), omega the Wright function
    omega e^omega = e^z. The sum over actions is convex and falls with l; Newton from the left of its root, <beta, y> + H(beta), cannot
    overshoot, and from a better `start` it jumps there first.
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


def conservative(tables: Tables, lams: Array, tol: float = 1e-6) -> Conservative:
    """The fixed point of y = R + gamma P max_{beta > 0} Q for every lambda [L] and every table.

    Rounding leaves an error of about 1e-15 lambda / (1 - gamma), which `tol` must exceed; TabularError where it does not.
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
    return Conservative(q, mu, y)


def far_bonus(beta: Array) -> Array:
    """<beta, log(max beta / beta)> >= 0, [..., S]: what max Q adds to <beta, y> in every state once lambda is large; 0 for uniform beta."""
    with np.errstate(divide="ignore"):
        logs = np.where(beta > 0, np.log(beta), 0.0)
    return np.asarray(np.log(beta.max(-1)) - expectation(beta, logs))
