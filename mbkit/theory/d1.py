"""With lambda = 1 a regularised critic and one-step RL are the same thing: iterate by iterate for a fixed actor, and at rest.

Eysenbach et al. 2023, arXiv:2307.12968. beta [S, A] behaviour, pi [S, A] actor, Q^beta_t the iterates of beta's evaluation:

    Q_t = Q^beta_t beta / pi  for every t,  and  pi' proportional to pi Q  is  beta Q^beta / V^beta  once the critic has converged.
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
STEP = {1: 1e-4, 2: 1e-3, 3: 1e-3}  # of the damped actor on the three grids
EXACT = 1e-10  # what rounding may add up to


class Errors(NamedTuple):
    """Largest deviations from one-step RL; the first three must vanish, the others are what is often claimed to."""

    iterates: float  # actor held: Q_t against Q^beta_t beta / pi over all t, relative
    one_step: float  # then one multiplicative actor step, against beta Q^beta / V^beta
    rest: float  # actor moved after every backup: where it comes to rest, against the same policy
    moving: float  # the same, on the way: Q_t against Q^beta_t beta / pi_t after ten backups, relative
    normalised: float  # actor held, weights y / (1 + y) and 1 / (1 + y): the converged critic, relative


@experiment("d1", "With lambda = 1, critic regularisation and one-step RL are exactly equal")
def d1(setting: Setting) -> Findings:
    """Exactly on Garnets and grids; then the published run, with its damped actor, on its grids."""
    seeds = range(setting.seed, setting.seed + setting.pick(50, 10))
    stochastic = np.array([exact_errors(*random_problem(seed), seed) for seed in seeds])  # [seeds, 5]
    grids = np.array([exact_errors(*grid(k), setting.seed) for k in (1, 2, 3)])
    held, stepped, rested, *_ = np.maximum(stochastic.max(0), grids.max(0)).tolist()
    astray = float(stochastic[:, 3].min())
    deterministic, drift = float(grids[:, 4].max()), float(stochastic[:, 4].min())
    rows = [(f"{len(seeds)} Garnets, largest", *stochastic.max(0).tolist()), (f"{len(seeds)} Garnets, mean", *stochastic.mean(0).tolist())]
    rows += [(f"grid {k + 1}", *row.tolist()) for k, row in enumerate(grids)]
    columns = (
        "problem",
        "iterates, actor held",
        "one actor step",
        "at rest, actor moving",
        "10 backups, actor moving",
        "normalised weights",
    )
    iterations = setting.pick(40_000, 10_000)
    runs = [published_run(1, iterations, seed) for seed in range(setting.pick(5, 1))]  # the published Q_0 is that of seed 0
    last = {1: runs[0].pi, 2: published_run(2, 10_000).pi, 3: published_run(3, 10_000).pi}
    off = max(abs(float(runs[0].trace[t]) - there) for t, there in PUBLISHED.items())
    marks = [t for t in (0, 1000, 5000, 10_000, 20_000, 30_000, 40_000) if t <= iterations]
    traces = np.stack([run.trace for run in runs])  # [Q_0, t]
    trace_rows = [(t, PUBLISHED.get(t, "-"), *(float(x[t]) for x in (traces[0], traces.min(0), traces.max(0)))) for t in marks]
    claims = [
        Claim("actor held: Q_t = Q^beta_t beta / pi for every t", f"largest relative error {held:.1e}", held <= EXACT),
        Claim("one multiplicative actor step gives beta Q^beta / V^beta", f"largest error {stepped:.1e}", stepped <= EXACT),
        Claim("an actor that moves after every backup rests there too", f"largest error {rested:.1e}", rested <= EXACT),
        Claim("its iterates on the way are others", f"after ten backups {astray:.2g} or more away on every Garnet", astray > 1e-3),
        Claim(
            "normalised weights keep the equality where the dynamics are deterministic, and only there",
            f"relative error at most {deterministic:.1e} on the grids, at least {drift:.2g} on every Garnet",
            deterministic <= EXACT < 1e-3 < drift,
        ),
        Claim("the published trace is met to four decimals", f"largest difference {off:.1e}", off <= 0.5e-4),
    ]
    trace_columns = ("iteration", "published", "Q_0 of seed 0", "least over Q_0", "most over Q_0")
    tables = [
        Table("Largest deviation from one-step RL", columns, rows),
        Table("Published run, norm of pi_CR - pi_1step", trace_columns, trace_rows),
        Table("Return from the first state", ("policy", "grid 1", "grid 2", "grid 3"), returns(last)),
    ]
    return Findings(claims, tables, draw(last[1], traces[0]))


# ------------------------------------------------------------------------------------------------------------------------ exact
def random_problem(seed: int) -> tuple[MDP, Array]:
    """A Garnet that pays at least 0.1 everywhere and a random behaviour policy."""
    mdp = garnet(20, 4, 5, seed=seed, low=0.1)
    return mdp, random_policy(mdp, np.random.default_rng(seed))


def grid(number: int) -> tuple[MDP, Array]:
    """A grid of the paper and the behaviour policy of its data; uniform where there are none."""
    mdp = one_step_grid(number)
    return mdp, behaviour(grid_episodes(number), mdp.S, mdp.A)


def exact_errors(mdp: MDP, beta: Array, seed: int) -> Errors:
    """Run the critic until gamma^t <= 1e-16, from Q^beta_0 ~ U(0.1, 5) and Q_0 = Q^beta_0 beta / pi, pi random."""
    rng = np.random.default_rng(seed)
    sweeps = math.ceil(math.log(1e-16) / math.log(mdp.gamma))
    pi, start = random_policy(mdp, rng), rng.uniform(0.1, 5.0, beta.shape)
    target, q_beta, q0 = one_step_policy(mdp, beta), start, start * beta / pi
    held, normalised = (fixed_policy_iterates(mdp, beta, pi, 1.0, q0, normalized=flag) for flag in (False, True))
    moved, q_moved, iterates, moving = pi, q0, 0.0, 0.0
    for t in range(sweeps):
        q_beta, q, q_normalised = bellman_q(mdp, beta, q_beta), next(held), next(normalised)
        iterates = max(iterates, relative(q, q_beta * beta / pi))
        moved = multiplicative_actor(moved, q_moved)
        q_moved = critic(backup(mdp, expectation(moved, q_moved)), beta, moved, 1.0, CROSS_ENTROPY)
        moving = relative(q_moved, q_beta * beta / np.where(moved > 0, moved, 1.0)) if t == 9 else moving
    one_step = float(np.abs(multiplicative_actor(pi, q) - target).max())
    return Errors(iterates, one_step, float(np.abs(moved - target).max()), moving, relative(q_normalised, q))


def relative(x: Array, y: Array) -> float:
    """max |x - y| / y where y is not 0."""
    there = y > 0
    return float(np.abs(x[there] / y[there] - 1).max())


# ---------------------------------------------------------------------------------------------------------------- published run
class Run(NamedTuple):
    """What the published protocol leaves."""

    pi: Array  # [S, A] the last actor
    trace: Array  # [iterations + 1] norm of pi - pi_1step


def published_run(number: int, iterations: int, seed: int = 0) -> Run:
    """lambda = 1 from the uniform actor and Q_0 ~ N(0, 1) of RandomState(seed); iteration t is seen after t + 1 updates, as published."""
    mdp, beta = grid(number)
    target, trace = one_step_policy(mdp, beta), np.empty(iterations + 1)
    q0 = np.random.RandomState(seed).normal(size=beta.shape)
    for t, (_, pi) in zip(range(iterations + 1), protocol(mdp, beta, q0, STEP[number]), strict=False):
        trace[t] = np.linalg.norm(pi - target)
    return Run(pi, trace)


def returns(regularised: dict[int, Array]) -> list[tuple[str, float, float, float]]:
    """J on the three grids, a row for each policy."""
    rows: dict[str, list[float]] = {}
    for number, actor in regularised.items():
        mdp, beta = grid(number)
        data_only = greedy(fitted_q_iteration(grid_episodes(number), mdp.S, mdp.A, mdp.gamma, 600))
        found = {"one-step RL": one_step_policy(mdp, beta), "critic regularisation": actor, "Q-learning on the data": data_only}
        for name, pi in {**found, "behaviour": beta, "optimal": policy_iteration(mdp).pi}.items():
            rows.setdefault(name, []).append(performance(mdp, pi))
    return [(name, j[0], j[1], j[2]) for name, j in rows.items()]


def draw(actor: Array, trace: Array) -> Figure:
    """Left: the policies against each other. Right: the trace, and the published points."""
    mdp, beta = grid(1)
    target = one_step_policy(mdp, beta)
    data_only = greedy(fitted_q_iteration(grid_episodes(1), mdp.S, mdp.A, mdp.gamma, 600))
    figure, (left, right) = panels(
        ("one-step RL, probability of an action", "the other policy's"), ("iteration", "distance to one-step RL")
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
