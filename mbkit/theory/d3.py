"""What the weight lambda of a cross-entropy critic's regulariser does: a dial from Q-learning over one-step RL to the data.

Eysenbach et al. 2023, arXiv:2307.12968. At rest, in closed form; with lambda >= max (V^beta - Q^beta) / V^beta, which is < 1,

    Q = V^beta,  pi = beta (1 + A^beta / (lambda V^beta)),

and below it some action of the data has pi = 0. beta [S, A] is the behaviour policy.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mbkit.report.figure import MUTED, color, legend, panels
from mbkit.tabular.critic_regularisation import exactness_threshold, joint_fixed_point, protocol
from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import MDP, Array, random_policy, uniform_policy
from mbkit.tabular.one_step import one_step_policy
from mbkit.tabular.operators import expectation, performance, q_of
from mbkit.tabular.planning import policy_iteration
from mbkit.theory.d1 import EXACT, grid
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment

LAMBDAS = np.logspace(-1, 1, 7)
TIES = 1e-9  # probabilities closer than this are equal: the grid has actions of exactly the same value


class Point(NamedTuple):
    """One lambda on one problem."""

    same: float  # fraction of the states where pi's likeliest actions are one-step RL's
    value: float  # J of pi
    clipped: bool  # some action of the data has pi = 0
    critic: float  # max |y - Q^beta|: 0 where the critic evaluates exactly the behaviour
    policy: float  # max |pi - beta (1 + A / (lambda V))|; infinite where that is no policy


class Measured(NamedTuple):
    """The grid and the Garnets, over lambda."""

    mdp: MDP  # the grid
    beta: Array  # [S, A]
    threshold: float
    points: list[Point]  # by lambda
    published: list[tuple[int, float]]  # by lambda, what `published_iteration` returns
    problems: list[tuple[MDP, Array]]  # Garnets, by seed
    thresholds: Array  # [seeds]
    many: list[list[Point]]  # [seeds][lambdas]

    def flat(self) -> list[tuple[float, float, Point]]:
        """(threshold, lambda, point) of the grid and of every Garnet."""
        every = zip([self.threshold, *self.thresholds.tolist()], [self.points, *self.many], strict=True)
        return [(threshold, lam, p) for threshold, each in every for lam, p in zip(LAMBDAS.tolist(), each, strict=True)]

    def same(self) -> Array:
        """Fraction of the states with one-step RL's argmax, Garnets, [seeds, lambdas]."""
        return np.array([[p.same for p in each] for each in self.many])

    def gained(self) -> Array:
        """Return on the Garnets, [seeds, lambdas]; 0: behaviour, 1: optimal."""
        value = np.array([[p.value for p in each] for each in self.many])
        return np.asarray((value - lowest(self.problems)) / (highest(self.problems) - lowest(self.problems)))


@experiment("d3", "The weight lambda turns critic regularisation from Q-learning over one-step RL into the data")
def d3(setting: Setting) -> Findings:
    """The published seven lambdas on the published grid, every one finite; the same on Garnets, whose spread is told."""
    it = measure_all(setting)
    figure = draw(it.points, it.published, it.threshold, it.same().mean(0))
    return Findings([*claims_of_threshold(it), *claims_of_lambda(it)], [table_of_grid(it), table_of_garnets(it)], figure)


def measure_all(setting: Setting) -> Measured:
    """Every lambda on the grid, by the published iteration too, and on Garnets."""
    mdp, beta = grid(1)
    problems = [problem(seed) for seed in range(setting.seed, setting.seed + setting.pick(20, 2))]
    return Measured(
        mdp=mdp,
        beta=beta,
        threshold=exactness_threshold(mdp, beta),
        points=[measure(mdp, beta, lam) for lam in LAMBDAS.tolist()],
        published=[published_iteration(mdp, beta, lam, setting.pick(10_000, 1500)) for lam in LAMBDAS.tolist()],
        problems=problems,
        thresholds=np.array([exactness_threshold(*each) for each in problems]),
        many=[[measure(*each, lam) for lam in LAMBDAS.tolist()] for each in problems],
    )


def claims_of_threshold(it: Measured) -> list[Claim]:
    """Above it, below it, and where it lies."""
    above = [p for t, lam, p in it.flat() if lam >= t]
    below = [p for t, lam, p in it.flat() if lam < t]
    astray, least = max(max(p.critic, p.policy) for p in above), min(p.critic for p in below)
    return [
        Claim(
            "above the threshold nothing is clipped, the critic evaluates exactly Q^beta and pi = beta (1 + A / (lambda V))",
            f"{len(above)} problems, largest error {astray:.1e}",
            not any(p.clipped for p in above) and astray <= EXACT,
        ),
        Claim(
            "below it an action of the data is dropped and the critic's value is no longer beta's",
            f"{len(below)} problems, |y - Q^beta| at least {least:.1e}",
            all(p.clipped for p in below) and least > EXACT,
        ),
        Claim(
            "the threshold is below 1",
            f"grid {it.threshold:.3f}, Garnets at most {it.thresholds.max():.3f}",
            max(it.threshold, *it.thresholds) < 1,
        ),
    ]


def claims_of_lambda(it: Measured) -> list[Claim]:
    """One-step RL at lambda = 1, a finite answer at every one, and a uniform behaviour."""
    one = it.points[3]
    even = [measure(m, uniform_policy(m), 10.0).same for m, _ in [*it.problems, (it.mdp, it.beta)]]
    return [
        Claim("lambda = 1 is one-step RL", f"same argmax in {one.same:.0%} of the states", one.same == 1),
        Claim(
            "every lambda has a finite answer, also those where the published iteration has none",
            f"{sum(q < it.beta.size for q, _ in it.published)} of 7 runs of the iteration end with Q that are not finite",
            all(np.isfinite(p[:2]).all() for _, _, p in it.flat()) and it.published[-1][0] < it.beta.size,
        ),
        Claim("with a uniform behaviour any lambda above the threshold has one-step RL's argmax", f"{min(even):.0%} at 10", min(even) == 1),
    ]


def table_of_grid(it: Measured) -> Table:
    """Closed form and published iteration."""
    return Table(
        f"Grid 1, threshold {it.threshold:.4f}",
        ("lambda", "same argmax", "return", "clipped", "largest y - Q^beta", "finite Q, published iteration", "its same argmax"),
        [(lam, *p[:4], q, same) for lam, p, (q, same) in zip(LAMBDAS.tolist(), it.points, it.published, strict=True)],
    )


def table_of_garnets(it: Measured) -> Table:
    """Means and standard deviations over seeds."""
    same, gained = it.same(), it.gained()
    rows = zip(LAMBDAS.tolist(), same.mean(0), same.std(0), gained.mean(0), gained.std(0), strict=True)
    return Table(
        f"{len(it.problems)} Garnets: same argmax, and the return between behaviour (0) and optimum (1)",
        ("lambda", "same argmax", "std", "return", "std of the return"),
        [tuple(map(float, row)) for row in rows],
    )


# ---------------------------------------------------------------------------------------------------------------------- measures
def problem(seed: int) -> tuple[MDP, Array]:
    """A Garnet in which few states pay, so that V differs, and a random behaviour policy."""
    mdp = garnet(20, 4, 5, seed=seed, low=0.1, sparse=True)
    return mdp, random_policy(mdp, np.random.default_rng(seed))


def same_argmax(pi: Array, other: Array) -> float:
    """Fraction of the states whose sets of likeliest actions are equal, ties counted as ties."""
    best, others = (p >= p.max(-1, keepdims=True) - TIES for p in (pi, other))
    return float((best == others).all(-1).mean())


def unclipped_policy(mdp: MDP, beta: Array, lam: float) -> Array:
    """beta (1 + A^beta / (lambda V^beta)), [S, A]; no policy where something is negative."""
    q = q_of(mdp, beta)
    v = expectation(beta, q)[:, None]
    return np.asarray(beta * (1 + (q - v) / (lam * v)))


def measure(mdp: MDP, beta: Array, lam: float) -> Point:
    """The joint fixed point against one-step RL."""
    rest, expected = joint_fixed_point(mdp, beta, lam), unclipped_policy(mdp, beta, lam)
    off = float(np.abs(rest.pi - expected).max()) if (expected >= 0).all() else np.inf
    critic = float(np.abs(rest.y - q_of(mdp, beta)).max())
    return Point(same_argmax(rest.pi, one_step_policy(mdp, beta)), performance(mdp, rest.pi), rest.clipped, critic, off)


def published_iteration(mdp: MDP, beta: Array, lam: float, iterations: int) -> tuple[int, float]:
    """(finite entries of Q, same argmax by the lowest index) of the damped iteration, whose denominator may be 0 or negative."""
    run = protocol(mdp, beta, np.random.RandomState(0).normal(size=beta.shape), lam=lam)
    with np.errstate(all="ignore"):
        *_, (q, pi) = (each for _, each in zip(range(iterations), run, strict=False))
    return int(np.isfinite(q).sum()), float((pi.argmax(-1) == one_step_policy(mdp, beta).argmax(-1)).mean())


def lowest(problems: list[tuple[MDP, Array]]) -> Array:
    """J of the behaviour, [seeds, 1]."""
    return np.array([[performance(mdp, beta)] for mdp, beta in problems])


def highest(problems: list[tuple[MDP, Array]]) -> Array:
    """J of the optimal policy, [seeds, 1]."""
    return np.array([[performance(mdp, policy_iteration(mdp).pi)] for mdp, _ in problems])


def draw(points: list[Point], published: list[tuple[int, float]], threshold: float, garnets: Array) -> Figure:
    """Left: agreement. Right: return. Both over lambda, with lambda = 1 and the threshold marked."""
    figure, (left, right) = panels(("lambda", "same argmax as one-step RL"), ("lambda", "return on the grid"))
    left.semilogx(LAMBDAS, [p.same for p in points], "o-", color=color(0), label="grid")
    left.semilogx(LAMBDAS, garnets, "s--", color=color(2), markersize=4, label="Garnets")
    left.semilogx(LAMBDAS, [same for _, same in published], "x:", color=color(1), label="grid, published iteration")
    right.semilogx(LAMBDAS, [p.value for p in points], "o-", color=color(0))
    right.set_ylim(0, 1.2 * points[0].value)
    left.set_ylim(0.3, 1.04)
    for ax in (left, right):
        ax.axvline(1, color=MUTED, linewidth=0.8)
        ax.axvline(threshold, color=MUTED, linewidth=0.8, linestyle="--")
    top = right.get_ylim()[1]
    right.text(1.06, 0.98 * top, "lambda = 1:\none-step RL", color=MUTED, fontsize=8, va="top")
    right.text(threshold * 0.94, 0.98 * top, "threshold:\nexact above", color=MUTED, fontsize=8, va="top", ha="right")
    legend(left, above=True)
    return figure
