"""What a temperature costs: regret of a softmax, distance of soft to hard values, and entropy against KL. V [S], Q [S, A], alpha > 0.

The bounds are the corrected ones (`mbkit.tabular.bounds`); the formula that texts give for the last of them is refuted on the way.
"""

import numpy as np

from mbkit.report.figure import INK, MUTED, color, panels
from mbkit.tabular.bounds import softmax_regret
from mbkit.tabular.environments import exit_or_loop, garnet, soft_trap
from mbkit.tabular.mdp import MDP, Array, uniform_policy
from mbkit.tabular.operators import expectation, kl_optimality_q, optimality_q, q_of, soft_optimality_q, softmax
from mbkit.tabular.planning import fixed_point, policy_iteration, soft_policy_iteration
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment

SUPREMA = {2: 0.2785, 3: 0.4631, 4: 0.6035}  # of regret / alpha, by number of actions
COLUMNS = ("KL: min T*Q - Q", "max", "entropy: min T*Q - Q", "max", "loss of the soft policy")
WARM = 0.1  # from here on a soft optimum is visibly soft: gaps between actions are of this size
ROUNDING = 1e-9
WEIGHTS = np.logspace(-3, 1, 33)  # temperatures in the MDP that can end


@experiment(
    "temperature", "What a temperature costs: alpha times a constant in one step, alpha / (1 - gamma) in all, and entropy is not KL"
)
def temperature(setting: Setting) -> Findings:
    """Suprema of the regret; residuals and losses of soft optima over temperatures on Garnets, the trap, and the exit."""
    alphas = np.logspace(-3, 1, setting.pick(17, 5))
    mdps = [garnet(seed=s) for s in range(setting.seed, setting.seed + setting.pick(20, 3))]
    gamma, A = mdps[0].gamma, mdps[0].A
    gap = np.linspace(0.0, 8.0, 1601)
    regrets = {a: regret(gap, a) for a in SUPREMA}
    swept = np.array([[sweep(mdp, float(alpha)) for alpha in alphas] for mdp in mdps]) / alphas[:, None]  # [Garnets, alphas, 5]
    traps = {g: trap(g) for g in (0.9, 0.99, 0.999)}  # gamma -> loss / alpha
    exits = np.array([exits_of(float(alpha)) for alpha in WEIGHTS] + [exits_of(2.0)])
    claims = [regret_claim(regrets), *bound_claims(swept, alphas, gamma, A), *example_claims(traps, exits[-1])]
    rows = [(float(a), *map(float, row), float(s)) for a, row, s in zip(alphas, swept.mean(0), swept[..., 4].std(0), strict=True)]
    tables = [
        Table(
            "Supremum of the regret of a softmax / alpha",
            ("A", "grid", "W((A - 1) / e)", "(A - 1) / e", "ln A"),
            [(a, float(r.max()), softmax_regret(a, 1.0), (a - 1) / np.e, float(np.log(a))) for a, r in regrets.items()],
        ),
        Table("Garnets, in units of alpha, means (and std of the loss)", ("alpha", *COLUMNS, "std"), rows),
        Table(
            "Loss on the trap / alpha",
            ("gamma", "loss", "(A - 1) / e, wrong", "gamma ln A / (1 - gamma)"),
            [(g, loss, 2 / np.e, float(g * np.log(3) / (1 - g))) for g, loss in traps.items()],
        ),
        Table("pi(loop) where the episode can end, alpha = 2", ("entropy", "KL to uniform"), [tuple(map(float, exits[-1]))]),
    ]
    figure, (left, middle, right) = panels(
        ("gap of the best action / alpha", "regret / alpha"), ("alpha", "loss / alpha"), ("alpha", "pi(loop)")
    )
    for i, (a, curve) in enumerate(regrets.items()):
        left.plot(gap, curve, color=color(i), label=f"A = {a}")
        left.axhline(softmax_regret(a, 1.0), color=color(i), ls="--", lw=1.0)
    middle.loglog(alphas, swept[..., 4].mean(0), "o-", ms=3.5, color=color(0), label="Garnets, mean")
    middle.axhline(gamma * np.log(A) / (1 - gamma), color=color(0), ls="--", lw=1.2, label="their bound")
    middle.axhline((A - 1) / np.e, color=MUTED, ls=":", lw=1.4, label="(A - 1) / e, wrong")
    middle.axhline(traps[0.99], color=color(1), lw=1.6, label="trap, gamma 0.99")
    middle.axhline(0.99 * np.log(3) / 0.01, color=color(1), ls="--", lw=1.2, label="its bound")
    middle.set_ylim(1e-3, 1e3)
    for i, name in enumerate(("entropy", "KL to uniform")):
        right.semilogx(WEIGHTS, exits[:-1, i], color=color(i), label=name)
    left.set_ylim(0, 0.8)
    right.set_ylim(0, 1)
    for ax in (left, middle, right):
        ax.legend(frameon=False, labelcolor=INK, fontsize=7.5)
    return Findings(claims, tables, figure)


# --------------------------------------------------------------------------------------------------------------------------- claims
def regret_claim(regrets: dict[int, Array]) -> Claim:
    """C4a."""
    return Claim(
        "the regret of a softmax is at most alpha W((A - 1) / e) and reaches it",
        ", ".join(f"A = {a}: {r.max():.4f} alpha" for a, r in regrets.items()),
        all(abs(r.max() - SUPREMA[a]) < 1e-4 and r.max() <= softmax_regret(a, 1.0) + ROUNDING for a, r in regrets.items()),
    )


def bound_claims(swept: Array, alphas: Array, gamma: float, A: int) -> list[Claim]:
    """C4b and C4c, of [Garnets, alphas, 5] in units of alpha."""
    near_low, near_high, soft_low, soft_high, loss = np.moveaxis(swept, -1, 0)
    slack, most = ROUNDING / alphas, gamma * np.log(A)
    outside = [int((bad > slack).sum()) for bad in (np.maximum(-near_low, near_high - most), np.maximum(soft_high, -most - soft_low))]
    lost, n, largest = int((np.maximum(-loss, loss - most / (1 - gamma)) > slack).sum()), loss.size, soft_low[:, alphas >= WARM].max()
    return [
        Claim("KL form: 0 <= T*Q - Q <= gamma alpha ln A at its optimum", f"{outside[0]}/{n} violations", outside[0] == 0),
        Claim("entropy form: -gamma alpha ln A <= T*Q - Q <= 0 at its optimum", f"{outside[1]}/{n} violations", outside[1] == 0),
        Claim(
            f"so a lower bound of 0 is false for the entropy form (on every Garnet from alpha = {WARM:g})",
            f"smallest T*Q - Q at most {largest:.2g} alpha",
            bool(largest < -0.01),
        ),
        Claim(
            "the soft policy loses at most gamma alpha ln A / (1 - gamma)",
            f"{lost}/{n} violations, largest ratio {(loss / most).max() * (1 - gamma):.3f}",
            lost == 0,
        ),
    ]


def example_claims(traps: dict[float, float], exits: Array) -> list[Claim]:
    """C4c and C12."""
    return [
        Claim(
            "the trap refutes a loss of (A - 1) alpha / e and keeps to the bound",
            f"loss {traps[0.99]:.4g} alpha, formula {2 / np.e:.3f} alpha, bound {99 * np.log(3):.4g} alpha",
            abs(traps[0.99] - 49.5) < 1e-3 and all(2 / np.e < loss <= g * np.log(3) / (1 - g) for g, loss in traps.items()),
        ),
        Claim(
            "where an episode can end, entropy pays for staying and KL does not",
            f"alpha = 2: pi(loop) {exits[0]:.3f} with entropy, {exits[1]:.3f} with KL",
            round(float(exits[0]), 3) == 0.963 and round(float(exits[1]), 3) == 0.498,
        ),
    ]


# ------------------------------------------------------------------------------------------------------------------------ measuring
def regret(gap: Array, A: int) -> Array:
    """max Q - <softmax(Q), Q> at temperature 1 where all actions but one are worse by `gap` [N]; [N]."""
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
    """Loss of the soft policy on the trap, in units of its temperature."""
    mdp, alpha = soft_trap(1.0, gamma), 1.0
    return float((policy_iteration(mdp).q - q_of(mdp, softmax(soft_policy_iteration(mdp, alpha).q, alpha))).max())


def exits_of(alpha: float) -> tuple[float, float]:
    """pi(loop) of the entropy form and of the KL form in `exit_or_loop`."""
    near, soft = optima(exit_or_loop(), alpha)
    return float(softmax(soft, alpha)[0, 1]), float(softmax(near, alpha)[0, 1])
