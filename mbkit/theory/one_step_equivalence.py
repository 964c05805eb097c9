"""Equality of critic regularisation with lambda = 1 and one-step RL, of all iterates for a fixed actor and of the fixed points.

Eysenbach et al. 2023, arXiv:2307.12968. beta [S, A] behaviour policy, pi [S, A] actor, Q^beta_t the iterates of beta's evaluation:

    Q_t = Q^beta_t beta / pi  for every t,  and  pi' proportional to pi Q  is  beta Q^beta / V^beta  for the converged critic.
"""

import math
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mbkit.report.figure import INK, MUTED, color, panels, steps_axis
from mbkit.tabular.critic_losses import CROSS_ENTROPY
from mbkit.tabular.critic_regularisation import critic, fixed_policy_iterates, multiplicative_actor, protocol
from mbkit.tabular.environments import garnet, grid_episodes, one_step_grid
from mbkit.tabular.mdp import MDP, Array, random_policy
from mbkit.tabular.offline import behaviour, fitted_q_iteration
from mbkit.tabular.one_step import one_step_policy
from mbkit.tabular.operators import backup, bellman_q, expectation, greedy, performance
from mbkit.tabular.planning import policy_iteration
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment

PUBLISHED = {0: 1.0262, 1000: 0.7511, 10_000: 0.1497}  # ||pi_CR - pi_1step||_2 of the published run, by iteration
RATES = {1: 1e-4, 2: 1e-3, 3: 1e-3}  # rates of the damped actor on the three grids
EXACT = 1e-10  # tolerance for rounding errors


class Deviations(NamedTuple):
    """Largest deviations from one-step RL; the first three must vanish, the last two refute common claims."""

    iterates: float  # fixed actor: Q_t and Q^beta_t beta / pi over all t, relative
    one_step: float  # one multiplicative actor update after that, and beta Q^beta / V^beta
    fixed_point: float  # actor updated after every backup: its fixed point, and the same policy
    moving: float  # actor updated after every backup: Q_t and Q^beta_t beta / pi_t after ten backups, relative
    normalised: float  # fixed actor, weights y / (1 + y) and 1 / (1 + y): the converged critic, relative


class EquivalenceResults(NamedTuple):
    """Deviations on Garnets and grids, and published runs on the grids."""

    garnets: Array  # [seeds, 5] `Deviations`
    grids: Array  # [3, 5] `Deviations`
    traces: Array  # [Q_0, t] norm of pi_CR - pi_1step on grid 1
    actors: dict[int, Array]  # last actor [S, A] of the published run by grid, Q_0 of seed 0


@experiment("one_step_equivalence", "With lambda = 1, critic regularisation and one-step RL are exactly equal", alias="d1")
def one_step_equivalence(setting: Setting) -> Findings:
    """Exact deviations on Garnets and grids, then the published run with its damped actor on the grids."""
    results = measure(setting)
    tables = [
        table_of_deviations(results),
        table_of_trace(results.traces),
        Table("Return from the initial state", ("policy", "grid 1", "grid 2", "grid 3"), returns(results.actors)),
    ]
    return Findings([*claims_of_equivalence(results), claim_of_trace(results)], tables, draw(results.actors[1], results.traces[0]))


def measure(setting: Setting) -> EquivalenceResults:
    """Deviations and published runs; the published Q_0 is that of seed 0."""
    seeds = range(setting.seed, setting.seed + setting.pick(50, 10))
    iterations = setting.pick(40_000, 10_000)
    runs = [published_run(1, iterations, seed) for seed in range(setting.pick(5, 1))]
    return EquivalenceResults(
        garnets=np.array([exact_deviations(*random_problem(seed), seed) for seed in seeds]),
        grids=np.array([exact_deviations(*grid(k), setting.seed) for k in (1, 2, 3)]),
        traces=np.stack([run.trace for run in runs]),
        actors={1: runs[0].pi, 2: published_run(2, 10_000).pi, 3: published_run(3, 10_000).pi},
    )


def claims_of_equivalence(results: EquivalenceResults) -> list[Claim]:
    """Claims on the deviations that vanish and on those that do not."""
    fixed, stepped, converged, *_ = np.maximum(results.garnets.max(0), results.grids.max(0)).tolist()
    moving = float(results.garnets[:, 3].min())
    deterministic, stochastic = float(results.grids[:, 4].max()), float(results.garnets[:, 4].min())
    return [
        Claim("fixed actor: Q_t = Q^beta_t beta / pi for every t", f"largest relative error {fixed:.1e}", fixed <= EXACT),
        Claim("one multiplicative actor update gives beta Q^beta / V^beta", f"largest error {stepped:.1e}", stepped <= EXACT),
        Claim("an actor updated after every backup has the same fixed point", f"largest error {converged:.1e}", converged <= EXACT),
        Claim("its earlier iterates differ", f"relative error at least {moving:.2g} after ten backups on every Garnet", moving > 1e-3),
        Claim(
            "normalised weights preserve the equality only for deterministic dynamics",
            f"relative error at most {deterministic:.1e} on the grids, at least {stochastic:.2g} on every Garnet",
            deterministic <= EXACT < 1e-3 < stochastic,
        ),
    ]


def claim_of_trace(results: EquivalenceResults) -> Claim:
    """Claim on the published trace."""
    error = max(abs(float(results.traces[0, t]) - value) for t, value in PUBLISHED.items())
    return Claim("the published trace is reproduced to four decimals", f"largest difference {error:.1e}", error <= 0.5e-4)


def table_of_deviations(results: EquivalenceResults) -> Table:
    """Table of the `Deviations`."""
    n = len(results.garnets)
    rows = [(f"{n} Garnets, largest", *results.garnets.max(0).tolist()), (f"{n} Garnets, mean", *results.garnets.mean(0).tolist())]
    rows += [(f"grid {k + 1}", *row.tolist()) for k, row in enumerate(results.grids)]
    columns = (
        "problem",
        "iterates, fixed actor",
        "one actor update",
        "fixed point, moving actor",
        "10 backups, moving actor",
        "normalised weights",
    )
    return Table("Largest deviation from one-step RL", columns, rows)


def table_of_trace(traces: Array) -> Table:
    """Table of the published run, from traces [Q_0, t]."""
    marks = [t for t in (0, 1000, 5000, 10_000, 20_000, 30_000, 40_000) if t < traces.shape[1]]
    rows = [(t, PUBLISHED.get(t, "-"), *(float(x[t]) for x in (traces[0], traces.min(0), traces.max(0)))) for t in marks]
    columns = ("iteration", "published", "Q_0 of seed 0", "smallest over Q_0", "largest over Q_0")
    return Table("Published run, norm of pi_CR - pi_1step", columns, rows)


# ------------------------------------------------------------------------------------------------------------------------ exact
def random_problem(seed: int) -> tuple[MDP, Array]:
    """Garnet with rewards >= 0.1 and a random behaviour policy."""
    mdp = garnet(20, 4, 5, seed=seed, low=0.1)
    return mdp, random_policy(mdp, np.random.default_rng(seed))


def grid(number: int) -> tuple[MDP, Array]:
    """Grid of the paper and the behaviour policy of its data set, uniform where there are no data."""
    mdp = one_step_grid(number)
    return mdp, behaviour(grid_episodes(number), mdp.S, mdp.A)


def exact_deviations(mdp: MDP, beta: Array, seed: int) -> Deviations:
    """Deviations after backups until gamma^t <= 1e-16, from Q^beta_0 ~ U(0.1, 5) and Q_0 = Q^beta_0 beta / pi, pi random."""
    rng = np.random.default_rng(seed)
    sweeps = math.ceil(math.log(1e-16) / math.log(mdp.gamma))
    pi, start = random_policy(mdp, rng), rng.uniform(0.1, 5.0, beta.shape)
    target, q_beta, q0 = one_step_policy(mdp, beta), start, start * beta / pi
    fixed, normalised = (fixed_policy_iterates(mdp, beta, pi, 1.0, q0, normalized=flag) for flag in (False, True))
    actor, critic_q, iterates, moving = pi, q0, 0.0, 0.0
    for t in range(sweeps):
        q_beta, q, q_normalised = bellman_q(mdp, beta, q_beta), next(fixed), next(normalised)
        iterates = max(iterates, relative(q, q_beta * beta / pi))
        actor = multiplicative_actor(actor, critic_q)
        critic_q = critic(backup(mdp, expectation(actor, critic_q)), beta, actor, 1.0, CROSS_ENTROPY)
        moving = relative(critic_q, q_beta * beta / np.where(actor > 0, actor, 1.0)) if t == 9 else moving
    one_step = float(np.abs(multiplicative_actor(pi, q) - target).max())
    return Deviations(iterates, one_step, float(np.abs(actor - target).max()), moving, relative(q_normalised, q))


def relative(x: Array, y: Array) -> float:
    """Largest relative error |x - y| / y where y is not 0."""
    positive = y > 0
    return float(np.abs(x[positive] / y[positive] - 1).max())


# ---------------------------------------------------------------------------------------------------------------- published run
class ProtocolRun(NamedTuple):
    """Result of the published protocol."""

    pi: Array  # [S, A] last actor
    trace: Array  # [iterations + 1] norm of pi - pi_1step


def published_run(number: int, iterations: int, seed: int = 0) -> ProtocolRun:
    """Published protocol with lambda = 1, a uniform actor and Q_0 ~ N(0, 1) of RandomState(seed); iteration t is after t + 1 updates."""
    mdp, beta = grid(number)
    target, trace = one_step_policy(mdp, beta), np.empty(iterations + 1)
    q0 = np.random.RandomState(seed).normal(size=beta.shape)
    for t, (_, pi) in zip(range(iterations + 1), protocol(mdp, beta, q0, RATES[number]), strict=False):
        trace[t] = np.linalg.norm(pi - target)
    return ProtocolRun(pi, trace)


def returns(regularised: dict[int, Array]) -> list[tuple[str, float, float, float]]:
    """Table rows of J on the three grids, a row for each policy."""
    rows: dict[str, list[float]] = {}
    for number, actor in regularised.items():
        mdp, beta = grid(number)
        data_only = greedy(fitted_q_iteration(grid_episodes(number), mdp.S, mdp.A, mdp.gamma, 600))
        policies = {"one-step RL": one_step_policy(mdp, beta), "critic regularisation": actor, "Q-learning on the data": data_only}
        for name, pi in {**policies, "behaviour policy": beta, "optimal": policy_iteration(mdp).pi}.items():
            rows.setdefault(name, []).append(performance(mdp, pi))
    return [(name, j[0], j[1], j[2]) for name, j in rows.items()]


def draw(actor: Array, trace: Array) -> Figure:
    """Figure. Left: action probabilities of the policies. Right: the trace and the published points."""
    mdp, beta = grid(1)
    target = one_step_policy(mdp, beta)
    data_only = greedy(fitted_q_iteration(grid_episodes(1), mdp.S, mdp.A, mdp.gamma, 600))
    figure, (left, right) = panels(
        ("action probability, one-step RL", "action probability, other policy"), ("iteration", "distance to one-step RL")
    )
    left.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8)
    left.plot(target.ravel(), data_only.ravel(), "x", color=color(1), markersize=4, label="Q-learning")
    left.plot(target.ravel(), actor.ravel(), "o", color=color(0), markersize=4, label="critic regularisation")
    right.semilogy(trace, color=color(0), linewidth=1.9, label="measured")
    right.plot(list(PUBLISHED), list(PUBLISHED.values()), "o", color=color(1), markersize=5, label="published", zorder=4)
    steps_axis(right)
    for ax in (left, right):
        ax.legend(frameon=False, labelcolor=INK, fontsize=8.5)
    return figure
