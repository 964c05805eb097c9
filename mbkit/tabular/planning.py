"""Value iteration and policy iteration with a known model (Bellman 1957; Howard 1960; Puterman & Shin 1978 for the modified form).

Everything works on V [S] or on Q [S, A] alike: what is passed or named says which. S states, A actions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mbkit.tabular.mdp import MDP, Array, TabularError, check_policy, uniform_policy
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
Evaluation = Callable[[MDP, Array, Array], Array]  # (mdp, pi, x) -> V^pi or Q^pi, or nearer to it than x; x's dimension says which
Kind = Literal["v", "q"]

ROUNDING = 1e-12  # relative: an improvement below it is a rounding error, and policies of equal value would alternate for ever


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """The last iterate and the log of the iteration."""

    x: Array  # the last iterate
    iterations: int
    distances: Array  # [iterations] sup norms |x_k - x_{k-1}|
    ratios: Array  # [iterations - 1] observed contraction factors, NaN after an exact hit
    bound: float  # a-posteriori bound gamma / (1 - gamma) |x_k - x_{k-1}| on the distance to the fixed point


@dataclass(frozen=True, eq=False)
class Solution:
    """What planning returns."""

    pi: Array  # [S, A]
    v: Array  # [S]
    q: Array  # [S, A]
    iterations: int
    history: list[Array]  # V or Q of every iteration, in order


def fixed_point(operator: Operator, x0: Array, modulus: float, tol: float = 1e-10, max_iterations: int = 1_000_000) -> FixedPoint:
    """Banach iteration x <- T x until the a-posteriori bound modulus / (1 - modulus) |x_k - x_{k-1}| is <= tol.

    Raises:
        TabularError: modulus is not in [0, 1), or the bound is not reached in max_iterations.
    """
    if not 0 <= modulus < 1:
        raise TabularError(f"the iteration needs a contraction: its modulus (gamma) must lie in [0, 1), not {modulus!r}")
    x, bound = x0, np.inf
    distances: list[float] = []
    while bound > tol:
        if len(distances) == max_iterations:
            raise TabularError(f"no fixed point within {tol:g} after {max_iterations} iterations; the bound is still {bound:g}")
        before, x = x, operator(x)
        distances.append(float(np.abs(x - before).max()))
        bound = modulus / (1 - modulus) * distances[-1]
        if not np.isfinite(bound):
            raise TabularError(f"iteration {len(distances)} left the finite numbers")
    steps = np.array(distances)
    with np.errstate(divide="ignore", invalid="ignore"):
        return FixedPoint(x, len(distances), steps, steps[1:] / steps[:-1], float(bound))


def value_iteration(mdp: MDP, kind: Kind = "q", tol: float = 1e-10, start: Array | None = None) -> Solution:
    """Iterate B*_V or B*_Q; on return the value is within `tol` of the optimal one, by the a-posteriori bound."""
    x = start if start is not None else np.zeros(mdp.S if kind == "v" else (mdp.S, mdp.A))
    history: list[Array] = []

    def sweep(x: Array) -> Array:
        history.append(optimality_v(mdp, x) if kind == "v" else optimality_q(mdp, x))
        return history[-1]

    found = fixed_point(sweep, x, mdp.gamma, tol)
    q = backup(mdp, found.x) if kind == "v" else found.x
    return Solution(greedy(q), found.x if kind == "v" else q.max(-1), q, found.iterations, history)


# ------------------------------------------------------------------------------------------------------------- policy iteration
def exactly(mdp: MDP, pi: Array, x: Array) -> Array:
    """Evaluate by a linear solve."""
    return value_of(mdp, pi) if x.ndim == 1 else q_of(mdp, pi)


def sweeps(m: int) -> Evaluation:
    """Evaluate by m applications of B^pi to the last estimate: modified policy iteration; m = 1 is value iteration."""

    def evaluate(mdp: MDP, pi: Array, x: Array) -> Array:
        for _ in range(m):
            x = bellman_v(mdp, pi, x) if x.ndim == 1 else bellman_q(mdp, pi, x)
        return x

    return evaluate


def until(tol: float) -> Evaluation:
    """Evaluate by applications of B^pi until the a-posteriori bound is <= tol."""

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
    """Evaluate, improve greedily, repeat.

    With exact evaluation it ends when the greedy policy repeats, after finitely many improvements. Otherwise it ends when
    |B* x - x| / (1 - gamma) <= tol, which bounds the distance of x to the optimal value.

    Args:
        mdp: the model.
        kind: keep V [S] or Q [S, A].
        evaluation: `exactly`, `sweeps(m)` or `until(tol)`.
        start: first policy [S, A]; uniform if None.
        tol: of inexact evaluation.
        max_iterations: TabularError beyond.
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
            settled = float((q.max(-1) - expectation(pi, q)).max()) <= slack
        else:
            gap = np.abs((q.max(-1) if kind == "v" else optimality_q(mdp, x)) - x).max()
            settled = float(gap) <= tol * (1 - mdp.gamma)
        pi = greedy(q, slack)
        if settled:
            return Solution(pi, q.max(-1), q, iteration, history)
    raise TabularError(f"policy iteration did not settle within {tol:g} in {max_iterations} iterations")


def soft_policy_iteration(mdp: MDP, alpha: float, start: Array | None = None, tol: float = 1e-10, max_iterations: int = 10_000) -> Solution:
    """Exact soft evaluation, then pi' = softmax(Q / alpha) (Haarnoja et al. 2018, arXiv:1801.01290, theorem 1).

    It converges at least as fast as gamma^k but, unlike the hard form, never in finitely many steps. Ends when the soft optimality
    residual |B* Q - Q| / (1 - gamma) is <= tol.
    """
    if not alpha > 0:
        raise TabularError(f"the temperature alpha must be > 0, not {alpha!r}")
    pi = uniform_policy(mdp) if start is None else start
    history: list[Array] = []
    for iteration in range(1, max_iterations + 1):
        q = soft_q_of(mdp, pi, alpha)
        history.append(q)
        pi = softmax(q, alpha)
        if np.abs(soft_optimality_q(mdp, q, alpha) - q).max() <= tol * (1 - mdp.gamma):
            return Solution(pi, lse(q, alpha), q, iteration, history)
    raise TabularError(f"soft policy iteration did not settle within {tol:g} in {max_iterations} iterations")


def soft_value(pi: Array, q: Array, alpha: float) -> Array:
    """<pi, Q> + alpha H(pi), the soft V of a soft Q."""
    return expectation(pi, q) + alpha * entropy(pi)
