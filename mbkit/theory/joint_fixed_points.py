"""Closed-form joint fixed points of actor and critic for every loss, lambda and seed, on true and on empirical MDPs.

Critic regularisation of Eysenbach et al. 2023, arXiv:2307.12968. L losses, K lambdas, N seeds, S states, A actions.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mbkit.tabular.critic_losses import CROSS_ENTROPY, LOSSES
from mbkit.tabular.critic_regularisation import JointFixedPoint, joint_fixed_point, normalised_target, water_fill
from mbkit.tabular.environments import one_step_grid
from mbkit.tabular.mdp import MDP, Array, random_policy
from mbkit.tabular.occupancy import total_variation
from mbkit.tabular.offline import behaviour, empirical_mdp
from mbkit.tabular.one_step import improve, one_step_policy
from mbkit.tabular.operators import q_of, value_of
from mbkit.tabular.planning import fixed_point
from mbkit.tabular.sampling import sample_rows
from mbkit.theory.learned_critics import NORMALISED, CriticGrid, CriticProblem, converted_lambda

SLIP = 0.1  # probability of a random move on the grid; weights y / (1 + y) are biased only for stochastic dynamics
MIN_REWARD = 0.05  # added to every reward of the grid, because the positive losses need positive rewards


class ClosedForms(NamedTuple):
    """Closed forms of every member."""

    pi: Array  # [L, K, N, S, A]
    q: Array  # [L, K, N, S, A]


class EmpiricalForms(NamedTuple):
    """Errors of the closed forms on empirical MDPs."""

    distance: Array  # [L, K, N] total variation to one-step RL on the true MDP
    q_error: Array  # [L, K, N] relative error of Q
    to_one_step: float  # largest total variation of cross-entropy and Poisson at lambda = 1 to one-step RL on the same data

    def at(self, k: int) -> "EmpiricalForms":
        """Errors at one lambda, [L, N]."""
        return EmpiricalForms(self.distance[:, k], self.q_error[:, k], self.to_one_step)


def policy_distance(pi: Array, other: Array) -> Array:
    """Total variation, mean over states: [..., S, A] -> [...]; weights that do not sum to 1 are normalised."""
    return np.asarray(total_variation(pi / pi.sum(-1, keepdims=True), other).mean(-1))


def problem(seed: int) -> CriticProblem:
    """Slippery 5x5 grid with reward 0.05 everywhere and 1 more in the far corner, and a random behaviour policy with beta >= 0.02."""
    grid = one_step_grid(1)
    mdp = replace(grid, P=(1 - SLIP) * grid.P + SLIP * grid.P.mean(1, keepdims=True), R=grid.R + MIN_REWARD)
    beta = 0.9 * random_policy(mdp, np.random.default_rng(seed)) + 0.1 / mdp.A
    return CriticProblem(mdp, beta, float(value_of(mdp, beta).mean()), seed)


def closed_form(mdp: MDP, beta: Array, lam: float, name: str) -> tuple[Array, Array]:
    """Joint fixed point (pi, Q) [S, A] of a loss; Q is the level where pi > 0 and lower elsewhere."""
    if name != NORMALISED:
        solution, loss = joint_fixed_point(mdp, beta, lam, LOSSES[name], 1e-9), LOSSES[name]
    else:
        solution, loss = normalised_fixed_point(mdp, beta, lam), CROSS_ENTROPY
    clipped = loss.critic(solution.y, np.full_like(beta, -lam))  # where pi = 0 the penalty -lambda beta g(Q) remains
    alive = (beta > 0) & ~mdp.terminal[:, None]
    return solution.pi, np.where(solution.pi > 0, solution.level[:, None], np.where(alive, clipped, 0.0))


def normalised_fixed_point(mdp: MDP, beta: Array, lam: float) -> JointFixedPoint:
    """`joint_fixed_point` of cross-entropy with targets from sample weights y / (1 + y) and 1 / (1 + y)."""

    def sweep(y: Array) -> Array:
        return normalised_target(mdp, np.where(mdp.terminal, 0.0, water_fill(positive_targets(y), beta, lam, CROSS_ENTROPY, 50)[1]))

    def positive_targets(y: Array) -> Array:
        return np.where(mdp.terminal[:, None], 1.0, y)

    y = fixed_point(sweep, q_of(mdp, beta), mdp.gamma, 1e-9).x
    pi, level = water_fill(positive_targets(y), beta, lam, CROSS_ENTROPY)
    return JointFixedPoint(pi, np.where(mdp.terminal, 0.0, level), y, bool(((beta > 0) & (pi <= 0)).any()))


def from_rows(source: CriticProblem, rows: int, rng: np.random.Generator) -> tuple[MDP, Array]:
    """Empirical MDP and behaviour policy of `rows` rows per state, with actions from beta."""
    mdp = source.mdp
    data = sample_rows(mdp, rng, rows * mdp.S, source.beta)
    empirical = empirical_mdp(data, mdp.S, mdp.A, mdp.gamma, mdp.mu0)
    return empirical, behaviour(data, empirical.S, empirical.A)


def closed_forms(grid: CriticGrid) -> ClosedForms:
    """Closed forms of every member on the true MDPs."""
    both = np.array(
        [
            [[closed_form(p.mdp, p.beta, converted_lambda(name, k, p.mean), name) for p in grid.problems] for k in grid.lambdas]
            for name in grid.names
        ]
    )  # [L, K, N, 2, S, A]
    return ClosedForms(both[:, :, :, 0], both[:, :, :, 1])


def empirical_forms(grid: CriticGrid, lambdas: Array, rows: int, exact: Array) -> EmpiricalForms:
    """Closed forms on `rows` rows per state; exact [L, K, N, S, A] is Q of the true closed forms."""
    distance, q_error, to_one_step = np.empty(exact.shape[:3]), np.empty(exact.shape[:3]), 0.0
    for n, source in enumerate(grid.problems):
        S, target = source.mdp.S, one_step_policy(source.mdp, source.beta)
        empirical, beta = from_rows(source, rows, np.random.default_rng([rows, source.seed]))
        one_step = improve(beta[:S], q_of(empirical, beta)[:S])
        for j, name in enumerate(grid.names):
            for k, lam in enumerate(lambdas.tolist()):
                pi, q = closed_form(empirical, beta, converted_lambda(name, lam, source.mean), name)
                distance[j, k, n] = policy_distance(pi[:S], target)
                q_error[j, k, n] = np.sqrt((beta[:S] * (q[:S] - exact[j, k, n]) ** 2).sum(-1).mean()) / source.mean
                if lam == 1 and name in ("cross_entropy", "poisson"):
                    to_one_step = max(to_one_step, float(policy_distance(pi[:S], one_step)))
    return EmpiricalForms(distance, q_error, to_one_step)
