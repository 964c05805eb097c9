"""Effect of the weight lambda of critic regularisation with cross-entropy: from Q-learning over one-step RL to behaviour cloning.

Eysenbach et al. 2023, arXiv:2307.12968. Joint fixed point in closed form for lambda >= max (V^beta - Q^beta) / V^beta, which is < 1:

    Q = V^beta,  pi = beta (1 + A^beta / (lambda V^beta)),

Below this threshold some action of the data has pi = 0. beta [S, A] is the behaviour policy.
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
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment
from mbkit.theory.one_step_equivalence import EXACT, grid

LAMBDAS = np.logspace(-1, 1, 7)
TIES = 1e-9  # probabilities closer than this count as equal: the grid has actions of exactly the same value


class WeightPoint(NamedTuple):
    """One lambda on one problem."""

    same: float  # fraction of the states with the most likely actions of one-step RL
    value: float  # J of pi
    clipped: bool  # whether some action of the data has pi = 0
    critic: float  # max |y - Q^beta|: 0 where the critic evaluates exactly the behaviour policy
    policy: float  # max |pi - beta (1 + A / (lambda V))|; infinite where that has negative entries


class WeightResults(NamedTuple):
    """Grid and Garnets over lambda."""

    mdp: MDP  # the grid
    beta: Array  # [S, A] behaviour policy on the grid
    threshold: float  # on the grid
    points: list[WeightPoint]  # grid, by lambda
    published: list[tuple[int, float]]  # by lambda, results of `published_iteration`
    problems: list[tuple[MDP, Array]]  # Garnets, by seed
    thresholds: Array  # [seeds] on the Garnets
    garnets: list[list[WeightPoint]]  # [seeds][lambdas]

    def flat(self) -> list[tuple[float, float, WeightPoint]]:
        """Threshold, lambda and point of the grid and of every Garnet."""
        problems = zip([self.threshold, *self.thresholds.tolist()], [self.points, *self.garnets], strict=True)
        return [(threshold, lam, p) for threshold, each in problems for lam, p in zip(LAMBDAS.tolist(), each, strict=True)]

    def same(self) -> Array:
        """Fraction of the states with the argmax of one-step RL on the Garnets, [seeds, lambdas]."""
        return np.array([[p.same for p in each] for each in self.garnets])

    def gained(self) -> Array:
        """Normalised return on the Garnets, [seeds, lambdas]; 0: behaviour policy, 1: optimal policy."""
        value = np.array([[p.value for p in each] for each in self.garnets])
        return np.asarray((value - lowest(self.problems)) / (highest(self.problems) - lowest(self.problems)))


@experiment(
    "regularisation_weight",
    "The weight lambda takes critic regularisation from Q-learning over one-step RL to behaviour cloning",
    alias="d3",
)
def regularisation_weight(setting: Setting) -> Findings:
    """Seven published lambdas on the published grid and on Garnets, with the standard deviation over Garnets."""
    results = compare_weights(setting)
    figure = draw(results.points, results.published, results.threshold, results.same().mean(0))
    return Findings(
        [*claims_of_threshold(results), *claims_of_lambda(results)], [table_of_grid(results), table_of_garnets(results)], figure
    )


def compare_weights(setting: Setting) -> WeightResults:
    """Results for every lambda on the grid, also by the published iteration, and on Garnets."""
    mdp, beta = grid(1)
    problems = [problem(seed) for seed in range(setting.seed, setting.seed + setting.pick(20, 2))]
    return WeightResults(
        mdp=mdp,
        beta=beta,
        threshold=exactness_threshold(mdp, beta),
        points=[measure(mdp, beta, lam) for lam in LAMBDAS.tolist()],
        published=[published_iteration(mdp, beta, lam, setting.pick(10_000, 1500)) for lam in LAMBDAS.tolist()],
        problems=problems,
        thresholds=np.array([exactness_threshold(*each) for each in problems]),
        garnets=[[measure(*each, lam) for lam in LAMBDAS.tolist()] for each in problems],
    )


def claims_of_threshold(results: WeightResults) -> list[Claim]:
    """Claims above and below the threshold, and on its value."""
    above = [p for t, lam, p in results.flat() if lam >= t]
    below = [p for t, lam, p in results.flat() if lam < t]
    error, smallest = max(max(p.critic, p.policy) for p in above), min(p.critic for p in below)
    return [
        Claim(
            "above the threshold no action is clipped, the critic evaluates exactly Q^beta, and pi = beta (1 + A / (lambda V))",
            f"{len(above)} problems, largest error {error:.1e}",
            not any(p.clipped for p in above) and error <= EXACT,
        ),
        Claim(
            "below it an action of the data is clipped, and the critic does not evaluate beta",
            f"{len(below)} problems, |y - Q^beta| at least {smallest:.1e}",
            all(p.clipped for p in below) and smallest > EXACT,
        ),
        Claim(
            "the threshold is below 1",
            f"grid {results.threshold:.3f}, Garnets at most {results.thresholds.max():.3f}",
            max(results.threshold, *results.thresholds) < 1,
        ),
    ]


def claims_of_lambda(results: WeightResults) -> list[Claim]:
    """Claims on lambda = 1, on finite solutions, and on a uniform behaviour policy."""
    one = results.points[3]
    same = [measure(m, uniform_policy(m), 10.0).same for m, _ in [*results.problems, (results.mdp, results.beta)]]
    return [
        Claim("lambda = 1 is one-step RL", f"same argmax in {one.same:.0%} of the states", one.same == 1),
        Claim(
            "every lambda has a finite solution, also where the published iteration diverges",
            f"{sum(q < results.beta.size for q, _ in results.published)} of 7 runs of the iteration end with Q values that are not finite",
            all(np.isfinite(p[:2]).all() for _, _, p in results.flat()) and results.published[-1][0] < results.beta.size,
        ),
        Claim(
            "for a uniform behaviour policy every lambda above the threshold has the argmax of one-step RL",
            f"{min(same):.0%} at 10",
            min(same) == 1,
        ),
    ]


def table_of_grid(results: WeightResults) -> Table:
    """Table of the closed form and the published iteration on the grid."""
    return Table(
        f"Grid 1, threshold {results.threshold:.4f}",
        (
            "lambda",
            "same argmax",
            "return",
            "clipped",
            "largest y - Q^beta",
            "finite Q, published iteration",
            "same argmax, published iteration",
        ),
        [(lam, *p[:4], q, same) for lam, p, (q, same) in zip(LAMBDAS.tolist(), results.points, results.published, strict=True)],
    )


def table_of_garnets(results: WeightResults) -> Table:
    """Table of means and standard deviations over Garnets."""
    same, gained = results.same(), results.gained()
    rows = zip(LAMBDAS.tolist(), same.mean(0), same.std(0), gained.mean(0), gained.std(0), strict=True)
    return Table(
        f"{len(results.problems)} Garnets: same argmax, and normalised return (0: behaviour policy, 1: optimal policy)",
        ("lambda", "same argmax", "std", "return", "std of the return"),
        [tuple(map(float, row)) for row in rows],
    )


# --------------------------------------------------------------------------------------------------------------------- measures
def problem(seed: int) -> tuple[MDP, Array]:
    """Garnet with rewards in few states, so that V varies, and a random behaviour policy."""
    mdp = garnet(20, 4, 5, seed=seed, low=0.1, sparse=True)
    return mdp, random_policy(mdp, np.random.default_rng(seed))


def same_argmax(pi: Array, other: Array) -> float:
    """Fraction of the states with equal sets of most likely actions, including ties."""
    best, others = (p >= p.max(-1, keepdims=True) - TIES for p in (pi, other))
    return float((best == others).all(-1).mean())


def unclipped_policy(mdp: MDP, beta: Array, lam: float) -> Array:
    """Unclipped form beta (1 + A^beta / (lambda V^beta)), [S, A]; negative entries where actions are clipped."""
    q = q_of(mdp, beta)
    v = expectation(beta, q)[:, None]
    return np.asarray(beta * (1 + (q - v) / (lam * v)))


def measure(mdp: MDP, beta: Array, lam: float) -> WeightPoint:
    """Comparison of the joint fixed point with one-step RL."""
    solution, expected = joint_fixed_point(mdp, beta, lam), unclipped_policy(mdp, beta, lam)
    error = float(np.abs(solution.pi - expected).max()) if (expected >= 0).all() else np.inf
    critic = float(np.abs(solution.y - q_of(mdp, beta)).max())
    same = same_argmax(solution.pi, one_step_policy(mdp, beta))
    return WeightPoint(same, performance(mdp, solution.pi), solution.clipped, critic, error)


def published_iteration(mdp: MDP, beta: Array, lam: float, iterations: int) -> tuple[int, float]:
    """Number of finite Q values and fraction of equal argmax of the damped iteration, whose denominator may be <= 0."""
    run = protocol(mdp, beta, np.random.RandomState(0).normal(size=beta.shape), lam=lam)
    with np.errstate(all="ignore"):
        *_, (q, pi) = (each for _, each in zip(range(iterations), run, strict=False))
    return int(np.isfinite(q).sum()), float((pi.argmax(-1) == one_step_policy(mdp, beta).argmax(-1)).mean())


def lowest(problems: list[tuple[MDP, Array]]) -> Array:
    """Expected return J of the behaviour policy, [seeds, 1]."""
    return np.array([[performance(mdp, beta)] for mdp, beta in problems])


def highest(problems: list[tuple[MDP, Array]]) -> Array:
    """Expected return J of the optimal policy, [seeds, 1]."""
    return np.array([[performance(mdp, policy_iteration(mdp).pi)] for mdp, _ in problems])


def draw(points: list[WeightPoint], published: list[tuple[int, float]], threshold: float, garnets: Array) -> Figure:
    """Figure over lambda, with lambda = 1 and the threshold marked. Left: agreement. Right: return."""
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
