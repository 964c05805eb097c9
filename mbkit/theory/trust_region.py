"""Exact natural gradients and trust regions (Kakade 2001; Schulman et al. 2015, arXiv:1502.05477). S states, A actions.

The policy is a softmax table. max g.x subject to x.Fx / 2 <= delta is solved by sqrt(2 delta / g.F^-1 g) F^-1 g; F is the Hessian of
the mean KL at the old policy.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mbkit.report.figure import color, legend, panels
from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import MDP, Array
from mbkit.tabular.natural_gradient import fisher, npg_step, policy_gradient
from mbkit.tabular.occupancy import discounted
from mbkit.tabular.operators import expectation, log_softmax, performance, q_of, softmax
from mbkit.tabular.planning import policy_iteration
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment

DELTAS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # limits of the mean KL of a step
SHRINK, SHRINKINGS = 0.8, 60  # backtracking factor and steps. Paper's code: 0.8 and 10; here: 60 (the misprinted step is far too long)
SKEWS = (0.0, 0.25, 0.5, 0.75, 1.0)  # standard deviations of the log singular values of a reparameterisation
REACHED = 1e-8  # J* - J at which a run stops
ETA = 0.05  # learning rate of the steps compared under reparameterisation


class TRPORun(NamedTuple):
    """TRPO from a random policy."""

    regret: list[float]  # J* - J before each step and at the end
    spent: float  # largest KL / delta
    rising: float  # fraction of the steps that increased J


class TrustRegionResults(NamedTuple):
    """Results of single steps and of runs."""

    full: Array  # [seeds, deltas] KL / delta of the full step
    misprint: Array  # [seeds, deltas] KL / delta of the misprinted step
    predicted: Array  # [seeds, deltas] KL / delta of the misprinted step by the quadratic model
    accepted: Array  # [seeds, deltas] KL / delta after backtracking
    gain: Array  # [seeds, deltas] gain of the surrogate after backtracking
    natural: Array  # [seeds, skews] distance of a natural step in other coordinates
    plain: Array  # [seeds, skews] distance of a plain step in other coordinates
    solver_error: float  # largest error of conjugate gradients
    runs: dict[float, list[TRPORun]]  # by delta


@experiment("trust_region", "A natural step does not depend on the parameterisation and meets its KL limit; a common misprint exceeds it")
def trust_region(setting: Setting) -> Findings:
    """Natural steps, closed forms and coordinates; KL of full, misprinted and backtracked steps; TRPO to the optimum."""
    results = measure(setting)
    tables = [table_of_spending(results), table_of_coordinates(results), table_of_runs(results)]
    return Findings([*claims_of_steps(results), *claims_of_spending(results)], tables, draw(results))


def measure(setting: Setting) -> TrustRegionResults:
    """Steps for every KL limit and skew, and runs for two limits."""
    seeds = range(setting.seed, setting.seed + setting.pick(50, 5))
    steps = np.array([[spent(seed, delta) for delta in DELTAS] for seed in seeds])  # [seeds, deltas, 5]
    skewed = np.array([[reparameterised(seed, skew) for skew in SKEWS] for seed in seeds])  # [seeds, skews, 2]
    runs = {delta: [trpo_run(garnet(8, 3, 3, seed=seed), delta, 300) for seed in seeds[: setting.pick(20, 3)]] for delta in (1e-2, 1e-1)}
    return TrustRegionResults(
        full=steps[..., 0],
        misprint=steps[..., 1],
        predicted=steps[..., 2],
        accepted=steps[..., 3],
        gain=steps[..., 4],
        natural=skewed[..., 0],
        plain=skewed[..., 1],
        solver_error=max(natural_step_error(seed) for seed in seeds),
        runs=runs,
    )


def claims_of_steps(results: TrustRegionResults) -> list[Claim]:
    """Claims on closed form and coordinates."""
    natural, plain = results.natural, results.plain
    return [
        Claim(
            "the step F^-1 g by conjugate gradients leads to pi exp(eta A / (1 - gamma)) / Z",
            f"within {results.solver_error:.1e}",
            results.solver_error <= 1e-10,
        ),
        Claim("the natural step is the same in all coordinates", f"within {natural.max():.1e}", bool(natural.max() <= 1e-10)),
        Claim("the plain step is not", f"distance at least {plain[:, -1].min():.1e}", bool(plain[:, -1].min() > 1e-4)),
    ]


def claims_of_spending(results: TrustRegionResults) -> list[Claim]:
    """Claims on the KL of single steps and of runs to the optimum."""
    small = results.full[:, np.array(DELTAS) <= 1e-2]
    accepted, gain, misprint = float(results.accepted.max()), float(results.gain.min()), float(results.misprint[:, 1].min())
    all_runs = [run for runs in results.runs.values() for run in runs]
    spent, regret = max(run.spent for run in all_runs), max(run.regret[-1] for run in all_runs)
    return [
        Claim(
            "the full step meets its KL limit for delta <= 0.01",
            f"KL / delta from {small.min():.3f} to {small.max():.3f}",
            bool(small.min() >= 0.9 and small.max() <= 1.1),
        ),
        Claim("with g.Fg instead of g.F^-1 g it exceeds the limit", f"at least {misprint:.0f}-fold at delta 1e-4", misprint > 20),
        Claim(
            "backtracking ends inside the trust region with a better surrogate",
            f"KL / delta <= {accepted:.4f}",
            accepted <= 1 and gain > 0,
        ),
        Claim("every step of a run to the optimum stays inside the trust region", f"KL / delta <= {spent:.4f}", spent <= 1),
        Claim("and every run reaches the optimum", f"final J* - J at most {regret:.1e}", regret <= REACHED),
    ]


def table_of_spending(results: TrustRegionResults) -> Table:
    """Table of single steps over delta."""
    return Table(
        "One step: mean KL / delta",
        ("delta", "full step", "smallest", "largest", "after backtracking", "misprint (median)", "misprint, quadratic model (median)"),
        [
            (delta, *map(float, (f.mean(), f.min(), f.max(), k.mean(), np.median(w), np.median(p))))
            for delta, f, k, w, p in zip(DELTAS, results.full.T, results.accepted.T, results.misprint.T, results.predicted.T, strict=True)
        ],
    )


def table_of_coordinates(results: TrustRegionResults) -> Table:
    """Table of steps in other coordinates over the skew."""
    return Table(
        "One step in other coordinates: largest distance of the new policy to that of the step in the logits",
        ("skew", "natural (largest)", "plain (median)", "plain (smallest)"),
        [(x, *map(float, (n.max(), np.median(p), p.min()))) for x, n, p in zip(SKEWS, results.natural.T, results.plain.T, strict=True)],
    )


def table_of_runs(results: TrustRegionResults) -> Table:
    """Table of runs to the optimum over delta."""
    return Table(
        "TRPO from random policies",
        (
            "delta",
            "runs",
            "initial J* - J",
            "runs within 1e-8",
            "largest final J* - J",
            "steps (mean)",
            "fraction of steps that increased J",
            "largest KL / delta",
        ),
        [
            (
                delta,
                len(runs),
                float(np.mean([run.regret[0] for run in runs])),
                sum(run.regret[-1] <= REACHED for run in runs),
                max(run.regret[-1] for run in runs),
                float(np.mean([len(run.regret) - 1 for run in runs])),
                float(np.mean([run.rising for run in runs])),
                max(run.spent for run in runs),
            )
            for delta, runs in results.runs.items()
        ],
    )


def draw(results: TrustRegionResults) -> Figure:
    """Figure of KL / delta, of steps in other coordinates and of the regret of every run."""
    figure, (left, middle, right) = panels(
        ("delta", "mean KL / delta"), ("skew of the coordinates", "distance of the new policies"), ("step", "J* - J")
    )
    left.loglog(DELTAS, np.median(results.misprint, 0), "o-", color=color(1), label="misprint, g.Fg")
    left.loglog(DELTAS, results.full.mean(0), "o-", color=color(0), label="full step")
    left.loglog(DELTAS, results.accepted.mean(0), "o--", color=color(2), label="after backtracking")
    middle.semilogy(SKEWS[1:], np.median(results.plain, 0)[1:], "o-", color=color(1), label="plain gradient")
    middle.semilogy(SKEWS, np.maximum(np.median(results.natural, 0), 1e-17), "o-", color=color(0), label="natural gradient")
    for i, (delta, runs) in enumerate(results.runs.items()):
        for run in runs:
            right.semilogy(np.maximum(run.regret, 1e-9), color=color(i), alpha=0.35, linewidth=1)
        right.semilogy([], color=color(i), label=f"delta {delta:g}")
    right.set_ylim(1e-10, 1e3)
    left.set_ylim(0.1, 1e5)
    middle.set_ylim(1e-18, 1e2)
    for ax in (left, middle, right):
        legend(ax)
    return figure


# --------------------------------------------------------------------------------------------------------- the natural gradient
def fisher_product(mdp: MDP, pi: Array) -> Callable[[Array], Array]:
    """Fisher-vector product x -> F x, both [S, A], without forming F: d(s) pi (x - <pi, x>)."""
    weight = discounted(mdp, pi)[:, None] * pi
    return lambda x: np.asarray(weight * (x - expectation(pi, x)[:, None]))


def conjugate_gradient(product: Callable[[Array], Array], g: Array, tol: float = 1e-14, limit: int = 200) -> Array:
    """Solution x of F x = g from products F x; F may be singular if g lies in its range, as a policy gradient does."""
    x, r = np.zeros_like(g), g.copy()
    p, rr = r.copy(), float((r * r).sum())
    for _ in range(limit):
        if rr <= tol**2 * float((g * g).sum()):
            break
        fp = product(p)
        length = rr / float((p * fp).sum())
        x, r = x + length * p, r - length * fp
        rr, before = float((r * r).sum()), rr
        p = r + rr / before * p
    return x


def natural_step_error(seed: int) -> float:
    """Largest distance of the step by conjugate gradients to its closed form."""
    mdp, theta = problem(seed)
    pi = softmax(theta)
    x = conjugate_gradient(fisher_product(mdp, pi), policy_gradient(mdp, pi))
    return float(np.abs(softmax(theta + ETA * x) - npg_step(mdp, pi, ETA)).max())


def reparameterised(seed: int, skew: float) -> tuple[float, float]:
    """Distances of one step in phi to one in theta, for the natural and the plain gradient.

    theta = M phi, M a random rotation after random scales exp(skew N(0, 1)).
    """
    mdp, theta = problem(seed)
    pi, rng = softmax(theta), np.random.default_rng(seed + 1)
    M = np.linalg.qr(rng.normal(size=(theta.size, theta.size)))[0] * np.exp(skew * rng.normal(size=theta.size))
    g, F = policy_gradient(mdp, pi).ravel(), fisher(mdp, pi)
    natural = M @ (np.linalg.pinv(M.T @ F @ M, rcond=1e-12) @ (M.T @ g))
    moved = [softmax(theta + ETA * x.reshape(theta.shape)) for x in (natural, M @ (M.T @ g), g)]
    return float(np.abs(moved[0] - npg_step(mdp, pi, ETA)).max()), float(np.abs(moved[1] - moved[2]).max())


def problem(seed: int) -> tuple[MDP, Array]:
    """Random Garnet and random logits."""
    return garnet(8, 3, 3, seed=seed), np.random.default_rng(seed).normal(size=(8, 3))


# ------------------------------------------------------------------------------------------------------------- the trust region
class AcceptedStep(NamedTuple):
    """Step accepted by backtracking."""

    theta: Array  # [S, A]
    divergence: float  # mean KL(old || new)
    gain: float  # gain of the surrogate, 0 if no step was accepted


def full_step(mdp: MDP, pi: Array, delta: float, x: Array) -> tuple[Array, float]:
    """Step sqrt(2 delta / g.x) x with F x = g, and the length of the misprinted step sqrt(2 delta / g.Fg) x relative to it."""
    g, product = policy_gradient(mdp, pi), fisher_product(mdp, pi)
    correct, misprint = float((g * x).sum()), float((g * product(g)).sum())
    return np.sqrt(2 * delta / correct) * x, float(np.sqrt(correct / misprint))


def backtrack(mdp: MDP, theta: Array, step: Array, delta: float) -> AcceptedStep:
    """Longest of step, 0.8 step, ... with E_d KL(old || new) <= delta and a better surrogate, or no step if there is none."""
    pi = softmax(theta)
    occupancy, q = discounted(mdp, pi), q_of(mdp, pi)
    advantage = q - expectation(pi, q)[:, None]
    for k in range(SHRINKINGS):
        new = theta + SHRINK**k * step
        divergence = float(occupancy @ kl_of_logits(theta, new))
        gain = float(occupancy @ expectation(softmax(new), advantage)) / (1 - mdp.gamma)
        if divergence <= delta and gain > 0:
            return AcceptedStep(new, divergence, gain)
    return AcceptedStep(theta, 0.0, 0.0)


def spent(seed: int, delta: float) -> tuple[float, ...]:
    """KL / delta of the full step, of the misprinted step, of its quadratic model and after backtracking; gain of the surrogate."""
    mdp, theta = problem(seed)
    pi = softmax(theta)
    x = conjugate_gradient(fisher_product(mdp, pi), policy_gradient(mdp, pi))
    step, factor = full_step(mdp, pi, delta, x)
    full, misprint = (float(discounted(mdp, pi) @ kl_of_logits(theta, theta + k * step)) / delta for k in (1.0, factor))
    accepted = backtrack(mdp, theta, step, delta)
    return full, misprint, factor**2, accepted.divergence / delta, accepted.gain


def kl_of_logits(old: Array, new: Array) -> Array:
    """KL divergence KL(softmax(old) || softmax(new)), [S], finite where a probability underflows."""
    return expectation(softmax(old), log_softmax(old) - log_softmax(new))


def trpo_run(mdp: MDP, delta: float, steps: int) -> TRPORun:
    """TRPO with exact gradients and advantages until J* is reached within `REACHED` or no step is accepted.

    F^-1 g is the table of advantages / (1 - gamma) in closed form: F becomes singular as pi becomes deterministic, and conjugate
    gradients would need the damping of the paper's code.
    """
    best, theta = float(mdp.mu0 @ policy_iteration(mdp).v), np.random.default_rng(0).normal(size=(mdp.S, mdp.A))
    regret, largest = [best - performance(mdp, softmax(theta))], 0.0
    while len(regret) <= steps and regret[-1] > REACHED:
        pi = softmax(theta)
        q = q_of(mdp, pi)
        x = (q - expectation(pi, q)[:, None]) / (1 - mdp.gamma)
        step = backtrack(mdp, theta, full_step(mdp, pi, delta, x)[0], delta)
        if step.gain == 0:
            break
        theta, largest = step.theta, max(largest, step.divergence / delta)
        regret.append(best - performance(mdp, softmax(theta)))
    return TRPORun(regret, largest, float(np.mean(np.diff(regret) < 0)))
