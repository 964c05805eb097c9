"""Weight of CQL at which its actor is most similar to one-step RL, with continuous actions.

CQL(H) (arXiv:2006.04779, appendix F: log-sum-exp by importance sampling) has a squashed Gaussian actor of temperature 1. One-step RL learns
SARSA's Q^beta and one of two actors: regression weighted by exp(A / temperature) (AWR-type, arXiv:1910.00177), or
max E_pi[log Q] - KL(pi || beta) (arXiv:2307.12968). Every lambda, kind of data and seed is a member of one ensemble.
Letters: E members, L lambdas, D data sets, B batch, M samples of actions.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mbkit.networks.distributions import gaussian_kl
from mbkit.networks.mlp import EnsembleMLP
from mbkit.report.figure import GRID, INK, MUTED, color
from mbkit.tabular.mdp import Array
from mbkit.theory.conservative_nets import (
    TEMPERATURE,
    DataSets,
    Gaussians,
    TrainedNetworks,
    gather,
    members,
    one_step_actors,
    train,
)
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment
from mbkit.theory.plants import KINDS, LQR_FORCE, PLANTS, Plant, lqr_behaviour, lqr_noisy_q, record, returns

HYPOTHESIS = 10.0  # lambda at which the similarity is conjectured to be largest


# -------------------------------------------------------------------------------------------------------------------- measuring
class Comparison(NamedTuple):
    """Comparison of CQL and one-step RL on one problem; one-step actors: 0 AWR-type, 1 log-Q. K kinds of data, N seeds."""

    plant: Plant
    error: Array  # [2, L, K, N] mean squared difference of the actors' means
    kl: Array  # [2, L, K, N] KL(CQL || one-step)
    clone_error: Array  # [2, K, N] mean squared difference of the cloned policy
    clone_kl: Array  # [2, K, N] KL(cloned policy || one-step)
    to_clone: Array  # [L, K, N] mean squared difference of CQL to the cloned policy
    score: Array  # [L, K, N] normalised return of CQL: 0 random actions, 1 expert
    one_step_scores: Array  # [3, K, N] normalised returns of cloning, AWR-type and log-Q
    value: Array  # [K, N] mean V^beta after the reward shift, the theoretical lambda for the log-Q actor
    gaps: Array  # [L, K, N] log int exp Q - Q(data)
    finite: bool  # whether all parameters are finite


@torch.no_grad()
def compare(
    plant: Plant, data: DataSets, networks: TrainedNetworks, actors: tuple[Gaussians, Gaussians], seed: int, episodes: int
) -> Comparison:
    """Distances on states of the data, and returns of the mean actions."""
    D, N = len(data.reward), len(data.reward) // len(KINDS)
    L = len(networks.gaps)
    obs, action, *_ = data.batch(np.random.default_rng(seed + 1), (L + 1) * D, 512)
    mean, log_std = networks.actors(obs)
    cql = mean[D:].unflatten(0, (-1, D)), log_std[D:].unflatten(0, (-1, D))
    regression_mean, regression_log_std = actors[0](obs[: 2 * D])
    clone = regression_mean[:D], regression_log_std[:D]
    one_step = (regression_mean[D:], regression_log_std[D:]), actors[1](obs[:D])

    def shaped(x: Tensor) -> Array:
        return np.asarray(x.double().numpy().reshape(*x.shape[:-1], len(KINDS), N))

    def square(x: Tensor, y: Tensor) -> Tensor:
        return ((x.tanh() - y.tanh()) ** 2).mean((-1, -2))

    q = members(networks.critics, slice(0, D))(obs[:D], action[:D]).mean(1).double().numpy()
    score = scores(plant, (networks.actors, *actors), seed, episodes)
    return Comparison(
        plant,
        shaped(torch.stack([square(cql[0], ref[0]) for ref in one_step])),
        shaped(torch.stack([gaussian_kl(*cql, *ref).mean(-1) for ref in one_step])),
        shaped(torch.stack([square(clone[0], ref[0]) for ref in one_step])),
        shaped(torch.stack([gaussian_kl(*clone, *ref).mean(-1) for ref in one_step])),
        shaped(square(cql[0], clone[0])),
        score[D : (L + 1) * D].reshape(-1, len(KINDS), N),
        score[(L + 1) * D :].reshape(3, len(KINDS), N),
        (q + data.shift / (1 - plant.gamma)).reshape(len(KINDS), N),
        networks.gaps.reshape(-1, len(KINDS), N),
        networks.finite,
    )


def scores(plant: Plant, ensembles: Sequence[Gaussians], seed: int, episodes: int) -> Array:
    """Normalised returns of all members of the ensembles in order, [sum E], from the same initial states."""
    start = plant.reset(np.random.default_rng(seed + 2), episodes)

    def mean_return(act: Callable[[Array], Array], state: Array) -> Array:
        return np.asarray(returns(plant, act, state, np.random.default_rng(seed + 3)).mean(-1))

    def follow(ensemble: Gaussians) -> Callable[[Array], Array]:
        return lambda obs: ensemble(torch.tensor(obs, dtype=torch.float32))[0].tanh().double().numpy()

    rng = np.random.default_rng(seed + 4)
    low = float(mean_return(lambda obs: rng.uniform(-1, 1, plant.expert(start).shape), start))
    high = float(expert_returns(plant, start, seed + 3).mean())
    raw = [mean_return(follow(e), np.tile(start, (e.net.members, 1, 1))) for e in ensembles]
    return (np.concatenate(raw) - low) / (high - low)


def expert_returns(plant: Plant, state: Array, seed: int) -> Array:
    """Returns of the expert controller without noise, which observes the state."""
    rng, total = np.random.default_rng(seed), np.zeros(state.shape[:-1])
    for _ in range(plant.steps):
        reward, state = plant.step(rng, state, plant.expert(state))
        total += reward
    return total


# ------------------------------------------------------------------------------------------------------------------- experiment
@experiment(
    "cql_weight_continuous",
    "With continuous actions the lambda at which CQL is most similar to one-step RL depends on data and actor: 10 is not special",
    alias="n3",
)
def cql_weight_continuous(setting: Setting) -> Findings:
    """Lambda x {LQR, pendulum, point mass} x {random, medium, medium-expert} x seeds."""
    seeds = range(setting.seed, setting.seed + setting.pick(3, 1))
    lams = np.logspace(-1, 3, setting.pick(7, 3))
    comparisons: list[Comparison] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        for plant in PLANTS:
            data = gather(plant, seeds, 4000)
            networks = train(data, lams, plant.gamma, setting.pick(1200, 150), setting.seed)
            actors = one_step_actors(data, networks.critics, plant.gamma, setting.pick(1000, 60), setting.seed)
            comparisons.append(compare(plant, data, networks, actors, setting.seed, setting.pick(20, 5)))
            if plant.name == "LQR":
                closed = closed_form_table(data, networks.critics, len(seeds))
                exact = max(least_squares_errors(seed) for seed in seeds)
    finite = sum(c.finite for c in comparisons)
    text = "SARSA on the LQR, least squares on 1, s^2, s u, u^2, reproduces the closed-form Q^beta"
    claims = [
        Claim(text, f"largest relative error {exact:.3f}", exact < 0.15),
        Claim("all networks are finite at every lambda", f"{finite} of {len(comparisons)} problems", finite == len(comparisons)),
        gap_claim(comparisons),
        clone_claim(comparisons),
        lower_bound_claim(),
    ]
    distances = [best_table(comparisons, lams, actor) for actor in range(len(ACTORS))]
    tables = [closed, *distances, *(curve_table(c, lams) for c in comparisons), score_table(comparisons, lams)]
    return Findings(claims, tables, curves(comparisons, lams))


def least_squares_errors(seed: int, rows: int = 50_000) -> float:
    """Relative root mean squared error of LSTD-Q with features that span the LQR's Q, the larger of two kinds of data."""
    largest = 0.0
    for kind in ("random", "medium"):
        data = record(PLANTS[0], kind, np.random.default_rng([seed, 7]), rows)

        def features(s: Array, a: Array) -> Array:
            s, u = s[:, 0], LQR_FORCE * a[:, 0]
            return np.stack([np.ones_like(s), s * s, s * u, u * u], 1)

        x, next_x = features(data.obs, data.action), features(data.next_obs, data.next_action)
        weight = np.linalg.solve(x.T @ (x - PLANTS[0].gamma * next_x), x.T @ data.reward)
        exact = lqr_noisy_q(*lqr_behaviour(kind), data.obs[:, 0], LQR_FORCE * data.action[:, 0])
        largest = max(largest, float(np.sqrt(((x @ weight - exact) ** 2).mean()) / exact.std()))
    return largest


@torch.no_grad()
def closed_form_table(data: DataSets, critics: EnsembleMLP, seeds: int) -> Table:
    """Table of the errors of SARSA's networks on the LQR relative to the closed form, on the data."""
    q = members(critics, slice(0, len(data.reward)))(data.obs, data.action).double().numpy()
    rows = []
    for i, kind in enumerate(("random", "medium")):
        at = slice(i * seeds, (i + 1) * seeds)
        exact = lqr_noisy_q(*lqr_behaviour(kind), data.rows.obs[at, :, 0], LQR_FORCE * data.rows.action[at, :, 0])
        error = np.sqrt(((q[at] - exact) ** 2).mean(1))
        rows.append((kind, float(exact.mean()), float(exact.std(1).mean()), float(error.mean()), float((error / exact.std(1)).max())))
    return Table("LQR: SARSA networks and the closed-form Q^beta", ("data", "mean Q", "std of Q", "rmse", "largest rmse / std"), rows)


def gap_claim(comparisons: Sequence[Comparison]) -> Claim:
    """Claim that the penalty decreases with its weight; its limit is the entropy of the data's actions, A log 2 for random ones."""
    first, last = (np.array([c.gaps[i].mean() for c in comparisons]) for i in (0, -1))
    text = "log int exp Q - Q(data), which CQL penalises, is smaller at the largest lambda than at the smallest"
    return Claim(text, f"means by problem {first.round(2).tolist()} -> {last.round(2).tolist()}", bool((last < first).all()))


def clone_claim(comparisons: Sequence[Comparison]) -> Claim:
    """Claim on the limit of large lambda."""
    first, last = (np.array([c.to_clone[i].mean() for c in comparisons]) for i in (0, -1))
    measured = ", ".join(f"{c.plant.name} {a:.4f} -> {b:.4f}" for c, a, b in zip(comparisons, first, last, strict=True))
    text = "the actor of CQL is nearer to behaviour cloning at the largest lambda than at the smallest, on average over the problems"
    return Claim(text, measured, bool(last.mean() < first.mean()))


def divergence(narrow: float, wide: float) -> float:
    """D = int pi (pi / beta - 1) for Gaussians with one mean, pi narrower: wide^2 / (narrow sqrt(2 wide^2 - narrow^2)) - 1 >= 0."""
    return float(wide**2 / (narrow * np.sqrt(2 * wide**2 - narrow**2)) - 1)


def lower_bound_claim() -> Claim:
    """Claim on the gap of CQL(mu = pi) below V^pi if pi has beta's mean: lambda D / (1 - gamma) in every state."""
    a, error, smallest = np.linspace(-8, 8, 200_001), 0.0, np.inf
    for narrow in (0.2, 0.5, 0.9, 1.0):
        pi, beta = (np.exp(-0.5 * (a / s) ** 2) / (s * np.sqrt(2 * np.pi)) for s in (narrow, 1.0))
        D = divergence(narrow, 1.0)
        error, smallest = max(error, abs(float((pi * (pi / beta - 1)).sum() * (a[1] - a[0])) - D)), min(smallest, D)
    text = "CQL(mu = pi) is a lower bound with continuous actions too: D = int pi (pi / beta - 1) >= 0, in closed form for Gaussians"
    return Claim(text, f"difference to quadrature {error:.1e}, smallest D {smallest:.1e}", error < 1e-8 and smallest >= 0)


# ------------------------------------------------------------------------------------------------------------ tables and figure
ACTORS = ("AWR-type", "log-Q")


def best_table(comparisons: Sequence[Comparison], lams: Array, actor: int) -> Table:
    """Table of the lambda with CQL nearest to one of the one-step actors for each seed, and of the distance of cloning."""
    rows: list[Sequence[object]] = []
    for c in comparisons:
        for k, kind in enumerate(KINDS):
            error, kl = c.error[actor, :, k], c.kl[actor, :, k]
            nearest = " ".join(f"{lam:.3g}" for lam in lams[error.argmin(0)])
            predicted = TEMPERATURE if actor == 0 else float(c.value[k].mean())
            mean = error.mean(-1)
            ten = int(np.abs(np.log10(lams / HYPOTHESIS)).argmin())
            errors = (float(mean.min()), float(mean[ten]), float(c.clone_error[actor, k].mean()))
            nearest_kl = " ".join(f"{lam:.3g}" for lam in lams[kl.argmin(0)])
            kls = (nearest_kl, float(kl.mean(-1).min()), float(c.clone_kl[actor, k].mean()))
            rows.append((c.plant.name, kind, nearest, predicted, *errors, *kls))
    columns = ("problem", "data", "argmin lambda (MSE) by seed", "exact theory", "smallest MSE", "MSE at 10", "MSE of cloning")
    title = f"CQL and one-step RL with the {ACTORS[actor]} actor"
    return Table(title, (*columns, "argmin lambda (KL) by seed", "smallest KL", "KL of cloning"), rows)


def curve_table(c: Comparison, lams: Array) -> Table:
    """Table of the values in the curves, means over seeds."""
    rows: list[Sequence[object]] = []
    for i, lam in enumerate(lams.tolist()):
        for k, kind in enumerate(KINDS):
            measured = (x.mean() for x in (*c.error[:, i, k], *c.kl[:, i, k], c.to_clone[i, k], c.score[i, k]))
            rows.append((float(lam), kind, *(float(x) for x in measured)))
    distances = (*(f"{distance} to {actor}" for distance in ("MSE", "KL") for actor in ACTORS), "MSE to cloning")
    return Table(f"{c.plant.name}, means over seeds", ("lambda", "data", *distances, "normalised return"), rows)


def score_table(comparisons: Sequence[Comparison], lams: Array) -> Table:
    """Table of normalised returns (0 random actions, 1 expert), means and standard deviations over seeds."""
    rows: list[Sequence[object]] = []
    for c in comparisons:
        for k, kind in enumerate(KINDS):
            best = int(c.score[:, k].mean(-1).argmax())
            values = [*c.one_step_scores[:, k], c.score[best, k]]
            rows.append((c.plant.name, kind, *(f"{x.mean():.3f} ± {x.std():.3f}" for x in values), float(lams[best])))
    return Table("Normalised return", ("problem", "data", "cloning", *ACTORS, "CQL at the best lambda", "best lambda"), rows)


def curves(comparisons: Sequence[Comparison], lams: Array) -> Figure:
    """Figure with a column per problem. Top: distance to the AWR-type actor, with that of cloning; bottom: return."""
    figure = Figure(figsize=(9.8, 5.2), layout="constrained")
    axes = figure.subplots(2, len(comparisons), sharex=True, squeeze=False)
    for column, c in enumerate(comparisons):
        for row, ax in enumerate(axes[:, column]):
            for k, kind in enumerate(KINDS):
                y = c.score[:, k] if row else c.error[0, :, k]
                ax.plot(lams, y.mean(-1), "o-", color=color(k), markersize=3.5, linewidth=1.7, label=kind)
                ax.fill_between(lams, y.min(-1), y.max(-1), color=color(k), alpha=0.15, linewidth=0)
                baseline = c.one_step_scores[1, k] if row else c.clone_error[0, k]
                ax.axhline(baseline.mean(), color=color(k), linestyle=":", linewidth=1.3)
            ax.set_xscale("log")
            if row == 0:
                ax.set_yscale("log")
                ax.set_title(c.plant.name, fontsize=9.5, color=INK, loc="left")
            else:
                ax.set_xlabel("lambda", color=MUTED)
            ax.grid(axis="y", color=GRID, linewidth=0.8)
            ax.tick_params(which="both", colors=MUTED, length=0)
            for side, spine in ax.spines.items():
                spine.set_visible(side == "bottom")
                spine.set_color(GRID)
    axes[0, 0].set_ylabel("MSE to one-step RL (AWR-type)\ndotted: behaviour cloning", color=MUTED)
    axes[1, 0].set_ylabel("normalised return\ndotted: one-step RL", color=MUTED)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False, labelcolor=INK, fontsize=8.5)
    return figure
