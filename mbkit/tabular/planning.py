"""Value iteration and policy iteration with a known model (Bellman 1957; Howard 1960; Puterman & Shin 1978 for the modified form).

All functions accept V [S] or Q [S, A]. S states, A actions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mbkit.errors import UserError
from mbkit.tabular.mdp import MDP, Array, check_policy, uniform_policy
from mbkit.tabular.operators import (
    backup,
    bellman_q,
    bellman_v,
    entropy,
    expectation,
    greedy,
    lse,
    optimality_q,
    optimality_v,
    q_of,
    soft_optimality_q,
    soft_q_of,
    softmax,
    value_of,
)

Operator = Callable[[Array], Array]
Evaluation = Callable[[MDP, Array, Array], Array]  # (mdp, pi, x) -> estimate of V^pi or Q^pi, by x's dimension
Kind = Literal["v", "q"]

ROUNDING = 1e-12  # relative; smaller improvements are rounding errors, on which policies of equal value would alternate for ever


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """Last iterate and convergence log of a fixed-point iteration."""

    x: Array  # the last iterate
    iterations: int
    distances: Array  # [iterations] sup norms |x_k - x_{k-1}|
    ratios: Array  # [iterations - 1] observed contraction factors, NaN after an exact fixed point
    bound: float  # a-posteriori bound gamma / (1 - gamma) |x_k - x_{k-1}| on the distance to the fixed point


@dataclass(frozen=True, eq=False)
class Solution:
    """Policy and values returned by planning."""

    pi: Array  # [S, A]
    v: Array  # [S]
    q: Array  # [S, A]
    iterations: int
    history: list[Array]  # V or Q of every iteration, in order


def fixed_point(operator: Operator, x0: Array, modulus: float, tol: float = 1e-10, max_iterations: int = 1_000_000) -> FixedPoint:
    """Banach iteration x <- T x until the a-posteriori bound modulus / (1 - modulus) |x_k - x_{k-1}| is <= tol.

    Raises:
        UserError: modulus is not in [0, 1), or the bound is not reached in max_iterations.
    """
    if not 0 <= modulus < 1:
        raise UserError(f"a fixed-point iteration needs a contraction: its modulus (gamma) must lie in [0, 1), not {modulus!r}")
    x, bound = x0, np.inf
    distances: list[float] = []
    while bound > tol:
        if len(distances) == max_iterations:
            raise UserError(f"no fixed point within {tol:g} after {max_iterations} iterations; the bound is still {bound:g}")
        before, x = x, operator(x)
        distances.append(float(np.abs(x - before).max()))
        bound = modulus / (1 - modulus) * distances[-1]
        if not np.isfinite(bound):
            raise UserError(f"the values of iteration {len(distances)} are not finite")
    steps = np.array(distances)
    with np.errstate(divide="ignore", invalid="ignore"):
        return FixedPoint(x, len(distances), steps, steps[1:] / steps[:-1], float(bound))


def value_iteration(mdp: MDP, kind: Kind = "q", tol: float = 1e-10, start: Array | None = None) -> Solution:
    """Value iteration with B*_V or B*_Q until the value is within `tol` of the optimum, by the a-posteriori bound."""
    x = start if start is not None else np.zeros(mdp.S if kind == "v" else (mdp.S, mdp.A))
    history: list[Array] = []

    def sweep(x: Array) -> Array:
        history.append(optimality_v(mdp, x) if kind == "v" else optimality_q(mdp, x))
        return history[-1]

    limit = fixed_point(sweep, x, mdp.gamma, tol)
    q = backup(mdp, limit.x) if kind == "v" else limit.x
    return Solution(greedy(q), limit.x if kind == "v" else q.max(-1), q, limit.iterations, history)


# ------------------------------------------------------------------------------------------------------------- policy iteration
def exactly(mdp: MDP, pi: Array, x: Array) -> Array:
    """Exact policy evaluation by a linear solve."""
    return value_of(mdp, pi) if x.ndim == 1 else q_of(mdp, pi)


def sweeps(m: int) -> Evaluation:
    """Policy evaluation by m applications of B^pi to the last estimate: modified policy iteration; m = 1 is value iteration."""

    def evaluate(mdp: MDP, pi: Array, x: Array) -> Array:
        for _ in range(m):
            x = bellman_v(mdp, pi, x) if x.ndim == 1 else bellman_q(mdp, pi, x)
        return x

    return evaluate


def until(tol: float) -> Evaluation:
    """Policy evaluation by applications of B^pi until the a-posteriori bound is <= tol."""

    def evaluate(mdp: MDP, pi: Array, x: Array) -> Array:
        operator = bellman_v if x.ndim == 1 else bellman_q
        return fixed_point(lambda y: operator(mdp, pi, y), x, mdp.gamma, tol).x

    return evaluate


def policy_iteration(
    mdp: MDP,
    kind: Kind = "q",
    evaluation: Evaluation = exactly,
    start: Array | None = None,
    tol: float = 1e-10,
    max_iterations: int = 100_000,
) -> Solution:
    """Policy iteration: policy evaluation and greedy improvement, repeated.

    With exact evaluation it stops when the greedy policy repeats, after finitely many improvements. Otherwise it stops when
    |B* x - x| / (1 - gamma) <= tol, which bounds the distance of x to the optimal value.

    Args:
        mdp: the model.
        kind: "v" iterates V [S], "q" iterates Q [S, A].
        evaluation: `exactly`, `sweeps(m)` or `until(tol)`.
        start: initial policy [S, A]; uniform if None.
        tol: tolerance of inexact evaluation.
        max_iterations: maximum number of iterations; UserError beyond.
    """
    pi = uniform_policy(mdp) if start is None else start
    check_policy(mdp, pi, "start")
    x: Array = np.zeros(mdp.S if kind == "v" else (mdp.S, mdp.A))
    history: list[Array] = []
    for iteration in range(1, max_iterations + 1):
        x = evaluation(mdp, pi, x)
        history.append(x)
        q = backup(mdp, x) if kind == "v" else x
        slack = ROUNDING * max(1.0, float(np.abs(q).max())) if evaluation is exactly else 0.0
        if evaluation is exactly:
            converged = float((q.max(-1) - expectation(pi, q)).max()) <= slack
        else:
            gap = np.abs((q.max(-1) if kind == "v" else optimality_q(mdp, x)) - x).max()
            converged = float(gap) <= tol * (1 - mdp.gamma)
        pi = greedy(q, slack)
        if converged:
            return Solution(pi, q.max(-1), q, iteration, history)
    raise UserError(f"policy iteration did not converge to {tol:g} in {max_iterations} iterations")


def soft_policy_iteration(mdp: MDP, alpha: float, start: Array | None = None, tol: float = 1e-10, max_iterations: int = 10_000) -> Solution:
    """Soft policy iteration: exact soft evaluation, then pi' = softmax(Q / alpha) (Haarnoja et al. 2018, arXiv:1801.01290, theorem 1).

    It converges at least as fast as gamma^k but, unlike the hard form, not in finitely many steps. It stops when the soft optimality
    residual |B* Q - Q| / (1 - gamma) is <= tol.
    """
    if not alpha > 0:
        raise UserError(f"the temperature alpha must be > 0, not {alpha!r}")
    pi = uniform_policy(mdp) if start is None else start
    history: list[Array] = []
    for iteration in range(1, max_iterations + 1):
        q = soft_q_of(mdp, pi, alpha)
        history.append(q)
        pi = softmax(q, alpha)
        if np.abs(soft_optimality_q(mdp, q, alpha) - q).max() <= tol * (1 - mdp.gamma):
            return Solution(pi, lse(q, alpha), q, iteration, history)
    raise UserError(f"soft policy iteration did not converge to {tol:g} in {max_iterations} iterations")


def soft_value(pi: Array, q: Array, alpha: float) -> Array:
    """Soft state value <pi, Q> + alpha H(pi) of a soft Q."""
    return expectation(pi, q) + alpha * entropy(pi)
