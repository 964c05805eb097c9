"""Losses of a regularised critic that are equivalent to one-step RL, and the distance of the other losses to it.

Eysenbach et al. 2023, arXiv:2307.12968, which leaves other losses open. At the joint fixed point of actor and critic, for any Bregman
loss and every lambda without clipped actions, the targets are Q^beta, and

    pi = beta (1 + A^beta / (lambda (V^beta)^k)),   k = 1 cross-entropy and Poisson, 0 halved MSE, 2 Itakura-Saito,

so that only k = 1 with lambda = 1 gives beta Q^beta / V^beta in every state.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mbkit.report.figure import MUTED, color, legend, panels
from mbkit.tabular.critic_losses import CROSS_ENTROPY, ITAKURA_SAITO, LOSSES, MSE, Loss
from mbkit.tabular.critic_regularisation import joint_fixed_point
from mbkit.tabular.mdp import MDP, Array
from mbkit.tabular.occupancy import total_variation
from mbkit.tabular.one_step import one_step_policy
from mbkit.tabular.operators import expectation, kl, performance, q_of
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment
from mbkit.theory.one_step_equivalence import EXACT, grid
from mbkit.theory.regularisation_weight import problem, same_argmax

POWER = {"cross_entropy": 1, "poisson": 1, "mse": 0, "itakura_saito": 2}  # power k of V in the joint fixed point; none for Huber
SCALE = 10.0  # factor of a change of the reward's unit
SOLVED = 1e-8  # tolerance after a change of unit for fixed points iterated to 1e-12


class LossPoint(NamedTuple):
    """Comparison of one loss and one lambda with one-step RL; means over the states."""

    same: float  # fraction of the states with the same most likely actions
    variation: float  # total variation
    divergence: float  # KL(pi || pi_1step)
    value: float  # J of pi
    clipped: bool  # whether some action of the data has pi = 0
    critic: float  # max |y - Q^beta|
    policy: float  # max |pi - beta (1 + A / (lambda V^k))|; NaN for Huber


class LossResults(NamedTuple):
    """Every loss over lambda on the grid, and the nearest lambda on Garnets."""

    mdp: MDP
    beta: Array  # [S, A]
    lambdas: list[float]
    points: dict[str, list[LossPoint]]  # by loss, then lambda
    limits: dict[str, float]  # by Bregman loss: smallest lambda without clipping
    garnets: list[tuple[str, float, float]]  # result of `nearest_on_garnets`

    @property
    def nearest(self) -> dict[str, tuple[float, float]]:
        """Smallest total variation to one-step RL of each loss, and its lambda."""
        return {name: min(zip((p.variation for p in each), self.lambdas, strict=True)) for name, each in self.points.items()}

    @property
    def one_step(self) -> float:
        """Expected return J of one-step RL."""
        return performance(self.mdp, one_step_policy(self.mdp, self.beta))


@experiment(
    "equivalent_losses",
    "Of the losses of a regularised critic only cross-entropy and Poisson, with lambda = 1, are one-step RL",
    alias="d2",
)
def equivalent_losses(setting: Setting) -> Findings:
    """Every loss over lambda on the published grid in closed form; the nearest lambda of each also on Garnets."""
    results = compare_losses(setting)
    return Findings(
        [*claims_of_losses(results), claim_of_units(results.mdp, results.beta)],
        tables(results),
        draw(results.lambdas, results.points, results.one_step),
    )


def compare_losses(setting: Setting) -> LossResults:
    """Comparison of all losses and lambdas, on the grid and on Garnets."""
    lambdas = (np.logspace(-2, 2, 25) if not setting.quick else np.logspace(-1, 1, 3)).tolist()
    coarse = [1.0] if setting.quick else np.logspace(-1, 1, 9).tolist()
    mdp, beta = grid(1)
    points = {name: [measure(mdp, beta, lam, loss) for lam in lambdas] for name, loss in LOSSES.items()}
    limits = {name: unclipped_from(mdp, beta, k) for name, k in POWER.items()}
    garnets = nearest_on_garnets(range(setting.seed, setting.seed + setting.pick(10, 1)), coarse)
    return LossResults(mdp, beta, lambdas, points, limits, garnets)


def claims_of_losses(results: LossResults) -> list[Claim]:
    """Claims on the losses that are one-step RL, and on those that are not."""
    points = results.points
    above = [p for name, limit in results.limits.items() for lam, p in zip(results.lambdas, points[name], strict=True) if lam >= limit]
    error = max(max(p.critic, p.policy) for p in above)
    difference = max(abs(a.variation - b.variation) for a, b in zip(points["cross_entropy"], points["poisson"], strict=True))
    equal = results.nearest["cross_entropy"][0]
    others = min(results.nearest[name][0] for name in ("mse", "huber", "itakura_saito"))
    huber = max(p.critic for p in points["huber"] if not p.clipped)
    return [
        Claim(
            "without clipping every Bregman loss evaluates exactly Q^beta, with the fixed point beta (1 + A / (lambda V^k))",
            f"{len(above)} cases, largest error {error:.1e}",
            not any(p.clipped for p in above) and error <= EXACT,
        ),
        Claim("Poisson and cross-entropy are the same for every lambda", f"largest difference {difference:.1e}", difference <= EXACT),
        Claim("both are one-step RL at lambda = 1", f"total variation {equal:.1e}", equal <= EXACT),
        Claim("no lambda makes squared error, Huber or Itakura-Saito one-step RL", f"total variation at least {others:.3f}", others > 1e-3),
        Claim("Huber does not evaluate Q^beta even without clipping", f"largest |y - Q^beta| {huber:.2f}", huber > 1e-3),
    ]


def claim_of_units(mdp: MDP, beta: Array) -> Claim:
    """Claim on the unit of lambda: rewards in another unit, with lambda converted and unchanged."""
    units = [unit_error(mdp, beta, CROSS_ENTROPY, 1), unit_error(mdp, beta, MSE, 0), unit_error(mdp, beta, ITAKURA_SAITO, 2)]
    unscaled = float(total_variation(joint_fixed_point(in_unit(mdp), beta, 1.0, MSE).pi, joint_fixed_point(mdp, beta, 1.0, MSE).pi).mean())
    return Claim(
        "lambda has no unit for cross-entropy, the unit of the reward for MSE, and its inverse for Itakura-Saito",
        f"rewards times {SCALE:g}, lambda converted: largest change {max(units):.1e}; MSE at unchanged lambda {unscaled:.2f}",
        max(units) <= SOLVED < unscaled,
    )


def tables(results: LossResults) -> list[Table]:
    """Tables of all points, of the nearest lambda of each loss, and of the nearest on Garnets."""
    points, middle = results.points, len(results.lambdas) // 2  # index of lambda = 1
    return [
        Table(
            f"Grid 1; one-step RL returns {results.one_step:.4f}",
            ("loss", "lambda", "same argmax", "total variation", "KL to one-step RL", "return", "clipped"),
            [(name, lam, *p[:5]) for name, each in points.items() for lam, p in zip(results.lambdas, each, strict=True)],
        ),
        Table(
            "The lambda nearest to one-step RL",
            ("loss", "k", "no clipping from lambda", "nearest lambda", "total variation", "total variation at 1"),
            [
                (name, POWER.get(name, "-"), results.limits.get(name, "-"), lam, tv, points[name][middle].variation)
                for name, (tv, lam) in results.nearest.items()
            ],
        ),
        Table(
            "Garnets with rewards in few states: smallest total variation over lambda",
            ("loss", "mean over Garnets", "std"),
            results.garnets,
        ),
    ]


# --------------------------------------------------------------------------------------------------------------------- measures
def unclipped_from(mdp: MDP, beta: Array, k: int) -> float:
    """Smallest lambda with beta (1 + A / (lambda V^k)) >= 0 on the data: max (V - Q) / V^k."""
    q = q_of(mdp, beta)
    v = expectation(beta, q)[:, None]
    return float(((v - q) / v**k)[beta > 0].max())


def unclipped_form(mdp: MDP, beta: Array, lam: float, k: int) -> Array:
    """Unclipped form beta (1 + A / (lambda V^k)), [S, A]; negative entries where actions are clipped."""
    q = q_of(mdp, beta)
    v = expectation(beta, q)[:, None]
    return np.asarray(beta * (1 + (q - v) / (lam * v**k)))


def measure(mdp: MDP, beta: Array, lam: float, loss: Loss) -> LossPoint:
    """Comparison of the joint fixed point of one loss with one-step RL."""
    solution, target = joint_fixed_point(mdp, beta, lam, loss), one_step_policy(mdp, beta)
    k = POWER.get(loss.name)
    policy = float("nan") if k is None else float(np.abs(solution.pi - unclipped_form(mdp, beta, lam, k)).max())
    return LossPoint(
        same_argmax(solution.pi, target),
        float(total_variation(solution.pi, target).mean()),
        float(kl(solution.pi, target).mean()),
        performance(mdp, solution.pi),
        solution.clipped,
        float(np.abs(solution.y - q_of(mdp, beta)).max()),
        policy,
    )


def in_unit(mdp: MDP) -> MDP:
    """MDP with the same rewards in another unit."""
    return replace(mdp, R=SCALE * mdp.R)


def unit_error(mdp: MDP, beta: Array, loss: Loss, k: int) -> float:
    """Change of pi at lambda = 1 if rewards are in another unit and lambda is multiplied by SCALE^(1 - k)."""
    before = joint_fixed_point(mdp, beta, 1.0, loss)
    after = joint_fixed_point(in_unit(mdp), beta, SCALE ** (1 - k), loss)
    return float(np.abs(after.pi - before.pi).max())


def nearest_on_garnets(seeds: range, lambdas: list[float]) -> list[tuple[str, float, float]]:
    """Smallest total variation to one-step RL over lambda for each loss, lambda in units of mean V^(1 - k)."""
    nearest: dict[str, list[float]] = {}
    for seed in seeds:
        mdp, beta = problem(seed)
        target = one_step_policy(mdp, beta)
        v = float(expectation(beta, q_of(mdp, beta)).mean())
        for name, loss in LOSSES.items():
            actors = [joint_fixed_point(mdp, beta, lam * v ** (1 - POWER.get(name, 0)), loss, 1e-9).pi for lam in lambdas]
            nearest.setdefault(name, []).append(min(float(total_variation(pi, target).mean()) for pi in actors))
    return [(name, float(np.mean(each)), float(np.std(each))) for name, each in nearest.items()]


def draw(lambdas: list[float], points: dict[str, list[LossPoint]], one_step: float) -> Figure:
    """Figure over lambda. Left: distance to one-step RL. Right: return."""
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
