"""Natural gradients and trust regions (Kakade 2001; Schulman et al. 2015, arXiv:1502.05477), exactly. S states, A actions.

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

DELTAS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # mean KL a step may spend
SHRINK, SHRINKINGS = 0.8, 60  # of the backtracking. Paper's code: 0.8 and 10; here: 60 (the wrong step starts hundreds of times too far)
SKEWS = (0.0, 0.25, 0.5, 0.75, 1.0)  # standard deviation of the logarithms of the singular values of a reparameterisation
REACHED = 1e-8  # J* - J at which a run ends
ETA = 0.05  # of the steps that are compared under reparameterisation


class Run(NamedTuple):
    """TRPO from a random policy."""

    regret: list[float]  # J* - J before each step and at the end
    spent: float  # greatest KL / delta
    rising: float  # share of the steps that raised J


class Measured(NamedTuple):
    """What single steps and runs did."""

    full: Array  # [seeds, deltas] KL / delta of the full step
    wrong: Array  # [seeds, deltas] of the misprinted one
    predicted: Array  # [seeds, deltas] of that one by the quadratic model
    kept: Array  # [seeds, deltas] after backtracking
    gain: Array  # [seeds, deltas] of the surrogate after backtracking
    natural: Array  # [seeds, skews] distance of a natural step in other coordinates
    plain: Array  # [seeds, skews] of a plain one
    solved: float  # greatest error of conjugate gradients
    runs: dict[float, list[Run]]  # by delta


@experiment("trust_region", "A natural step ignores the parameters' coordinates and spends its KL budget; a common misprint overspends")
def trust_region(setting: Setting) -> Findings:
    """Natural steps against closed forms and coordinates; KL of full, misprinted and backtracked steps; TRPO to the optimum."""
    it = measure(setting)
    tables = [table_of_spending(it), table_of_coordinates(it), table_of_runs(it)]
    return Findings([*claims_of_steps(it), *claims_of_spending(it)], tables, draw(it))


def measure(setting: Setting) -> Measured:
    """Steps for every budget and skew, and runs for two budgets."""
    seeds = range(setting.seed, setting.seed + setting.pick(50, 5))
    steps = np.array([[spent(seed, delta) for delta in DELTAS] for seed in seeds])  # [seeds, deltas, 5]
    skewed = np.array([[reparameterised(seed, skew) for skew in SKEWS] for seed in seeds])  # [seeds, skews, 2]
    runs = {delta: [climb(garnet(8, 3, 3, seed=seed), delta, 300) for seed in seeds[: setting.pick(20, 3)]] for delta in (1e-2, 1e-1)}
    return Measured(
        full=steps[..., 0],
        wrong=steps[..., 1],
        predicted=steps[..., 2],
        kept=steps[..., 3],
        gain=steps[..., 4],
        natural=skewed[..., 0],
        plain=skewed[..., 1],
        solved=max(natural_step_error(seed) for seed in seeds),
        runs=runs,
    )


def claims_of_steps(it: Measured) -> list[Claim]:
    """Closed form and coordinates."""
    natural, plain = it.natural, it.plain
    return [
        Claim("F^-1 g by conjugate gradients steps to pi exp(eta A / (1 - gamma)) / Z", f"within {it.solved:.1e}", it.solved <= 1e-10),
        Claim("the natural step is the same in any coordinates", f"within {natural.max():.1e}", bool(natural.max() <= 1e-10)),
        Claim("the plain step is not", f"apart by {plain[:, -1].min():.1e} at least", bool(plain[:, -1].min() > 1e-4)),
    ]


def claims_of_spending(it: Measured) -> list[Claim]:
    """Budgets, of single steps and of runs to the optimum."""
    small = it.full[:, np.array(DELTAS) <= 1e-2]
    most, gain, overspent = float(it.kept.max()), float(it.gain.min()), float(it.wrong[:, 1].min())
    every = [run for some in it.runs.values() for run in some]
    dearest, last = max(run.spent for run in every), max(run.regret[-1] for run in every)
    return [
        Claim(
            "the full step spends its budget for delta <= 0.01",
            f"KL / delta from {small.min():.3f} to {small.max():.3f}",
            bool(small.min() >= 0.9 and small.max() <= 1.1),
        ),
        Claim("with g.Fg in place of g.F^-1 g it overspends", f"at least {overspent:.0f}-fold at delta 1e-4", overspent > 20),
        Claim("backtracking ends inside the region with a better surrogate", f"KL / delta <= {most:.4f}", most <= 1 and gain > 0),
        Claim("so does every step of a run to the optimum", f"KL / delta <= {dearest:.4f}", dearest <= 1),
        Claim("and the optimum is reached", f"J* - J at last {last:.1e} at most", last <= REACHED),
    ]


def table_of_spending(it: Measured) -> Table:
    """Over delta."""
    return Table(
        "One step: mean KL over delta",
        ("delta", "full step", "least", "greatest", "after backtracking", "misprint (median)", "misprint, quadratic model (median)"),
        [
            (delta, *map(float, (f.mean(), f.min(), f.max(), k.mean(), np.median(w), np.median(p))))
            for delta, f, k, w, p in zip(DELTAS, it.full.T, it.kept.T, it.wrong.T, it.predicted.T, strict=True)
        ],
    )


def table_of_coordinates(it: Measured) -> Table:
    """Over the skew."""
    return Table(
        "One step in other coordinates: greatest distance of the new policy to that in the logits",
        ("skew", "natural (worst)", "plain (median)", "plain (least)"),
        [(skew, *map(float, (n.max(), np.median(p), p.min()))) for skew, n, p in zip(SKEWS, it.natural.T, it.plain.T, strict=True)],
    )


def table_of_runs(it: Measured) -> Table:
    """Over delta, to the optimum."""
    return Table(
        "TRPO from random policies",
        (
            "delta",
            "runs",
            "J* - J at first",
            "within 1e-8 at last",
            "greatest J* - J at last",
            "steps (mean)",
            "steps that raised J",
            "greatest KL / delta",
        ),
        [
            (
                delta,
                len(some),
                float(np.mean([run.regret[0] for run in some])),
                sum(run.regret[-1] <= REACHED for run in some),
                max(run.regret[-1] for run in some),
                float(np.mean([len(run.regret) - 1 for run in some])),
                float(np.mean([run.rising for run in some])),
                max(run.spent for run in some),
            )
            for delta, some in it.runs.items()
        ],
    )


def draw(it: Measured) -> Figure:
    """KL over delta, coordinates, regret of every run."""
    figure, (left, middle, right) = panels(
        ("delta", "mean KL / delta"), ("skew of the coordinates", "distance of the new policies"), ("step", "J* - J")
    )
    left.loglog(DELTAS, np.median(it.wrong, 0), "o-", color=color(1), label="misprint, g.Fg")
    left.loglog(DELTAS, it.full.mean(0), "o-", color=color(0), label="full step")
    left.loglog(DELTAS, it.kept.mean(0), "o--", color=color(2), label="after backtracking")
    middle.semilogy(SKEWS[1:], np.median(it.plain, 0)[1:], "o-", color=color(1), label="plain gradient")
    middle.semilogy(SKEWS, np.maximum(np.median(it.natural, 0), 1e-17), "o-", color=color(0), label="natural gradient")
    for i, (delta, some) in enumerate(it.runs.items()):
        for run in some:
            right.semilogy(np.maximum(run.regret, 1e-9), color=color(i), alpha=0.35, linewidth=1)
        right.semilogy([], color=color(i), label=f"delta {delta:g}")
    right.set_ylim(1e-10, 1e3)
    left.set_ylim(0.1, 1e5)
    middle.set_ylim(1e-18, 1e2)
    for ax in (left, middle, right):
        legend(ax)
    return figure


# ------------------------------------------------------------------------------------------------------------ the natural gradient
def fisher_product(mdp: MDP, pi: Array) -> Callable[[Array], Array]:
    """X -> F x, both [S, A], without F: d(s) pi (x - <pi, x>)."""
    weight = discounted(mdp, pi)[:, None] * pi
    return lambda x: np.asarray(weight * (x - expectation(pi, x)[:, None]))


def conjugate_gradient(product: Callable[[Array], Array], g: Array, tol: float = 1e-14, limit: int = 200) -> Array:
    """X with F x = g from products F x alone; F may be singular if g lies in its range, as a policy gradient does."""
    x, r = np.zeros_like(g), g.copy()
    p, rr = r.copy(), float((r * r).sum())
    for _ in range(limit):
        if rr <= tol**2 * float((g * g).sum()):
            break
        fp = product(p)
        size = rr / float((p * fp).sum())
        x, r = x + size * p, r - size * fp
        rr, before = float((r * r).sum()), rr
        p = r + rr / before * p
    return x


def natural_step_error(seed: int) -> float:
    """Greatest distance of the step by conjugate gradients to its closed form."""
    mdp, theta = problem(seed)
    pi = softmax(theta)
    x = conjugate_gradient(fisher_product(mdp, pi), policy_gradient(mdp, pi))
    return float(np.abs(softmax(theta + ETA * x) - npg_step(mdp, pi, ETA)).max())


def reparameterised(seed: int, skew: float) -> tuple[float, float]:
    """How far one step in phi lies from one in theta, for (natural, plain) gradients.

    Theta = M phi, M a random rotation after random scales exp(skew N(0, 1)).
    """
    mdp, theta = problem(seed)
    pi, rng = softmax(theta), np.random.default_rng(seed + 1)
    M = np.linalg.qr(rng.normal(size=(theta.size, theta.size)))[0] * np.exp(skew * rng.normal(size=theta.size))
    g, F = policy_gradient(mdp, pi).ravel(), fisher(mdp, pi)
    natural = M @ (np.linalg.pinv(M.T @ F @ M, rcond=1e-12) @ (M.T @ g))
    moved = [softmax(theta + ETA * x.reshape(theta.shape)) for x in (natural, M @ (M.T @ g), g)]
    return float(np.abs(moved[0] - npg_step(mdp, pi, ETA)).max()), float(np.abs(moved[1] - moved[2]).max())


def problem(seed: int) -> tuple[MDP, Array]:
    """A random Garnet and random logits."""
    return garnet(8, 3, 3, seed=seed), np.random.default_rng(seed).normal(size=(8, 3))


# ---------------------------------------------------------------------------------------------------------------- the trust region
class Step(NamedTuple):
    """What backtracking accepts."""

    theta: Array  # [S, A]
    divergence: float  # mean KL(old || new)
    gain: float  # of the surrogate, 0 if no step was


def full_step(mdp: MDP, pi: Array, delta: float, x: Array) -> tuple[Array, float]:
    """(The step sqrt(2 delta / g.x) x with F x = g, how much longer sqrt(2 delta / g.Fg) x is)."""
    g, product = policy_gradient(mdp, pi), fisher_product(mdp, pi)
    right, wrong = float((g * x).sum()), float((g * product(g)).sum())
    return np.sqrt(2 * delta / right) * x, float(np.sqrt(right / wrong))


def backtrack(mdp: MDP, theta: Array, step: Array, delta: float) -> Step:
    """The longest of step, 0.8 step, ... with E_d KL(old || new) <= delta and a better surrogate; none: no step."""
    pi = softmax(theta)
    law, q = discounted(mdp, pi), q_of(mdp, pi)
    advantage = q - expectation(pi, q)[:, None]
    for k in range(SHRINKINGS):
        new = theta + SHRINK**k * step
        divergence = float(law @ kl_of_logits(theta, new))
        gain = float(law @ expectation(softmax(new), advantage)) / (1 - mdp.gamma)
        if divergence <= delta and gain > 0:
            return Step(new, divergence, gain)
    return Step(theta, 0.0, 0.0)


def spent(seed: int, delta: float) -> tuple[float, ...]:
    """KL / delta of the full step, the misprinted one, its quadratic model and after backtracking; gain of the surrogate."""
    mdp, theta = problem(seed)
    pi = softmax(theta)
    x = conjugate_gradient(fisher_product(mdp, pi), policy_gradient(mdp, pi))
    step, longer = full_step(mdp, pi, delta, x)
    right, wrong = (float(discounted(mdp, pi) @ kl_of_logits(theta, theta + k * step)) / delta for k in (1.0, longer))
    accepted = backtrack(mdp, theta, step, delta)
    return right, wrong, longer**2, accepted.divergence / delta, accepted.gain


def kl_of_logits(old: Array, new: Array) -> Array:
    """KL(softmax(old) || softmax(new)), [S], finite where a probability underflows."""
    return expectation(softmax(old), log_softmax(old) - log_softmax(new))


def climb(mdp: MDP, delta: float, steps: int) -> Run:
    """TRPO with exact gradients and advantages, until J* is reached within `REACHED` or no step is found.

    F^-1 g is the table of advantages / (1 - gamma), in closed form: as pi becomes deterministic, F becomes singular, and conjugate
    gradients would need the damping that the paper's code has.
    """
    best, theta = float(mdp.mu0 @ policy_iteration(mdp).v), np.random.default_rng(0).normal(size=(mdp.S, mdp.A))
    regret, dearest = [best - performance(mdp, softmax(theta))], 0.0
    while len(regret) <= steps and regret[-1] > REACHED:
        pi = softmax(theta)
        q = q_of(mdp, pi)
        x = (q - expectation(pi, q)[:, None]) / (1 - mdp.gamma)
        taken = backtrack(mdp, theta, full_step(mdp, pi, delta, x)[0], delta)
        if taken.gain == 0:
            break
        theta, dearest = taken.theta, max(dearest, taken.divergence / delta)
        regret.append(best - performance(mdp, softmax(theta)))
    return Run(regret, dearest, float(np.mean(np.diff(regret) < 0)))
