"""Cost of a temperature: regret of a softmax policy, distance of soft to hard values, entropy and KL. V [S], Q [S, A], alpha > 0.

The bounds are the corrected ones (`mbkit.tabular.bounds`); a formula that is often given for the loss is refuted.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mbkit.report.figure import INK, MUTED, color, panels
from mbkit.tabular.bounds import softmax_regret
from mbkit.tabular.environments import exit_or_loop, garnet, soft_trap
from mbkit.tabular.mdp import MDP, Array, uniform_policy
from mbkit.tabular.operators import expectation, kl_optimality_q, optimality_q, q_of, soft_optimality_q, softmax
from mbkit.tabular.planning import fixed_point, policy_iteration, soft_policy_iteration
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment

SUPREMA = {2: 0.2785, 3: 0.4631, 4: 0.6035}  # suprema of regret / alpha, by number of actions
COLUMNS = ("KL: min T*Q - Q", "max", "entropy: min T*Q - Q", "max", "loss of the soft policy")
WARM = 0.1  # temperatures from here on are of the order of the gaps between actions
ROUNDING = 1e-9
GAPS = np.linspace(0.0, 8.0, 1601)  # gaps of the best action, in units of the temperature
WEIGHTS = np.logspace(-3, 1, 33)  # temperatures in the MDP with a terminal state


class TemperatureResults(NamedTuple):
    """Regrets, residuals and losses, in units of the temperature."""

    gamma: float  # discount of the Garnets
    A: int  # number of actions of the Garnets
    regrets: dict[int, Array]  # number of actions -> regret at every `GAPS`
    alphas: Array  # temperatures on Garnets
    swept: Array  # [Garnets, alphas, 5] results of `sweep`
    traps: dict[float, float]  # gamma -> loss on `soft_trap`
    exits: Array  # [temperatures, 2] pi(loop) of both forms at `WEIGHTS` and at 2


@experiment(
    "temperature", "A temperature costs a constant times alpha in one step and times alpha / (1 - gamma) in total, and entropy is not KL"
)
def temperature(setting: Setting) -> Findings:
    """Suprema of the regret; residuals and losses of soft optima over temperatures on Garnets, `soft_trap` and `exit_or_loop`."""
    alphas = np.logspace(-3, 1, setting.pick(17, 5))
    mdps = [garnet(seed=s) for s in range(setting.seed, setting.seed + setting.pick(20, 3))]
    results = TemperatureResults(
        mdps[0].gamma,
        mdps[0].A,
        {a: regret(GAPS, a) for a in SUPREMA},
        alphas,
        np.array([[sweep(mdp, float(alpha)) for alpha in alphas] for mdp in mdps]) / alphas[:, None],
        {g: trap(g) for g in (0.9, 0.99, 0.999)},
        np.array([exits_of(float(alpha)) for alpha in WEIGHTS] + [exits_of(2.0)]),
    )
    claims = [regret_claim(results.regrets), *bound_claims(results), *example_claims(results.traps, results.exits[-1])]
    return Findings(claims, tables_of(results), draw(results))


def tables_of(results: TemperatureResults) -> list[Table]:
    """Tables of regrets, of Garnets over the temperature, and of the two examples."""
    regrets = [(a, float(r.max()), softmax_regret(a, 1.0), (a - 1) / np.e, float(np.log(a))) for a, r in results.regrets.items()]
    means, std = results.swept.mean(0), results.swept[..., 4].std(0)
    garnets = [(float(a), *map(float, row), float(s)) for a, row, s in zip(results.alphas, means, std, strict=True)]
    traps = [(g, loss, 2 / np.e, float(g * np.log(3) / (1 - g))) for g, loss in results.traps.items()]
    return [
        Table("Supremum of the regret of a softmax / alpha", ("A", "grid", "W((A - 1) / e)", "(A - 1) / e", "ln A"), regrets),
        Table("Garnets, in units of alpha, means (and std of the loss)", ("alpha", *COLUMNS, "std"), garnets),
        Table("Loss on soft_trap / alpha", ("gamma", "loss", "(A - 1) / e (incorrect)", "gamma ln A / (1 - gamma)"), traps),
        Table("pi(loop) in exit_or_loop, alpha = 2", ("entropy", "KL to uniform"), [tuple(map(float, results.exits[-1]))]),
    ]


def draw(results: TemperatureResults) -> Figure:
    """Figure of regrets over the gap, losses over the temperature, and pi(loop) over the temperature."""
    gamma, A = results.gamma, results.A
    figure, (left, middle, right) = panels(
        ("gap of the best action / alpha", "regret / alpha"), ("alpha", "loss / alpha"), ("alpha", "pi(loop)")
    )
    for i, (a, curve) in enumerate(results.regrets.items()):
        left.plot(GAPS, curve, color=color(i), label=f"A = {a}")
        left.axhline(softmax_regret(a, 1.0), color=color(i), ls="--", lw=1.0)
    middle.loglog(results.alphas, results.swept[..., 4].mean(0), "o-", ms=3.5, color=color(0), label="Garnets, mean")
    middle.axhline(gamma * np.log(A) / (1 - gamma), color=color(0), ls="--", lw=1.2, label="their bound")
    middle.axhline((A - 1) / np.e, color=MUTED, ls=":", lw=1.4, label="(A - 1) / e, incorrect")
    middle.axhline(results.traps[0.99], color=color(1), lw=1.6, label="soft_trap, gamma 0.99")
    middle.axhline(0.99 * np.log(3) / 0.01, color=color(1), ls="--", lw=1.2, label="its bound")
    middle.set_ylim(1e-3, 1e3)
    for i, name in enumerate(("entropy", "KL to uniform")):
        right.semilogx(WEIGHTS, results.exits[:-1, i], color=color(i), label=name)
    left.set_ylim(0, 0.8)
    right.set_ylim(0, 1)
    for ax in (left, middle, right):
        ax.legend(frameon=False, labelcolor=INK, fontsize=7.5)
    return figure


# ----------------------------------------------------------------------------------------------------------------------- claims
def regret_claim(regrets: dict[int, Array]) -> Claim:
    """Claim on the regret of one step."""
    return Claim(
        "the regret of a softmax policy is at most alpha W((A - 1) / e), which is attained",
        ", ".join(f"A = {a}: {r.max():.4f} alpha" for a, r in regrets.items()),
        all(abs(r.max() - SUPREMA[a]) < 1e-4 and r.max() <= softmax_regret(a, 1.0) + ROUNDING for a, r in regrets.items()),
    )


def bound_claims(results: TemperatureResults) -> list[Claim]:
    """Claims on residuals and losses on the Garnets."""
    gamma, alphas = results.gamma, results.alphas
    near_low, near_high, soft_low, soft_high, loss = np.moveaxis(results.swept, -1, 0)
    slack, most = ROUNDING / alphas, gamma * np.log(results.A)
    outside = [int((excess > slack).sum()) for excess in (np.maximum(-near_low, near_high - most), np.maximum(soft_high, -most - soft_low))]
    violations, n, largest = int((np.maximum(-loss, loss - most / (1 - gamma)) > slack).sum()), loss.size, soft_low[:, alphas >= WARM].max()
    return [
        Claim("KL form: 0 <= T*Q - Q <= gamma alpha ln A at its optimum", f"{outside[0]}/{n} violations", outside[0] == 0),
        Claim("entropy form: -gamma alpha ln A <= T*Q - Q <= 0 at its optimum", f"{outside[1]}/{n} violations", outside[1] == 0),
        Claim(
            f"a lower bound of 0 is false for the entropy form (on every Garnet from alpha = {WARM:g})",
            f"smallest T*Q - Q at most {largest:.2g} alpha",
            bool(largest < -0.01),
        ),
        Claim(
            "the loss of the soft policy is at most gamma alpha ln A / (1 - gamma)",
            f"{violations}/{n} violations, largest ratio {(loss / most).max() * (1 - gamma):.3f}",
            violations == 0,
        ),
    ]


def example_claims(traps: dict[float, float], exits: Array) -> list[Claim]:
    """Claims on `soft_trap` and `exit_or_loop`."""
    return [
        Claim(
            "soft_trap refutes a loss of at most (A - 1) alpha / e and satisfies the bound",
            f"loss {traps[0.99]:.4g} alpha, formula {2 / np.e:.3f} alpha, bound {99 * np.log(3):.4g} alpha",
            abs(traps[0.99] - 49.5) < 1e-3 and all(2 / np.e < loss <= g * np.log(3) / (1 - g) for g, loss in traps.items()),
        ),
        Claim(
            "where an episode can terminate, an entropy bonus rewards continuing and a KL penalty does not",
            f"alpha = 2: pi(loop) {exits[0]:.3f} with entropy, {exits[1]:.3f} with KL",
            round(float(exits[0]), 3) == 0.963 and round(float(exits[1]), 3) == 0.498,
        ),
    ]


# -------------------------------------------------------------------------------------------------------------------- measuring
def regret(gap: Array, A: int) -> Array:
    """Regret max Q - <softmax(Q), Q> at temperature 1 if all actions but one are worse by `gap` [N]; [N]."""
    q = np.concatenate([np.zeros((gap.size, 1)), np.repeat(-gap[:, None], A - 1, 1)], 1)
    return np.asarray(-expectation(softmax(q), q))


def sweep(mdp: MDP, alpha: float) -> list[float]:
    """Extremes of T*Q - Q at the KL optimum and at the entropy optimum, and the hard loss |q* - q_pi| of the soft policy; [5]."""
    near, soft = optima(mdp, alpha)
    residuals = [optimality_q(mdp, q) - q for q in (near, soft)]
    loss = policy_iteration(mdp).q - q_of(mdp, softmax(soft, alpha))
    return [*(float(x) for r in residuals for x in (r.min(), r.max())), float(loss.max() if loss.min() >= -ROUNDING else loss.min())]


def optima(mdp: MDP, alpha: float) -> tuple[Array, Array]:
    """Optimal Q [S, A] of the KL form with a uniform prior, and of the entropy form."""
    zeros, prior = np.zeros((mdp.S, mdp.A)), uniform_policy(mdp)
    near = fixed_point(lambda q: kl_optimality_q(mdp, q, prior, alpha), zeros, mdp.gamma, 1e-10)
    return near.x, fixed_point(lambda q: soft_optimality_q(mdp, q, alpha), zeros, mdp.gamma, 1e-10).x


def trap(gamma: float) -> float:
    """Loss of the soft policy on `soft_trap` in units of the temperature."""
    mdp, alpha = soft_trap(1.0, gamma), 1.0
    return float((policy_iteration(mdp).q - q_of(mdp, softmax(soft_policy_iteration(mdp, alpha).q, alpha))).max())


def exits_of(alpha: float) -> tuple[float, float]:
    """Probability pi(loop) of the entropy form and of the KL form in `exit_or_loop`."""
    near, soft = optima(exit_or_loop(), alpha)
    return float(softmax(soft, alpha)[0, 1]), float(softmax(near, alpha)[0, 1])
