"""Policy gradient theorem with its factor and its state distribution (Sutton et al. 2000; deterministic policies: Silver et al. 2014).

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

STENCIL = ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60))  # weights of f(x + k h) - f(x - k h) for a derivative of sixth order
DISTANCES = (0.0, 0.03, 0.1, 0.3, 1.0)  # distance of the behaviour policy's logits
STEPS = tuple(10.0**k for k in (-3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0))  # norm of a change of the logits
FORMULAS = ("d_gamma, 1 / (1 - gamma)", "d_gamma, no factor", "stationary, 1 / (1 - gamma)", "stationary, no factor")


class GradientResults(NamedTuple):
    """Errors of gradient formulas, of the surrogate and of the deterministic gradient."""

    formulas: Array  # [seeds, formulas, 3] error, norm ratio and cosine relative to finite differences
    off_policy: Array  # [seeds, distances, 2] error of the off-policy gradient without and with d_pi / d_b
    local: Array  # [seeds, steps, 3] surrogate, gain of J, error of the performance difference lemma
    at_start: float  # largest error of the surrogate's gradient at the old policy
    episodic: tuple[float, float]  # with an absorbing state: gradient norm under the stationary distribution, true norm
    lqr: float  # largest error of the deterministic gradient over gains
    ascent: float  # gain by gradient ascent
    riccati: float  # gain by the Riccati equation


@experiment("policy_gradient", "The policy gradient has the factor 1 / (1 - gamma) and the discounted occupancy; texts omit one or both")
def policy_gradient(setting: Setting) -> Findings:
    """Four formulas and finite differences, off-policy gradients, the error of the surrogate, and deterministic gradients of an LQR."""
    results = measure(setting)
    claims = [*claims_of_formulas(results), *claims_of_surrogate(results), claim_off_policy(results), *claims_of_regulator(results)]
    regulator = Table(
        "Gain of the regulator", ("ascent", "Riccati", "largest error of the gradient"), [(results.ascent, results.riccati, results.lqr)]
    )
    return Findings(claims, [table_of_formulas(results), table_off_policy(results), regulator], draw(results))


def measure(setting: Setting) -> GradientResults:
    """Errors on every Garnet and for the regulator."""
    seeds = range(setting.seed, setting.seed + setting.pick(50, 5))
    gains = np.linspace(-0.1, 2.9, 31).tolist()
    return GradientResults(
        formulas=np.array([formulas(seed) for seed in seeds]),
        off_policy=np.array([[off_policy(seed, x) for x in DISTANCES] for seed in seeds]),
        local=np.array([surrogate_errors(seed) for seed in seeds]),
        at_start=max(surrogate_slope_error(seed) for seed in seeds),
        episodic=episodic_gradients(),
        lqr=max(abs(deterministic_gradient(LQR(), k) - slope_of_gain(LQR(), k)) for k in gains),
        ascent=ascend_gain(LQR()),
        riccati=riccati_gain(LQR()),
    )


def claims_of_formulas(results: GradientResults) -> list[Claim]:
    """Claims on the factor and on the state distribution."""
    theorem, cosine = float(results.formulas[:, 0, 0].max()), results.formulas[:, 2, 2]
    ratio, error = 1 - garnet().gamma, float(np.abs(results.formulas[:, 1, 1] - (1 - garnet().gamma)).max())
    stationary_norm, norm = results.episodic
    return [
        Claim("the gradient of the theorem is the gradient of J", f"finite differences within {theorem:.1e}", theorem <= 1e-8),
        Claim(f"without the factor it is {ratio:.1f} of it, in the same direction", f"within {error:.1e}", error <= 1e-8),
        Claim("under the stationary distribution its direction differs", f"mean cosine {cosine.mean():.4f}", bool(cosine.max() < 1 - 1e-5)),
        Claim(
            "with an absorbing state it is zero there, unlike the true gradient",
            f"{stationary_norm:.1e} and {norm:.3f}",
            stationary_norm <= 1e-12 and norm > 0.1,
        ),
    ]


def claims_of_surrogate(results: GradientResults) -> list[Claim]:
    """Claims on the performance difference and on the error of the surrogate."""
    lemma, local, at_start = float(results.local[..., 2].max()), results.local, results.at_start
    curvature = float(np.polyfit(np.log(STEPS[:4]), np.log(np.abs(local[:, :4, 0] - local[:, :4, 1]).mean(0)), 1)[0])
    return [
        Claim("J(new) - J is the expectation under the new policy of A / (1 - gamma)", f"within {lemma:.1e}", lemma <= 1e-10),
        Claim(
            "at the old policy the gradient of the surrogate is the policy gradient",
            f"within {at_start:.1e}",
            at_start <= 1e-8,
        ),
        Claim("its error is of second order in the change of the policy", f"order {curvature:.3f}", abs(curvature - 2) < 0.1),
    ]


def claim_off_policy(results: GradientResults) -> Claim:
    """Claim on the ratio of the two occupancies."""
    errors = results.off_policy
    on, far, corrected = float(errors[:, 0, 0].max()), errors[:, -1, 0], float(errors[..., 1].max())
    return Claim(
        "the off-policy gradient without d_pi / d_b is exact only on-policy",
        f"relative error {on:.1e} there, {far.min():.1e} to {far.max():.2g} at distance 1",
        bool(on <= 1e-10 and far.min() > 1e-3 and corrected <= 1e-10),
    )


def claims_of_regulator(results: GradientResults) -> list[Claim]:
    """Claims on deterministic policies."""
    error, ascent, riccati = results.lqr, results.ascent, results.riccati
    return [
        Claim("the deterministic policy gradient is the gradient of the regulator's return", f"within {error:.1e}", error <= 1e-9),
        Claim(
            "gradient ascent converges to the gain of the Riccati equation",
            f"{ascent:.6f} and {riccati:.6f}",
            abs(ascent - riccati) <= 1e-6,
        ),
    ]


def table_of_formulas(results: GradientResults) -> Table:
    """Table of the formulas, means over Garnets."""
    return Table(
        "Formulas of grad J relative to finite differences (means over Garnets)",
        ("formula", "relative error", "norm ratio", "cosine"),
        [(name, *row) for name, row in zip(FORMULAS, results.formulas.mean(0).tolist(), strict=True)],
    )


def table_off_policy(results: GradientResults) -> Table:
    """Table of off-policy errors over the distance of the behaviour policy."""
    errors = results.off_policy
    spread = np.stack([errors[..., 0].mean(0), errors[..., 0].min(0), errors[..., 0].max(0)], 1)  # [distances, 3]
    return Table(
        "Relative error of the off-policy gradient (means over Garnets)",
        ("distance of logits", "without d_pi / d_b", "smallest", "largest", "with d_pi / d_b"),
        [(x, *map(float, (*stats, row[:, 1].mean()))) for x, row, stats in zip(DISTANCES, errors.swapaxes(0, 1), spread, strict=True)],
    )


def draw(results: GradientResults) -> Figure:
    """Figure of the errors of four formulas, of off-policy gradients and of the surrogate."""
    each, off, local = results.formulas, results.off_policy, results.local
    figure, (left, middle, right) = panels(
        ("relative error of grad J", ""),
        ("distance of the behaviour policy's logits", "relative error of grad J"),
        ("norm of the change", "error"),
    )
    for i in range(len(FORMULAS)):
        y = i + np.linspace(-0.25, 0.25, len(each))
        left.semilogx(np.maximum(each[:, i, 0], 1e-17), y, "o", markersize=3, color=color(i))
    left.set_yticks(range(4), [name.replace(", ", ",\n") for name in FORMULAS])
    left.invert_yaxis()
    middle.loglog(DISTANCES[1:], off[:, 1:, 0].mean(0), "o-", color=color(1), label="without d_pi / d_b")
    middle.loglog(DISTANCES[1:], off[:, 1:, 1].mean(0), "o-", color=color(0), label="with d_pi / d_b")
    right.loglog(STEPS, np.abs(local[..., 0] - local[..., 1]).mean(0), "o-", color=color(1), label="surrogate - (J(new) - J)")
    right.loglog(STEPS, np.maximum(local[..., 2].mean(0), 1e-17), "o-", color=color(0), label="performance difference")
    right.loglog(STEPS, np.abs(local[:, -1, 0] - local[:, -1, 1]).mean() * np.array(STEPS) ** 2, "--", color=color(5), label="slope 2")
    for ax in (middle, right):
        ax.set_ylim(1e-18, 1e3)
        legend(ax)
    return figure


# ----------------------------------------------------------------------------------------------------- formulas of the gradient
def finite_differences(f: Callable[[Array], float], x: Array, h: float = 3e-3) -> Array:
    """Gradient of f at x, of the shape of x, by symmetric differences of sixth order: three pairs of values per entry."""
    out = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        step = np.zeros_like(x)
        step[i] = h
        out[i] = sum(w * (f(x + k * step) - f(x - k * step)) for k, w in STENCIL) / h
    return out


def from_one_state(seed: int) -> MDP:
    """Random Garnet with the initial state 0."""
    mdp = garnet(8, 3, 3, seed=seed)
    return MDP(mdp.P, mdp.R, np.eye(mdp.S)[0], mdp.gamma)


def score_gradient(states: Array, pi: Array, weight: Array) -> Array:
    """Gradient E[weight grad log pi] of a softmax table for a state distribution [S], [S, A]."""
    return np.asarray(states[:, None] * pi * (weight - expectation(pi, weight)[:, None]))


def formulas(seed: int) -> list[tuple[float, float, float]]:
    """Relative error, norm ratio and cosine of each of `FORMULAS`, at random logits of a random Garnet."""
    mdp, theta = from_one_state(seed), np.random.default_rng(seed).normal(size=(8, 3))
    pi = softmax(theta)
    gradient, q = finite_differences(lambda x: performance(mdp, softmax(x)), theta), q_of(mdp, pi)
    discounted_sum, stationary_sum = score_gradient(discounted(mdp, pi), pi, q), score_gradient(stationary(mdp, pi), pi, q)
    horizon = 1 / (1 - mdp.gamma)
    return [compare(g, gradient) for g in (horizon * discounted_sum, discounted_sum, horizon * stationary_sum, stationary_sum)]


def episodic_gradients() -> tuple[float, float]:
    """Norms of the gradient under the stationary distribution, all of it on the absorbing state, and of the true gradient."""
    mdp = exit_or_loop(0.9)
    pi = uniform_policy(mdp)
    gradient = score_gradient(stationary(mdp, pi), pi, q_of(mdp, pi)) / (1 - mdp.gamma)
    return float(np.linalg.norm(gradient)), float(np.linalg.norm(exact_gradient(mdp, pi)))


def compare(estimate: Array, truth: Array) -> tuple[float, float, float]:
    """Relative error |estimate - truth| / |truth|, norm ratio |estimate| / |truth| and cosine."""
    a, b = float(np.linalg.norm(estimate)), float(np.linalg.norm(truth))
    return float(np.linalg.norm(estimate - truth)) / b, a / b, float((estimate * truth).sum()) / (a * b)


def off_policy(seed: int, distance: float) -> tuple[float, float]:
    """Relative errors of the off-policy gradient E_{d_b, b}[pi / b grad log pi A^pi] / (1 - gamma) without and with d_pi / d_b."""
    mdp, rng = from_one_state(seed), np.random.default_rng(seed)
    theta, direction = rng.normal(size=(2, 8, 3))
    pi, b = softmax(theta), softmax(theta + distance * direction)
    d_pi, d_b, truth, q = discounted(mdp, pi), discounted(mdp, b), exact_gradient(mdp, pi), q_of(mdp, pi)
    pairs, ratio = d_b[:, None] * b, pi / b
    centred = q - expectation(pi, q)[:, None]
    gradients = [np.asarray(pairs * ratio * w * centred / (1 - mdp.gamma)) for w in (1.0, (d_pi / d_b)[:, None])]
    return compare(gradients[0], truth)[0], compare(gradients[1], truth)[0]


# ---------------------------------------------------------------------------------------- the surrogate of trust-region methods
def surrogate(mdp: MDP, pi: Array, new: Array) -> float:
    """Surrogate L(new) = E_{d_gamma of pi, pi}[new / pi A^pi] / (1 - gamma) of TRPO and PPO: J(new) - J(pi) to first order."""
    return expected_advantage(mdp, pi, new, discounted(mdp, pi))


def expected_advantage(mdp: MDP, pi: Array, new: Array, states: Array) -> float:
    """Expectation of A^pi / (1 - gamma) under `new`; equals J(new) - J(pi) if the states [S] have the occupancy of `new`."""
    q = q_of(mdp, pi)
    return float(states @ (expectation(new, q) - expectation(pi, q))) / (1 - mdp.gamma)


def surrogate_slope_error(seed: int) -> float:
    """Relative error of the surrogate's gradient at the old policy, by finite differences, to the policy gradient."""
    mdp, theta = from_one_state(seed), np.random.default_rng(seed).normal(size=(8, 3))
    pi = softmax(theta)
    return compare(finite_differences(lambda x: surrogate(mdp, pi, softmax(x)), theta), exact_gradient(mdp, pi))[0]


def surrogate_errors(seed: int) -> list[tuple[float, float, float]]:
    """Surrogate, gain and error of the performance difference lemma for changes of the logits of every norm in `STEPS`."""
    mdp, rng = from_one_state(seed), np.random.default_rng(seed)
    theta, direction = rng.normal(size=(2, 8, 3))
    pi, rows = softmax(theta), []
    for length in STEPS:
        new = softmax(theta + length * direction / np.linalg.norm(direction))
        gain = performance(mdp, new) - performance(mdp, pi)
        lemma = expected_advantage(mdp, pi, new, discounted(mdp, new))
        rows.append((surrogate(mdp, pi, new), gain, abs(lemma - gain)))
    return rows


# ------------------------------------------------------------------------------------------------ deterministic policy gradient
def deterministic_gradient(lqr: LQR, gain: float) -> float:
    """Deterministic policy gradient dJ/dgain of u = -gain s: E_{d_gamma}[dmu/dgain dQ/du] / (1 - gamma) with dmu/dgain = -s."""
    p, _ = lqr_value(lqr, gain)
    closed = lqr.a - lqr.b * gain
    spread = ((1 - lqr.gamma) + lqr.gamma * lqr.noise**2) / (1 - lqr.gamma * closed**2)  # E s^2 under d_gamma, E s0^2 = 1
    slope = 2 * lqr.cost * gain - 2 * lqr.gamma * p * lqr.b * closed  # dQ/du = slope s at u = -gain s
    return -slope * spread / (1 - lqr.gamma)


def slope_of_gain(lqr: LQR, gain: float) -> float:
    """Derivative dJ/dgain by finite differences of the return."""
    return float(finite_differences(lambda k: lqr_return(lqr, float(k[0])), np.array([gain]), 1e-3)[0])


def ascend_gain(lqr: LQR, rate: float = 0.05, steps: int = 2000) -> float:
    """Gain after gradient ascent from 0."""
    gain = 0.0
    for _ in range(steps):
        gain += rate * deterministic_gradient(lqr, gain)
    return gain
