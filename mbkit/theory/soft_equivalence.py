"""Equivalence of soft Q-learning and the soft policy gradient (Schulman et al. 2017, arXiv:1704.06440). S states, A actions.

Q = V + alpha log(pi / pi0) relates a table Q to a policy. With a fixed target y and actions sampled from pi, exactly and for any pi0:

    grad E 1/2 (Q - y)^2 = -alpha E[Delta grad log pi] + alpha^2 grad D_KL(pi | pi0) - E[Delta] grad V,    Delta = y - alpha D_KL - V

Gradients are flat vectors [D] over the parameters.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mbkit.report.figure import color, legend, panels
from mbkit.returns import kl_gae, kl_n_step_return
from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import MDP, Array, random_policy, uniform_policy
from mbkit.tabular.occupancy import discounted
from mbkit.tabular.operators import expectation, kl, kl_bellman_q, kl_q_of, softmax, value_of
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment
from mbkit.theory.policy_gradient import finite_differences

TEMPERATURES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
WEIGHTS = (0.5, 0.9, 0.95)  # GAE lambdas


class Terms(NamedTuple):
    """Gradients [D], weighted over states by the occupancy."""

    squared: Array  # gradient of E 1/2 (Q - y)^2, by automatic differentiation
    score: Array  # alpha E[Delta grad log pi], Delta with D_KL(s)
    score_log_ratio: Array  # the same, Delta with log(pi / pi0) of the action
    divergence: Array  # alpha^2 grad D_KL
    value: Array  # E[Delta] grad V


class SoftEquivalenceResults(NamedTuple):
    """Errors of correct and incorrect forms."""

    sides: Array  # [temperatures, seeds, 5] results of `equivalence`
    slopes: Array  # [temperatures, seeds, 5] results of `soft_gradient`
    ratios: list[tuple[float, float]]  # by lambda: ratio of the sum from n = 0 to the usual one, largest residual


@experiment("soft_equivalence", "The gradient of soft Q-learning is that of the soft policy gradient and a value loss, for any prior")
def soft_equivalence(setting: Setting) -> Findings:
    """Both sides of the equivalence with shared parameters; the soft gradient and finite differences; the sum from n = 0."""
    results = measure(setting)
    return Findings(claims(results), tables(results), draw(results))


def measure(setting: Setting) -> SoftEquivalenceResults:
    """Errors for every temperature on every Garnet, and for every lambda on one."""
    seeds = range(setting.seed, setting.seed + setting.pick(30, 4))
    return SoftEquivalenceResults(
        sides=np.array([[equivalence(seed, alpha) for seed in seeds] for alpha in TEMPERATURES]),
        slopes=np.array([[soft_gradient(seed, alpha) for seed in seeds] for alpha in TEMPERATURES]),
        ratios=[weight_of_the_sum_from_zero(setting.seed, lam) for lam in WEIGHTS],
    )


def claims(results: SoftEquivalenceResults) -> list[Claim]:
    """Claims on the equivalence, the gradient of the objective, and the mixture of n-step advantages."""
    sides, slopes = results.sides, results.slopes
    exact, double, pull = float(sides[..., 0].max()), float(sides[..., 2].max()), float(np.median(sides[..., 3]))
    forms, incorrect, residual = float(slopes[..., :2].max()), float(slopes[..., 2].min()), float(slopes[..., 3].max())
    return [
        Claim("the two gradients are equal, for uniform and for random priors, one and three steps", f"within {exact:.1e}", exact <= 1e-12),
        Claim(
            "with the action's log-ratio in Delta, adding alpha^2 grad D_KL has exactly that term as its error",
            f"within {double:.1e}",
            double <= 1e-12 and pull > 1e-6,
        ),
        Claim("both forms of the soft policy gradient are the gradient of the objective", f"within {forms:.1e}", forms <= 1e-6),
        Claim(
            "the form with both the KL in the reward and grad D_KL has the error alpha E[grad D_KL] / (1 - gamma)",
            f"within {residual:.1e}, norm at least {incorrect:.1e}",
            residual <= 1e-12 and incorrect > 1e-6,
        ),
        Claim(
            "the mixture of n-step advantages from n = 0 is lambda times the mixture from n = 1",
            ", ".join(f"{ratio:.6f}" for ratio, _ in results.ratios),
            all(residual <= 1e-12 for _, residual in results.ratios),
        ),
    ]


def tables(results: SoftEquivalenceResults) -> list[Table]:
    """Tables of medians over the temperature, and of the mixture over lambda."""
    return [
        Table(
            "Distance to the gradient of half the squared error (largest entry, median over Garnets)",
            ("alpha", "D_KL in Delta", "log-ratio in Delta, and alpha^2 grad D_KL", "alpha^2 grad D_KL", "alpha also on the value term"),
            [(alpha, *np.median(row[:, [0, 1, 3, 4]], 0).tolist()) for alpha, row in zip(TEMPERATURES, results.sides, strict=True)],
        ),
        Table(
            "Distance to the gradient of the KL-regularised objective (largest entry, median over Garnets)",
            ("alpha", "A grad log pi - alpha grad D_KL", "(A - alpha log-ratio) grad log pi", "both", "largest entry of the gradient"),
            [(alpha, *np.median(row[:, [0, 1, 2, 4]], 0).tolist()) for alpha, row in zip(TEMPERATURES, results.slopes, strict=True)],
        ),
        Table(
            "KL-GAE as (1 - lambda) sum over n >= 0 of lambda^n A^(n), relative to the sum of TD errors",
            ("lambda", "ratio", "largest residual"),
            [(lam, *ratio) for lam, ratio in zip(WEIGHTS, results.ratios, strict=True)],
        ),
    ]


def draw(results: SoftEquivalenceResults) -> Figure:
    """Figure over the temperature. Left: the equivalence. Right: the soft policy gradient."""
    figure, (left, right) = panels(
        ("temperature alpha", "error of the decomposition"), ("temperature alpha", "error of the soft policy gradient")
    )
    medians(left, results.sides, (0, 1, 4), ("D_KL(s) in Delta", "log-ratio in Delta", "alpha on value term"))
    left.plot(TEMPERATURES, np.median(results.sides[..., 3], 1), ":", color="#23272f", linewidth=1.5, label="alpha² grad D_KL")
    medians(right, results.slopes, (0, 1, 2), ("KL beside A", "KL inside A", "both"))
    for ax in (left, right):
        ax.set_ylim(1e-18, 1e11)
        legend(ax)
    return figure


def medians(ax: object, errors: Array, columns: Sequence[int], names: Sequence[str]) -> None:
    """Plot medians over the seeds, one line per column."""
    for i, (column, name) in enumerate(zip(columns, names, strict=True)):
        style = "o--" if i == 1 else "o-"
        ax.loglog(TEMPERATURES, np.median(errors[..., column], 1), style, markersize=4, color=color(i), label=name)  # type: ignore[attr-defined]


# -------------------------------------------------------------------------------------------------------------- the equivalence
def equivalence(seed: int, alpha: float) -> tuple[float, ...]:
    """Largest entries over two priors and targets of one and three steps.

    Returns:
        Error of the decomposition, error with the action's log-ratio in Delta, difference of that error to alpha^2 grad D_KL, that term,
        and the error with alpha also on the value term (a misprint).
    """
    mdp, rng = garnet(8, 3, 3, seed=seed), np.random.default_rng(seed)
    results = []
    for prior in (uniform_policy(mdp), random_policy(mdp, rng)):
        for steps in (1, 3):
            t = terms(mdp, prior, alpha, steps, seed)
            correct, double = -t.score + t.divergence - t.value, -t.score_log_ratio + t.divergence - t.value
            spurious = -t.score + t.divergence - alpha * t.value
            errors = (correct - t.squared, double - t.squared, double - t.squared - t.divergence, t.divergence, spurious - t.squared)
            results.append([float(np.abs(error).max()) for error in errors])
    return tuple(np.max(results, 0).tolist())


def terms(mdp: MDP, prior: Array, alpha: float, steps: int, seed: int) -> Terms:
    """All five gradients for a network whose parameters are shared between states; sums over actions and states are exact."""
    rng = torch.Generator().manual_seed(seed)
    features, first, second = (torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in ((mdp.S, 4), (4, 6), (6, mdp.A)))
    parameters = [first.requires_grad_(), second.requires_grad_()]
    q = (features @ first).tanh() @ second
    log_prior = torch.as_tensor(np.log(prior))
    v = alpha * (log_prior + q / alpha).logsumexp(1, keepdim=True)
    ratio = (q - v) / alpha  # log(pi / pi0)
    log_pi = log_prior + ratio
    pi = log_pi.exp().detach()
    divergence = (log_pi.exp() * ratio).sum(1, keepdim=True)
    y = torch.as_tensor(target(mdp, pi.numpy(), q.detach().numpy(), prior, alpha, steps))
    weight = torch.as_tensor(discounted(mdp, pi.numpy()))[:, None] * pi  # [S, A], without gradient
    delta, delta_log_ratio = ((y - alpha * x - v).detach() for x in (divergence, ratio))
    sums = (
        (weight * 0.5 * (q - y).square()).sum(),
        alpha * (weight * delta * log_pi).sum(),
        alpha * (weight * delta_log_ratio * log_pi).sum(),
        alpha**2 * (weight * divergence).sum(),
        (weight * delta * v).sum(),
    )
    return Terms(*(gradient(x, parameters) for x in sums))


def target(mdp: MDP, pi: Array, q: Array, prior: Array, alpha: float, steps: int) -> Array:
    """Expected soft n-step target [S, A]: n backups of the table under the fixed policy."""
    for _ in range(steps):
        q = kl_bellman_q(mdp, pi, q, prior, alpha)
    return q


def gradient(x: Tensor, parameters: Sequence[Tensor]) -> Array:
    """Gradient dx / d parameters as a flat vector."""
    parts = torch.autograd.grad(x, parameters, retain_graph=True)
    return np.asarray(torch.cat([part.flatten() for part in parts]).numpy())


# --------------------------------------------------------------------------------------------------------- soft policy gradient
def soft_gradient(seed: int, alpha: float) -> tuple[float, ...]:
    """Largest entries, with a tabular softmax and a random prior.

    Returns:
        Distances to finite differences with the KL beside the advantage, inside it, and both; difference of the last to
        alpha E[grad D_KL] / (1 - gamma); the gradient itself.
    """
    mdp, rng = garnet(8, 3, 3, seed=seed), np.random.default_rng(seed)
    prior, theta = random_policy(mdp, rng), rng.normal(size=(8, 3))

    def objective(x: Array) -> float:
        pi = softmax(x)
        return float(mdp.mu0 @ value_of(mdp, pi, -alpha * kl(pi, prior)))

    slope = finite_differences(objective, theta)
    beside, inside, both, excess = soft_policy_gradients(mdp, softmax(theta), prior, alpha)
    errors = (beside - slope, inside - slope, both - slope, both - beside - excess, slope)
    return tuple(float(np.abs(error).max()) for error in errors)


def soft_policy_gradients(mdp: MDP, pi: Array, prior: Array, alpha: float) -> tuple[Array, Array, Array, Array]:
    """E[A grad log pi] - alpha grad D_KL; E[(A - alpha log(pi / pi0)) grad log pi]; the incorrect sum of both; its excess. All [S, A].

    A = Q - V, and Q excludes the KL of the current step. The expected KL-GAE that includes it is A - alpha log(pi / pi0) for every
    lambda if V is exact.
    """
    q, ratio, divergence = kl_q_of(mdp, pi, prior, alpha), np.log(pi / prior), kl(pi, prior)[:, None]
    advantage = q - (expectation(pi, q)[:, None] - alpha * divergence)
    scale = discounted(mdp, pi)[:, None] / (1 - mdp.gamma)

    def score(weight: Array) -> Array:
        """Gradient E[weight grad log pi] of a softmax table."""
        return np.asarray(scale * pi * (weight - expectation(pi, weight)[:, None]))

    pull = alpha * score(ratio)  # alpha grad D_KL
    inside = score(advantage - alpha * ratio)
    return score(advantage) - pull, inside, inside - pull, -pull


# ----------------------------------------------------------------------------------------------------------- the sum from n = 0
def weight_of_the_sum_from_zero(seed: int, lam: float, steps: int = 40, alpha: float = 0.7, gamma: float = 0.9) -> tuple[float, float]:
    """(1 - lambda) sum_{n>=0} lambda^n A^(n) - alpha KL_t, A^(0) = alpha KL_t, relative to the sum of deltas: (ratio, largest residual)."""
    rng = torch.Generator().manual_seed(seed)
    reward, divergence, value, after = torch.randn(4, steps, 8, generator=rng, dtype=torch.float64)
    divergence = divergence.abs()
    discount, ended = torch.ones_like(reward), torch.zeros_like(reward, dtype=torch.bool)
    next_value = torch.cat([value[1:], after[-1:]])
    current_kl = alpha * divergence
    mixture, remaining = (1 - lam) * current_kl, 1 - (1 - lam)
    for n in range(1, steps + 1):
        weight = remaining if n == steps else (1 - lam) * lam**n  # no estimate is longer than the trajectory
        mixture = mixture + weight * (kl_n_step_return(reward, divergence, discount, ended, next_value, gamma, n, alpha) - value)
        remaining -= weight
    deltas = kl_gae(reward, divergence, discount, ended, value, next_value, gamma, lam, alpha) - current_kl
    ratio = ((mixture - current_kl) * deltas).sum() / deltas.square().sum()
    return float(ratio), float((mixture - current_kl - lam * deltas).abs().max())
