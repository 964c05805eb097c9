"""Linear convergence of the entropy-regularised natural policy gradient, for learning rates eta <= (1 - gamma) / tau (arXiv:2007.06558).

log pi [S, A]; Q_tau [S, A] the soft value; the learning rate is stated as its share eta tau / (1 - gamma) of the largest, in (0, 1].
"""

from itertools import product
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mbkit.report.figure import INK, color, panels
from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import MDP, Array, random_policy
from mbkit.tabular.natural_gradient import entropy_npg_step, npg_step
from mbkit.tabular.operators import log_table, q_of, soft_q_of
from mbkit.tabular.planning import policy_iteration, soft_policy_iteration
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment

FLOOR = 1e-9  # smaller errors may be rounding errors: values are of the order 1 / (1 - gamma)
COLUMNS = (
    "gamma",
    "tau",
    "eta tau / (1 - gamma)",
    "guaranteed rate",
    "measured",
    "std",
    "(1 - share)^2",
    "largest error / bound",
    "steps to 1e-6",
)
Case = tuple[float, float, float]  # gamma, tau, share


class ConvergenceResults(NamedTuple):
    """Errors and bounds with entropy, losses without."""

    curves: dict[Case, Array]  # [seeds, 2, steps] error and bound
    losses: Array  # [1 + taus, seeds, steps] losses without entropy, gamma = 0.9
    taus: tuple[float, ...]


@experiment("entropy_npg", "Natural policy gradient with entropy converges linearly, like (1 - eta tau)^t, to the regularised optimum")
def entropy_npg(setting: Setting) -> Findings:
    """Error |Q*_tau - Q_t| and bound C gamma (1 - eta tau)^t on Garnets for several eta, tau and gamma, and the loss without entropy."""
    results = measure(setting)
    rows = [rates(case, runs) for case, runs in results.curves.items()]
    claims = [*claims_of_rates(rows, sum(runs[:, 0].size for runs in results.curves.values())), claim_of_limit(results)]
    return Findings(claims, [Table("Convergence rates, over Garnets", COLUMNS, rows), table_of_losses(results)], draw(results))


def measure(setting: Setting) -> ConvergenceResults:
    """Errors for every gamma, tau and share, and losses without entropy for gamma = 0.9."""
    steps = setting.pick(600, 150)
    seeds = range(setting.seed, setting.seed + setting.pick(6, 3))
    gammas, taus = setting.pick((0.9, 0.99), (0.9,)), setting.pick((0.01, 0.1, 1.0), (0.1, 1.0))
    cases = product(gammas, taus, setting.pick((0.02, 0.1, 0.3, 0.9, 1.0), (0.1, 0.3, 1.0)))
    curves = {(g, tau, share): np.array([run(garnet(seed=k, gamma=g), tau, share, k, steps) for k in seeds]) for g, tau, share in cases}
    losses = np.array([[hard_loss(garnet(seed=seed), tau, seed, steps) for seed in seeds] for tau in (0.0, *taus)])
    return ConvergenceResults(curves, losses, taus)


def rates(case: Case, runs: Array) -> tuple[float, ...]:
    """Table row with the `COLUMNS`, from error and bound [seeds, 2, steps]."""
    (gamma, tau, share), error, bound = case, runs[:, 0], runs[:, 1]
    measured = [tail_rate(e) for e in error] if share < 1 else [0.0]
    reached = (error > 1e-6).sum(1).mean()
    ratio = (np.maximum(error - FLOOR, 0) / bound).max()
    return gamma, tau, share, 1 - share * (1 - gamma), *map(float, (np.mean(measured), np.std(measured), (1 - share) ** 2, ratio, reached))


def claims_of_rates(rows: list[tuple[float, ...]], cases: int) -> list[Claim]:
    """Claims on the bound and on the measured rate; `cases` is the number of errors compared with the bound."""
    guaranteed, measured, local, ratio = (np.array([row[i] for row in rows]) for i in (3, 4, 6, 7))
    partial, largest = np.array([row[2] < 1 for row in rows]), max(row[8] for row in rows if row[2] == 1)
    return [
        Claim(
            "no error exceeds C gamma (1 - eta tau)^t",
            f"{(ratio > 1).sum()}/{cases}, largest ratio {ratio.max():.3f}",
            bool((ratio <= 1).all()),
        ),
        Claim(
            "asymptotically the error decreases faster than guaranteed",
            f"largest measured rate / guaranteed rate {(measured / guaranteed).max():.3f}",
            bool((measured < guaranteed).all()),
        ),
        Claim(
            "namely by (1 - eta tau / (1 - gamma))^2 per step, because the error of the value is quadratic in the error of the policy",
            f"largest difference {np.abs(measured - local)[partial].max():.3f}",
            bool((np.abs(measured - local)[partial] < 0.03).all()),
        ),
        Claim("the largest learning rate, soft policy iteration, reaches 1e-6 in 12 steps", f"mean at most {largest:.1f}", largest <= 12),
    ]


def claim_of_limit(results: ConvergenceResults) -> Claim:
    """Claim on the loss that the entropy term causes."""
    limits, final, taus = [0.9 * tau * np.log(4) / (1 - 0.9) for tau in results.taus], results.losses[..., -1].max(1), results.taus
    return Claim(
        "the limit is the regularised optimum: its loss without entropy is at most gamma tau ln A / (1 - gamma)",
        ", ".join(f"tau {t:g}: {f:.3g} of {b:.3g}" for t, f, b in zip(taus, final[1:], limits, strict=True)),
        all(1e-6 < f <= b for f, b in zip(final[1:], limits, strict=True)),
    )


def table_of_losses(results: ConvergenceResults) -> Table:
    """Table of losses over tau and steps."""
    marks = (1, 10, 100, results.losses.shape[-1])
    rows = [
        (t, *(float(each[:, k - 1].mean()) for k in marks), float(each[:, -1].std()))
        for t, each in zip((0.0, *results.taus), results.losses, strict=True)
    ]
    return Table("Loss |Q* - Q^pi| without entropy, gamma = 0.9", ("tau", *(f"step {k}" for k in marks), "std"), rows)


def draw(results: ConvergenceResults) -> Figure:
    """Figure. Left: error and bound of the first Garnet, gamma = 0.9, tau = 0.1. Right: losses without entropy."""
    steps = results.losses.shape[-1]
    figure, (left, right) = panels(("step t", "|Q*_tau - Q_t|"), ("step t", "loss without entropy"))
    for i, share in enumerate(s for g, t, s in results.curves if (g, t) == (0.9, 0.1)):
        error, bound = results.curves[0.9, 0.1, share][0]
        t = np.arange(1, steps + 1)
        left.loglog(t, np.where(error > FLOOR, error, np.nan), color=color(i), label=f"share {share:g}")
        left.loglog(t, bound, "--", lw=1.0, color=color(i))
    for i, tau in enumerate((0.0, *results.taus)):
        right.loglog(np.arange(1, steps + 1), results.losses[i].mean(0), color=color(i), label=f"tau = {tau:g}")
    left.set_ylim(1e-9, 1e5)
    right.set_ylim(1e-4, 10)
    left.legend(frameon=False, labelcolor=INK, fontsize=7.5, loc="upper right", ncols=3)
    right.legend(frameon=False, labelcolor=INK, fontsize=7.5, loc="lower left")
    return figure


def run(mdp: MDP, tau: float, share: float, seed: int, steps: int) -> tuple[Array, Array]:
    """Errors |Q*_tau - Q_{t+1}| and bounds for t = 0..steps - 1, from a random policy; each [steps]."""
    eta = share * (1 - mdp.gamma) / tau
    best = soft_policy_iteration(mdp, tau, tol=1e-10)
    pi = random_policy(mdp, np.random.default_rng(seed))
    log_pi, error = np.log(pi), []
    log_best = (best.q - best.v[:, None]) / tau
    C = np.abs(best.q - soft_q_of(mdp, pi, tau)).max() + 2 * tau * (1 - share) * np.abs(log_best - log_pi).max()
    for _ in range(steps):
        log_pi = entropy_npg_step(mdp, log_pi, eta, tau)
        error.append(float(np.abs(best.q - soft_q_of(mdp, np.exp(log_pi), tau)).max()))
    return np.array(error), C * mdp.gamma * (1 - eta * tau) ** np.arange(steps)


def tail_rate(error: Array) -> float:
    """Asymptotic factor per step of the error, where it is below a thousandth of the first error and above rounding errors."""
    inside = np.flatnonzero((error > 10 * FLOOR) & (error < 1e-3 * error[0]))
    if len(inside) < 2:  # fewer than two steps in that range: use the last two above rounding errors
        inside = np.flatnonzero(error > FLOOR)[-2:]
    return float((error[inside[-1]] / error[inside[0]]) ** (1 / (inside[-1] - inside[0])))


def hard_loss(mdp: MDP, tau: float, seed: int, steps: int) -> list[float]:
    """Loss |Q* - Q^pi| without entropy after 1..steps steps with learning rate 1 - gamma; tau = 0 is the plain natural gradient."""
    best, pi = policy_iteration(mdp).q, random_policy(mdp, np.random.default_rng(seed))
    eta, losses = 1 - mdp.gamma, []
    for _ in range(steps):
        pi = np.exp(entropy_npg_step(mdp, log_table(pi), eta, tau)) if tau > 0 else npg_step(mdp, pi, eta)
        losses.append(float(np.abs(best - q_of(mdp, pi)).max()))
    return losses
