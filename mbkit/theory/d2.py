"""From cross-entropy to squared error: which loss of a regularised critic is one-step RL, and how far the others are from it.

Eysenbach et al. 2023, arXiv:2307.12968, with its open question of other losses. Actor and critic at rest, for any Bregman loss and every
lambda that clips nothing: the targets are Q^beta, and

    pi = beta (1 + A^beta / (lambda (V^beta)^k)),   k = 1 cross-entropy and Poisson, 0 halved MSE, 2 Itakura-Saito,

so that k = 1 with lambda = 1 alone is beta Q^beta / V^beta in every state.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mbkit.report.figure import MUTED, color, legend, panels
from mbkit.tabular.critic_losses import CROSS_ENTROPY, ITAKURA_SAITO, LOSSES, MSE, Loss
from mbkit.tabular.critic_regularisation import Rest, joint_fixed_point
from mbkit.tabular.mdp import MDP, Array
from mbkit.tabular.occupancy import total_variation
from mbkit.tabular.one_step import one_step_policy
from mbkit.tabular.operators import expectation, kl, performance, q_of
from mbkit.theory.d1 import EXACT, grid
from mbkit.theory.d3 import problem, same_argmax
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment

POWER = {"cross_entropy": 1, "poisson": 1, "mse": 0, "itakura_saito": 2}  # k, of V in the joint fixed point; Huber has none
SCALE = 10.0  # other unit of reward
SOLVED = 1e-8  # what a fixed point iterated to 1e-12 may be off after a change of unit


class Point(NamedTuple):
    """One loss and one lambda against one-step RL; means over the states."""

    same: float  # fraction of the states with the same likeliest actions
    variation: float  # total variation
    divergence: float  # KL(pi || pi_1step)
    value: float  # J of pi
    clipped: bool  # some action of the data has pi = 0
    critic: float  # max |y - Q^beta|
    policy: float  # max |pi - beta (1 + A / (lambda V^k))|; NaN for Huber


class Measured(NamedTuple):
    """Every loss over lambda on the grid, the nearest on Garnets."""

    mdp: MDP
    beta: Array  # [S, A]
    lambdas: list[float]
    points: dict[str, list[Point]]  # by loss, then lambda
    limits: dict[str, float]  # by Bregman loss: lambda from which nothing is clipped
    garnets: list[tuple[str, float, float]]  # what `nearest_on_garnets` returns

    @property
    def nearest(self) -> dict[str, tuple[float, float]]:
        """(least total variation to one-step RL, its lambda) of each loss."""
        return {name: min(zip((p.variation for p in each), self.lambdas, strict=True)) for name, each in self.points.items()}

    @property
    def one_step(self) -> float:
        """J of one-step RL."""
        return performance(self.mdp, one_step_policy(self.mdp, self.beta))


@experiment("d2", "Among the losses of a regularised critic only cross-entropy and Poisson, with lambda = 1, are one-step RL")
def d2(setting: Setting) -> Findings:
    """Every loss over lambda on the published grid, by the closed form; the nearest lambda of each also on Garnets."""
    it = measure_all(setting)
    return Findings([*claims_of_losses(it), claim_of_units(it.mdp, it.beta)], tables(it), draw(it.lambdas, it.points, it.one_step))


def measure_all(setting: Setting) -> Measured:
    """All losses and lambdas, on the grid and on Garnets."""
    lambdas = (np.logspace(-2, 2, 25) if not setting.quick else np.logspace(-1, 1, 3)).tolist()
    coarse = [1.0] if setting.quick else np.logspace(-1, 1, 9).tolist()
    mdp, beta = grid(1)
    points = {name: [measure(mdp, beta, lam, loss) for lam in lambdas] for name, loss in LOSSES.items()}
    limits = {name: unclipped_from(mdp, beta, k) for name, k in POWER.items()}
    garnets = nearest_on_garnets(range(setting.seed, setting.seed + setting.pick(10, 1)), coarse)
    return Measured(mdp, beta, lambdas, points, limits, garnets)


def claims_of_losses(it: Measured) -> list[Claim]:
    """Which losses are one-step RL, and which are not."""
    points = it.points
    above = [p for name, limit in it.limits.items() for lam, p in zip(it.lambdas, points[name], strict=True) if lam >= limit]
    off = max(max(p.critic, p.policy) for p in above)
    twins = max(abs(a.variation - b.variation) for a, b in zip(points["cross_entropy"], points["poisson"], strict=True))
    equal = it.nearest["cross_entropy"][0]
    others = min(it.nearest[name][0] for name in ("mse", "huber", "itakura_saito"))
    huber = max(p.critic for p in points["huber"] if not p.clipped)
    return [
        Claim(
            "unclipped, every Bregman loss evaluates exactly Q^beta and rests at beta (1 + A / (lambda V^k))",
            f"{len(above)} cases, largest error {off:.1e}",
            not any(p.clipped for p in above) and off <= EXACT,
        ),
        Claim("Poisson and cross-entropy are the same for every lambda", f"largest difference {twins:.1e}", twins <= EXACT),
        Claim("both are one-step RL at lambda = 1", f"total variation {equal:.1e}", equal <= EXACT),
        Claim("no lambda makes squared error, Huber or Itakura-Saito one-step RL", f"total variation at least {others:.3f}", others > 1e-3),
        Claim("unclipped Huber does not evaluate Q^beta", f"y up to {huber:.2f} away from Q^beta", huber > 1e-3),
    ]


def claim_of_units(mdp: MDP, beta: Array) -> Claim:
    """Rewards in another unit, lambda along and unchanged."""
    units = [unit_error(mdp, beta, CROSS_ENTROPY, 1), unit_error(mdp, beta, MSE, 0), unit_error(mdp, beta, ITAKURA_SAITO, 2)]
    unscaled = float(total_variation(joint_fixed_point(in_unit(mdp), beta, 1.0, MSE).pi, joint_fixed_point(mdp, beta, 1.0, MSE).pi).mean())
    return Claim(
        "the lambda of cross-entropy has no unit, that of MSE the reward's, that of Itakura-Saito its inverse",
        f"rewards times {SCALE:g} and lambda along: largest change {max(units):.1e}; MSE at an unchanged lambda {unscaled:.2f}",
        max(units) <= SOLVED < unscaled,
    )


def tables(it: Measured) -> list[Table]:
    """All points, the nearest of each loss, the nearest on Garnets."""
    points, middle = it.points, len(it.lambdas) // 2  # where lambda = 1
    return [
        Table(
            f"Grid 1; one-step RL returns {it.one_step:.4f}",
            ("loss", "lambda", "same argmax", "total variation", "KL to one-step RL", "return", "clipped"),
            [(name, lam, *p[:5]) for name, each in points.items() for lam, p in zip(it.lambdas, each, strict=True)],
        ),
        Table(
            "The lambda nearest to one-step RL",
            ("loss", "k", "unclipped from lambda", "nearest lambda", "total variation", "total variation at 1"),
            [
                (name, POWER.get(name, "-"), it.limits.get(name, "-"), lam, tv, points[name][middle].variation)
                for name, (tv, lam) in it.nearest.items()
            ],
        ),
        Table(
            "The same on Garnets in which few states pay: least total variation over lambda",
            ("loss", "mean over Garnets", "std"),
            it.garnets,
        ),
    ]


# ---------------------------------------------------------------------------------------------------------------------- measures
def unclipped_from(mdp: MDP, beta: Array, k: int) -> float:
    """The smallest lambda with beta (1 + A / (lambda V^k)) >= 0 on the data: max (V - Q) / V^k."""
    q = q_of(mdp, beta)
    v = expectation(beta, q)[:, None]
    return float(((v - q) / v**k)[beta > 0].max())


def expected_rest(mdp: MDP, beta: Array, lam: float, k: int) -> Array:
    """beta (1 + A / (lambda V^k)), [S, A]; no policy where something is clipped."""
    q = q_of(mdp, beta)
    v = expectation(beta, q)[:, None]
    return np.asarray(beta * (1 + (q - v) / (lam * v**k)))


def measure(mdp: MDP, beta: Array, lam: float, loss: Loss) -> Point:
    """The joint fixed point of one loss against one-step RL."""
    rest, target = joint_fixed_point(mdp, beta, lam, loss), one_step_policy(mdp, beta)
    k = POWER.get(loss.name)
    policy = float("nan") if k is None else float(np.abs(rest.pi - expected_rest(mdp, beta, lam, k)).max())
    return Point(
        same_argmax(rest.pi, target),
        float(total_variation(rest.pi, target).mean()),
        float(kl(rest.pi, target).mean()),
        performance(mdp, rest.pi),
        rest.clipped,
        float(np.abs(rest.y - q_of(mdp, beta)).max()),
        policy,
    )


def in_unit(mdp: MDP) -> MDP:
    """The same rewards in another unit."""
    return replace(mdp, R=SCALE * mdp.R)


def unit_error(mdp: MDP, beta: Array, loss: Loss, k: int) -> float:
    """How much pi changes at lambda = 1 when rewards are in another unit and lambda goes along by SCALE^(1 - k)."""
    before: Rest = joint_fixed_point(mdp, beta, 1.0, loss)
    after = joint_fixed_point(in_unit(mdp), beta, SCALE ** (1 - k), loss)
    return float(np.abs(after.pi - before.pi).max())


def nearest_on_garnets(seeds: range, lambdas: list[float]) -> list[tuple[str, float, float]]:
    """For each loss the least total variation to one-step RL over lambda; lambda in the loss' own unit, mean V^(1 - k)."""
    found: dict[str, list[float]] = {}
    for seed in seeds:
        mdp, beta = problem(seed)
        target = one_step_policy(mdp, beta)
        v = float(expectation(beta, q_of(mdp, beta)).mean())
        for name, loss in LOSSES.items():
            actors = [joint_fixed_point(mdp, beta, lam * v ** (1 - POWER.get(name, 0)), loss, 1e-9).pi for lam in lambdas]
            found.setdefault(name, []).append(min(float(total_variation(pi, target).mean()) for pi in actors))
    return [(name, float(np.mean(each)), float(np.std(each))) for name, each in found.items()]


def draw(lambdas: list[float], points: dict[str, list[Point]], one_step: float) -> Figure:
    """Left: distance to one-step RL. Right: return."""
    figure, (left, right) = panels(("lambda", "total variation to one-step RL"), ("lambda", "return on the grid"))
    for n, (name, each) in enumerate(points.items()):
        style = "--" if name == "poisson" else "-"
        label = name.replace("_", "-")
        left.semilogx(lambdas, [p.variation for p in each], style, color=color(n), linewidth=1.7, label=label)
        right.semilogx(lambdas, [p.value for p in each], style, color=color(n), linewidth=1.7, label=label)
    right.axhline(one_step, color=MUTED, linewidth=0.8)
    right.text(lambdas[0], one_step, "one-step RL", color=MUTED, fontsize=8, va="bottom")
    for ax in (left, right):
        ax.axvline(1, color=MUTED, linewidth=0.8)
        ax.set_ylim(bottom=0)
    legend(right)
    return figure
