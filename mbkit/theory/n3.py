"""The same question with continuous actions: at which weight of CQL is its actor most like one-step RL's?

CQL(H) (arXiv:2006.04779, appendix F: log-sum-exp by importance sampling) with a squashed Gaussian actor of temperature 1, against SARSA's
Q^beta with two actors: regression weighted by exp(A / temperature) (AWR-type, arXiv:1910.00177), and max E_pi[log Q] - KL(pi || beta)
(arXiv:2307.12968). Every lambda, kind of data and seed is a member of one ensemble.
Letters: E members, L lambdas, D data sets, B batch, M samples of actions.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mbkit.networks.mlp import EnsembleMLP
from mbkit.report.figure import GRID, INK, MUTED, color
from mbkit.tabular.mdp import Array
from mbkit.theory.conservative_nets import TEMPERATURE, Data, Gaussians, Trained, gather, gaussian_kl, members, one_step_actors, train
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment
from mbkit.theory.plants import KINDS, LQR_FORCE, PLANTS, Plant, lqr_behaviour, lqr_noisy_q, record, returns

TARGET = 10.0  # the hypothesis: similarity is largest at lambda = 10


# ------------------------------------------------------------------------------------------------------------------- measuring
class Outcome(NamedTuple):
    """Of one problem; references: 0 AWR-type, 1 log-Q. K kinds of data, N seeds."""

    plant: Plant
    error: Array  # [2, L, K, N] mean squared difference of the actors' means
    kl: Array  # [2, L, K, N] KL(CQL || one-step)
    clone_error: Array  # [2, K, N] of the cloned policy to the reference
    clone_kl: Array  # [2, K, N]
    to_clone: Array  # [L, K, N] squared difference of CQL's means to the cloned policy's
    score: Array  # [L, K, N] normalised return of CQL: 0 random actions, 1 the expert
    references: Array  # [3, K, N] the same of cloning, AWR-type, log-Q
    lift: Array  # [K, N] mean V^beta after the shift: what lambda would have to be in exact log-Q
    gaps: Array  # [L, K, N]
    finite: bool


@torch.no_grad()
def compare(plant: Plant, data: Data, found: Trained, actors: tuple[Gaussians, Gaussians], seed: int, episodes: int) -> Outcome:
    """Distances on states of the data, and returns of the actors' means."""
    D, N = len(data.reward), len(data.reward) // len(KINDS)
    obs, action, *_ = data.batch(np.random.default_rng(seed + 1), len(found.gaps) * D + D, 512)
    mean, log_std = found.actors(obs)
    cql = mean[D:].unflatten(0, (-1, D)), log_std[D:].unflatten(0, (-1, D))
    both = actors[0](obs[: 2 * D])
    clone = both[0][:D], both[1][:D]
    references = (both[0][D:], both[1][D:]), actors[1](obs[:D])

    def shaped(x: Tensor) -> Array:
        return np.asarray(x.double().numpy().reshape(*x.shape[:-1], len(KINDS), N))

    def square(x: Tensor, y: Tensor) -> Tensor:
        return ((x.tanh() - y.tanh()) ** 2).mean((-1, -2))

    q = members(found.critics, slice(0, D))(obs[:D], action[:D]).mean(1).double().numpy()
    score = scores(plant, (found.actors, *actors), seed, episodes)
    cql_score, rest = score[D : (len(found.gaps) + 1) * D], score[(len(found.gaps) + 1) * D :]
    return Outcome(
        plant,
        shaped(torch.stack([square(cql[0], ref[0]) for ref in references])),
        shaped(torch.stack([gaussian_kl(*cql, *ref).mean(-1) for ref in references])),
        shaped(torch.stack([square(clone[0], ref[0]) for ref in references])),
        shaped(torch.stack([gaussian_kl(*clone, *ref).mean(-1) for ref in references])),
        shaped(square(cql[0], clone[0])),
        cql_score.reshape(-1, len(KINDS), N),
        rest.reshape(3, len(KINDS), N),
        (q + data.shift / (1 - plant.gamma)).reshape(len(KINDS), N),
        found.gaps.reshape(-1, len(KINDS), N),
        found.finite,
    )


def scores(plant: Plant, ensembles: Sequence[Gaussians], seed: int, episodes: int) -> Array:
    """Normalised returns of all members, one after the other ensemble, [sum E]; the same first states for all."""
    start = plant.reset(np.random.default_rng(seed + 2), episodes)

    def mean_return(act: Callable[[Array], Array], state: Array) -> Array:
        return np.asarray(returns(plant, act, state, np.random.default_rng(seed + 3)).mean(-1))

    def follow(ensemble: Gaussians) -> Callable[[Array], Array]:
        return lambda obs: ensemble(torch.tensor(obs, dtype=torch.float32))[0].tanh().double().numpy()

    random = np.random.default_rng(seed + 4)
    low = float(mean_return(lambda obs: random.uniform(-1, 1, plant.expert(start).shape), start))
    high = float(returns_of_expert(plant, start, seed + 3).mean())
    raw = [mean_return(follow(e), np.tile(start, (e.net.members, 1, 1))) for e in ensembles]
    return (np.concatenate(raw) - low) / (high - low)


def returns_of_expert(plant: Plant, state: Array, seed: int) -> Array:
    """The noiseless controller, which sees the state itself."""
    rng, total = np.random.default_rng(seed), np.zeros(state.shape[:-1])
    for _ in range(plant.steps):
        reward, state = plant.step(rng, state, plant.expert(state))
        total += reward
    return total


# ------------------------------------------------------------------------------------------------------------------ experiment
@experiment("n3", "With continuous actions the lambda at which CQL is most like one-step RL depends on data and actor: 10 is not special")
def n3(setting: Setting) -> Findings:
    """Lambda x {LQR, pendulum, point mass} x {random, medium, medium-expert} x seeds."""
    seeds = range(setting.seed, setting.seed + setting.pick(3, 1))
    lams = np.logspace(-1, 3, setting.pick(7, 3))
    outcomes: list[Outcome] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        for plant in PLANTS:
            data = gather(plant, seeds, 4000)
            found = train(data, lams, plant.gamma, setting.pick(1200, 150), setting.seed)
            actors = one_step_actors(data, found.critics, plant.gamma, setting.pick(1000, 60), setting.seed)
            outcomes.append(compare(plant, data, found, actors, setting.seed, setting.pick(20, 5)))
            if plant.name == "LQR":
                closed = closed_form_table(data, found.critics, len(seeds))
                exact = max(least_squares_errors(seed) for seed in seeds)
    finite = sum(o.finite for o in outcomes)
    least = "SARSA on the LQR, least squares on 1, s^2, s u, u^2, finds the closed-form Q^beta"
    claims = [
        Claim(least, f"largest relative error {exact:.3f}", exact < 0.15),
        Claim("every network is finite at every lambda", f"{finite} of {len(outcomes)} problems", finite == len(outcomes)),
        gap_claim(outcomes),
        clone_claim(outcomes),
        ratio_claim(),
    ]
    distances = [best_table(outcomes, lams, reference) for reference in range(len(ACTORS))]
    tables = [closed, *distances, *(curve_table(o, lams) for o in outcomes), score_table(outcomes, lams)]
    return Findings(claims, tables, curves(outcomes, lams))


def least_squares_errors(seed: int, rows: int = 50_000) -> float:
    """LSTD-Q with the features that span the LQR's Q, against the closed form: relative root mean squared error, the worse of two data."""
    worst = 0.0
    for kind in ("random", "medium"):
        data = record(PLANTS[0], kind, np.random.default_rng([seed, 7]), rows)

        def features(s: Array, a: Array) -> Array:
            s, u = s[:, 0], LQR_FORCE * a[:, 0]
            return np.stack([np.ones_like(s), s * s, s * u, u * u], 1)

        now, ahead = features(data.obs, data.action), features(data.next_obs, data.next_action)
        weight = np.linalg.solve(now.T @ (now - PLANTS[0].gamma * ahead), now.T @ data.reward)
        exact = lqr_noisy_q(*lqr_behaviour(kind), data.obs[:, 0], LQR_FORCE * data.action[:, 0])
        worst = max(worst, float(np.sqrt(((now @ weight - exact) ** 2).mean()) / exact.std()))
    return worst


@torch.no_grad()
def closed_form_table(data: Data, critics: EnsembleMLP, seeds: int) -> Table:
    """SARSA's networks on the LQR against the closed form, on the rows of the data."""
    q = members(critics, slice(0, len(data.reward)))(data.obs, data.action).double().numpy()
    rows = []
    for i, kind in enumerate(("random", "medium")):
        at = slice(i * seeds, (i + 1) * seeds)
        exact = lqr_noisy_q(*lqr_behaviour(kind), data.rows.obs[at, :, 0], LQR_FORCE * data.rows.action[at, :, 0])
        error = np.sqrt(((q[at] - exact) ** 2).mean(1))
        rows.append((kind, float(exact.mean()), float(exact.std(1).mean()), float(error.mean()), float((error / exact.std(1)).max())))
    return Table("LQR: SARSA networks against the closed-form Q^beta", ("data", "mean Q", "std of Q", "rmse", "largest rmse / std"), rows)


def gap_claim(outcomes: Sequence[Outcome]) -> Claim:
    """What the penalty pushes down falls with its weight, though not below the entropy of the data's actions, A log 2 for random ones."""
    first, last = (np.array([o.gaps[i].mean() for o in outcomes]) for i in (0, -1))
    text = "log int exp Q - Q(data), which CQL penalises, is smaller at the largest lambda than at the smallest"
    return Claim(text, f"means of problems {first.round(2).tolist()} -> {last.round(2).tolist()}", bool((last < first).all()))


def clone_claim(outcomes: Sequence[Outcome]) -> Claim:
    """The right-hand limit."""
    first, last = (np.array([o.to_clone[i].mean() for o in outcomes]) for i in (0, -1))
    measured = ", ".join(f"{o.plant.name} {a:.4f} -> {b:.4f}" for o, a, b in zip(outcomes, first, last, strict=True))
    text = "CQL's actor is nearer to behaviour cloning at the largest lambda than at the smallest, on average over the problems"
    return Claim(text, measured, bool(last.mean() < first.mean()))


def divergence(narrow: float, wide: float) -> float:
    """D = int pi (pi / beta - 1) for Gaussians of one mean, pi narrower: wide^2 / (narrow sqrt(2 wide^2 - narrow^2)) - 1 >= 0."""
    return float(wide**2 / (narrow * np.sqrt(2 * wide**2 - narrow**2)) - 1)


def ratio_claim() -> Claim:
    """How far CQL(mu = pi) lies below V^pi where pi has beta's mean: lambda D / (1 - gamma) in every state (C15, continuous)."""
    a, off, least = np.linspace(-8, 8, 200_001), 0.0, np.inf
    for narrow in (0.2, 0.5, 0.9, 1.0):
        pi, beta = (np.exp(-0.5 * (a / s) ** 2) / (s * np.sqrt(2 * np.pi)) for s in (narrow, 1.0))
        D = divergence(narrow, 1.0)
        off, least = max(off, abs(float((pi * (pi / beta - 1)).sum() * (a[1] - a[0])) - D)), min(least, D)
    text = "CQL(mu = pi) is a lower bound here too: D = int pi (pi / beta - 1) >= 0, for Gaussians in closed form"
    return Claim(text, f"off by {off:.1e} from quadrature, smallest {least:.1e}", off < 1e-8 and least >= 0)


# ---------------------------------------------------------------------------------------------------------------- what is shown
ACTORS = ("AWR-type", "log-Q")


def best_table(outcomes: Sequence[Outcome], lams: Array, reference: int) -> Table:
    """Where CQL is nearest to one of the one-step actors, seed by seed, and what cloning reaches."""
    rows: list[Sequence[object]] = []
    for o in outcomes:
        for k, kind in enumerate(KINDS):
            error, kl = o.error[reference, :, k], o.kl[reference, :, k]
            nearest = " ".join(f"{lam:.3g}" for lam in lams[error.argmin(0)])
            predicted = TEMPERATURE if reference == 0 else float(o.lift[k].mean())
            at = error.mean(-1)
            ten = int(np.abs(np.log10(lams / TARGET)).argmin())
            row = (float(at.min()), float(at[ten]), float(o.clone_error[reference, k].mean()))
            rest = (" ".join(f"{lam:.3g}" for lam in lams[kl.argmin(0)]), float(kl.mean(-1).min()), float(o.clone_kl[reference, k].mean()))
            rows.append((o.plant.name, kind, nearest, predicted, *row, *rest))
    columns = ("problem", "data", "arg min lambda (MSE), seeds", "exact theory", "MSE there", "MSE at 10", "MSE of cloning")
    title = f"CQL against one-step RL with the {ACTORS[reference]} actor"
    return Table(title, (*columns, "arg min lambda (KL), seeds", "KL there", "KL of cloning"), rows)


def curve_table(o: Outcome, lams: Array) -> Table:
    """Everything behind the curves, means over seeds."""
    rows: list[Sequence[object]] = []
    for i, lam in enumerate(lams.tolist()):
        for k, kind in enumerate(KINDS):
            measured = (x.mean() for x in (*o.error[:, i, k], *o.kl[:, i, k], o.to_clone[i, k], o.score[i, k]))
            rows.append((float(lam), kind, *(float(x) for x in measured)))
    distances = (*(f"{what} to {actor}" for what in ("MSE", "KL") for actor in ACTORS), "MSE to cloning")
    return Table(f"{o.plant.name}, means over seeds", ("lambda", "data", *distances, "normalised return"), rows)


def score_table(outcomes: Sequence[Outcome], lams: Array) -> Table:
    """Normalised returns (0 random actions, 1 the expert), means over seeds and their standard deviation."""
    rows: list[Sequence[object]] = []
    for o in outcomes:
        for k, kind in enumerate(KINDS):
            top = int(o.score[:, k].mean(-1).argmax())
            every = [*o.references[:, k], o.score[top, k]]
            rows.append((o.plant.name, kind, *(f"{x.mean():.3f} ± {x.std():.3f}" for x in every), float(lams[top])))
    return Table("Normalised return", ("problem", "data", "cloning", *ACTORS, "CQL at its best lambda", "which"), rows)


def curves(outcomes: Sequence[Outcome], lams: Array) -> Figure:
    """Columns: problems; above the distance to the AWR-type actor, relative to cloning's; below the return."""
    figure = Figure(figsize=(9.8, 5.2), layout="constrained")
    axes = figure.subplots(2, len(outcomes), sharex=True, squeeze=False)
    for column, o in enumerate(outcomes):
        for row, ax in enumerate(axes[:, column]):
            for k, kind in enumerate(KINDS):
                y = o.score[:, k] if row else o.error[0, :, k]
                ax.plot(lams, y.mean(-1), "o-", color=color(k), markersize=3.5, linewidth=1.7, label=kind)
                ax.fill_between(lams, y.min(-1), y.max(-1), color=color(k), alpha=0.15, linewidth=0)
                other = o.references[1, k] if row else o.clone_error[0, k]
                ax.axhline(other.mean(), color=color(k), linestyle=":", linewidth=1.3)
            ax.set_xscale("log")
            if row == 0:
                ax.set_yscale("log")
                ax.set_title(o.plant.name, fontsize=9.5, color=INK, loc="left")
            else:
                ax.set_xlabel("lambda", color=MUTED)
            ax.grid(axis="y", color=GRID, linewidth=0.8)
            ax.tick_params(which="both", colors=MUTED, length=0)
            for side, spine in ax.spines.items():
                spine.set_visible(side == "bottom")
                spine.set_color(GRID)
    axes[0, 0].set_ylabel("MSE to one-step RL (AWR-type)\ndotted: behaviour cloning's", color=MUTED)
    axes[1, 0].set_ylabel("normalised return\ndotted: one-step RL's", color=MUTED)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False, labelcolor=INK, fontsize=8.5)
    return figure
