"""The policy gradient theorem with the factor that belongs to it (Sutton et al. 2000; Silver et al. 2014 for deterministic policies).

J = mu0 . V = E_{d_gamma, pi} r / (1 - gamma), hence grad J = E_{d_gamma, pi}[grad log pi Q] / (1 - gamma). S states, A actions.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mbkit.report.figure import color, legend, panels
from mbkit.tabular.environments import LQR, exit_or_loop, garnet, lqr_return, lqr_value, riccati_gain
from mbkit.tabular.mdp import MDP, Array, uniform_policy
from mbkit.tabular.natural_gradient import policy_gradient as exact_gradient
from mbkit.tabular.occupancy import discounted, stationary
from mbkit.tabular.operators import expectation, performance, q_of, softmax
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment

STENCIL = ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60))  # weights of f(x + k h) - f(x - k h): the slope to sixth order
DISTANCES = (0.0, 0.03, 0.1, 0.3, 1.0)  # between the logits of behaviour and policy
STEPS = tuple(10.0**k for k in (-3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0))  # length of a change of the logits
FORMULAS = ("d_gamma, 1 / (1 - gamma)", "d_gamma, no factor", "stationary law, 1 / (1 - gamma)", "stationary law, no factor")


class Measured(NamedTuple):
    """What the formulas gave."""

    each: Array  # [seeds, formulas, 3] error, length and cosine against finite differences
    off: Array  # [seeds, distances, 2] error of the off-policy gradient, d_pi / d_b dropped or kept
    local: Array  # [seeds, steps, 3] surrogate, gain of J, error of the identity
    at_start: float  # greatest error of the surrogate's slope where it starts
    ending: tuple[float, float]  # where episodes end: stationary law's gradient, the true one
    lqr: float  # greatest error of the deterministic gradient over gains
    found: float  # gain by ascent
    best: float  # gain by Riccati's equation


@experiment("policy_gradient", "The policy gradient carries 1 / (1 - gamma) and the discounted occupancy; texts drop one or both")
def policy_gradient(setting: Setting) -> Findings:
    """Four formulas against finite differences, off-policy gradients, the surrogate's error, and deterministic gradients of an LQR."""
    it = measure(setting)
    claims = [*claims_of_formulas(it), *claims_of_surrogate(it), claim_off_policy(it), *claims_of_regulator(it)]
    regulator = Table("Gain of the regulator", ("ascent", "Riccati", "greatest error of the gradient"), [(it.found, it.best, it.lqr)])
    return Findings(claims, [table_of_formulas(it), table_off_policy(it), regulator], draw(it))


def measure(setting: Setting) -> Measured:
    """Gradients on every Garnet, and those of the regulator."""
    seeds = range(setting.seed, setting.seed + setting.pick(50, 5))
    gains = np.linspace(-0.1, 2.9, 31).tolist()
    return Measured(
        each=np.array([formulas(seed) for seed in seeds]),
        off=np.array([[off_policy(seed, x) for x in DISTANCES] for seed in seeds]),
        local=np.array([surrogate_errors(seed) for seed in seeds]),
        at_start=max(surrogate_slope_error(seed) for seed in seeds),
        ending=gradients_where_episodes_end(),
        lqr=max(abs(deterministic_gradient(LQR(), k) - slope_of_gain(LQR(), k)) for k in gains),
        found=ascend_gain(LQR()),
        best=riccati_gain(LQR()),
    )


def claims_of_formulas(it: Measured) -> list[Claim]:
    """The factor and the law of the states."""
    theorem, turned = float(it.each[:, 0, 0].max()), it.each[:, 2, 2]
    short, apart = 1 - garnet().gamma, float(np.abs(it.each[:, 1, 1] - (1 - garnet().gamma)).max())
    dead, alive = it.ending
    return [
        Claim("the theorem's gradient is the slope of J", f"finite differences within {theorem:.1e}", theorem <= 1e-8),
        Claim(f"without the factor it is {short:.1f} of it, pointing the same way", f"that within {apart:.1e}", apart <= 1e-8),
        Claim("under the stationary law it points elsewhere", f"mean cosine {turned.mean():.4f}", bool(turned.max() < 1 - 1e-5)),
        Claim("where episodes end it is zero, the true gradient is not", f"{dead:.1e} and {alive:.3f}", dead <= 1e-12 and alive > 0.1),
    ]


def claims_of_surrogate(it: Measured) -> list[Claim]:
    """The performance difference, and what the surrogate leaves out of it."""
    lemma, local = float(it.local[..., 2].max()), it.local
    curvature = float(np.polyfit(np.log(STEPS[:4]), np.log(np.abs(local[:, :4, 0] - local[:, :4, 1]).mean(0)), 1)[0])
    return [
        Claim("J(new) - J = E under the new policy of A / (1 - gamma)", f"within {lemma:.1e}", lemma <= 1e-10),
        Claim("the surrogate's slope is the policy gradient where it starts", f"within {it.at_start:.1e}", it.at_start <= 1e-8),
        Claim("elsewhere its error is of second order", f"order {curvature:.3f}", abs(curvature - 2) < 0.1),
    ]


def claim_off_policy(it: Measured) -> Claim:
    """The ratio of the two occupancies."""
    on, far, kept = float(it.off[:, 0, 0].max()), it.off[:, -1, 0], float(it.off[..., 1].max())
    return Claim(
        "the off-policy gradient that drops d_pi / d_b is exact on-policy only",
        f"relative error {on:.1e} there, {far.min():.1e} to {far.max():.2g} at distance 1",
        bool(on <= 1e-10 and far.min() > 1e-3 and kept <= 1e-10),
    )


def claims_of_regulator(it: Measured) -> list[Claim]:
    """Deterministic policies."""
    return [
        Claim("the deterministic gradient is the slope of the regulator's return", f"within {it.lqr:.1e}", it.lqr <= 1e-9),
        Claim(
            "ascending the gain ends where Riccati's equation does", f"{it.found:.6f} and {it.best:.6f}", abs(it.found - it.best) <= 1e-6
        ),
    ]


def table_of_formulas(it: Measured) -> Table:
    """Means over Garnets."""
    return Table(
        "Formulas for grad J against finite differences (means over Garnets)",
        ("formula", "relative error", "length over true length", "cosine with the true one"),
        [(name, *row) for name, row in zip(FORMULAS, it.each.mean(0).tolist(), strict=True)],
    )


def table_off_policy(it: Measured) -> Table:
    """Over the distance between behaviour and policy."""
    off = it.off
    spread = np.stack([off[..., 0].mean(0), off[..., 0].min(0), off[..., 0].max(0)], 1)  # [distances, 3]
    return Table(
        "Relative error of the off-policy gradient (means over Garnets)",
        ("distance of logits", "d_pi / d_b dropped", "least", "greatest", "d_pi / d_b kept"),
        [(x, *map(float, (*of_law, row[:, 1].mean()))) for x, row, of_law in zip(DISTANCES, off.swapaxes(0, 1), spread, strict=True)],
    )


def draw(it: Measured) -> Figure:
    """Four formulas, off-policy gradients, the surrogate."""
    each, off, local = it.each, it.off, it.local
    figure, (left, middle, right) = panels(
        ("relative error of grad J", ""),
        ("distance of the behaviour's logits", "relative error of grad J"),
        ("length of the change", "error"),
    )
    for i in range(len(FORMULAS)):
        y = i + np.linspace(-0.25, 0.25, len(each))
        left.semilogx(np.maximum(each[:, i, 0], 1e-17), y, "o", markersize=3, color=color(i))
    left.set_yticks(range(4), [name.replace(", ", ",\n") for name in FORMULAS])
    left.invert_yaxis()
    middle.loglog(DISTANCES[1:], off[:, 1:, 0].mean(0), "o-", color=color(1), label="d_pi / d_b dropped")
    middle.loglog(DISTANCES[1:], off[:, 1:, 1].mean(0), "o-", color=color(0), label="kept")
    right.loglog(STEPS, np.abs(local[..., 0] - local[..., 1]).mean(0), "o-", color=color(1), label="surrogate against J(new) - J")
    right.loglog(STEPS, np.maximum(local[..., 2].mean(0), 1e-17), "o-", color=color(0), label="performance difference")
    right.loglog(STEPS, np.abs(local[:, -1, 0] - local[:, -1, 1]).mean() * np.array(STEPS) ** 2, "--", color=color(5), label="slope 2")
    for ax in (middle, right):
        ax.set_ylim(1e-18, 1e3)
        legend(ax)
    return figure


# ------------------------------------------------------------------------------------------------------- formulas of the gradient
def finite_differences(f: Callable[[Array], float], x: Array, h: float = 3e-3) -> Array:
    """Gradient of f at x, of the shape of x, by symmetric differences of sixth order: three pairs of values an entry."""
    out = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        bump = np.zeros_like(x)
        bump[i] = h
        out[i] = sum(w * (f(x + k * bump) - f(x - k * bump)) for k, w in STENCIL) / h
    return out


def from_one_state(seed: int) -> MDP:
    """A random Garnet whose every episode begins in state 0."""
    mdp = garnet(8, 3, 3, seed=seed)
    return MDP(mdp.P, mdp.R, np.eye(mdp.S)[0], mdp.gamma)


def score_gradient(law: Array, pi: Array, weight: Array) -> Array:
    """E_{law, pi}[weight grad log pi] of a softmax table, [S, A]."""
    return np.asarray(law[:, None] * pi * (weight - expectation(pi, weight)[:, None]))


def formulas(seed: int) -> list[tuple[float, float, float]]:
    """(relative error, length over the true length, cosine) of each of `FORMULAS`, at random logits of a random Garnet."""
    mdp, theta = from_one_state(seed), np.random.default_rng(seed).normal(size=(8, 3))
    pi = softmax(theta)
    slope, q = finite_differences(lambda x: performance(mdp, softmax(x)), theta), q_of(mdp, pi)
    right, still = score_gradient(discounted(mdp, pi), pi, q), score_gradient(stationary(mdp, pi), pi, q)
    horizon = 1 / (1 - mdp.gamma)
    return [compare(g, slope) for g in (horizon * right, right, horizon * still, still)]


def gradients_where_episodes_end() -> tuple[float, float]:
    """Norms of the gradient under the stationary law, which is the absorbing state alone, and of the true one."""
    mdp = exit_or_loop(0.9)
    pi = uniform_policy(mdp)
    wrong = score_gradient(stationary(mdp, pi), pi, q_of(mdp, pi)) / (1 - mdp.gamma)
    return float(np.linalg.norm(wrong)), float(np.linalg.norm(exact_gradient(mdp, pi)))


def compare(estimate: Array, truth: Array) -> tuple[float, float, float]:
    """(|estimate - truth| / |truth|, |estimate| / |truth|, cosine)."""
    a, b = float(np.linalg.norm(estimate)), float(np.linalg.norm(truth))
    return float(np.linalg.norm(estimate - truth)) / b, a / b, float((estimate * truth).sum()) / (a * b)


def off_policy(seed: int, distance: float) -> tuple[float, float]:
    """Relative error of E_{d_b, b}[pi / b grad log pi A^pi] / (1 - gamma), and of the same with the factor d_pi / d_b."""
    mdp, rng = from_one_state(seed), np.random.default_rng(seed)
    theta, away = rng.normal(size=(2, 8, 3))
    pi, b = softmax(theta), softmax(theta + distance * away)
    d_pi, d_b, truth, q = discounted(mdp, pi), discounted(mdp, b), exact_gradient(mdp, pi), q_of(mdp, pi)
    pairs, ratio = d_b[:, None] * b, pi / b
    centred = q - expectation(pi, q)[:, None]
    own = [np.asarray(pairs * ratio * w * centred / (1 - mdp.gamma)) for w in (1.0, (d_pi / d_b)[:, None])]
    return compare(own[0], truth)[0], compare(own[1], truth)[0]


# ------------------------------------------------------------------------------------------- the surrogate of trust-region methods
def surrogate(mdp: MDP, pi: Array, new: Array) -> float:
    """L(new) = E_{d_gamma of pi, pi}[new / pi A^pi] / (1 - gamma): what TRPO and PPO maximise, J(new) - J(pi) to first order."""
    return weighed_advantage(mdp, pi, new, discounted(mdp, pi))


def weighed_advantage(mdp: MDP, pi: Array, new: Array, law: Array) -> float:
    """E_{law, new} A^pi / (1 - gamma); with the law of `new` it is J(new) - J(pi) exactly (performance difference lemma)."""
    q = q_of(mdp, pi)
    return float(law @ (expectation(new, q) - expectation(pi, q))) / (1 - mdp.gamma)


def surrogate_slope_error(seed: int) -> float:
    """Relative distance of the surrogate's gradient at the old policy, by finite differences, to the policy gradient."""
    mdp, theta = from_one_state(seed), np.random.default_rng(seed).normal(size=(8, 3))
    pi = softmax(theta)
    return compare(finite_differences(lambda x: surrogate(mdp, pi, softmax(x)), theta), exact_gradient(mdp, pi))[0]


def surrogate_errors(seed: int) -> list[tuple[float, float, float]]:
    """(surrogate, gain, error of the performance difference lemma) for changes of the logits of every length in `STEPS`."""
    mdp, rng = from_one_state(seed), np.random.default_rng(seed)
    theta, away = rng.normal(size=(2, 8, 3))
    pi, found = softmax(theta), []
    for length in STEPS:
        new = softmax(theta + length * away / np.linalg.norm(away))
        gain = performance(mdp, new) - performance(mdp, pi)
        lemma = weighed_advantage(mdp, pi, new, discounted(mdp, new))
        found.append((surrogate(mdp, pi, new), gain, abs(lemma - gain)))
    return found


# -------------------------------------------------------------------------------------------------- deterministic policy gradient
def deterministic_gradient(lqr: LQR, gain: float) -> float:
    """dJ/dgain of u = -gain s: E_{d_gamma}[dmu/dgain dQ/du] / (1 - gamma) with dmu/dgain = -s."""
    p, _ = lqr_value(lqr, gain)
    closed = lqr.a - lqr.b * gain
    spread = ((1 - lqr.gamma) + lqr.gamma * lqr.noise**2) / (1 - lqr.gamma * closed**2)  # E s^2 under d_gamma, E s0^2 = 1
    slope = 2 * lqr.cost * gain - 2 * lqr.gamma * p * lqr.b * closed  # dQ/du = slope s at u = -gain s
    return -slope * spread / (1 - lqr.gamma)


def slope_of_gain(lqr: LQR, gain: float) -> float:
    """The same by finite differences of the return."""
    return float(finite_differences(lambda k: lqr_return(lqr, float(k[0])), np.array([gain]), 1e-3)[0])


def ascend_gain(lqr: LQR, rate: float = 0.05, steps: int = 2000) -> float:
    """Gradient ascent from gain 0."""
    gain = 0.0
    for _ in range(steps):
        gain += rate * deterministic_gradient(lqr, gain)
    return gain
