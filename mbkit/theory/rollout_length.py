"""Choice of the rollout length: model rollouts drift, and value expansion trades the error of the critic for that of the model.

A model is the empirical MDP of N rows. TV is total variation, eps its maximum over states and actions. Sources: MVE, arXiv:1803.00101;
the simulation lemma (Kearns & Singh 2002); MBPO, arXiv:1906.08253. S states, A actions, H the horizon.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mbkit.report.figure import INK, color, panels
from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import MDP, Array, random_policy
from mbkit.tabular.model_error import compounding, one_step_error, simulation_bound, value_expansion
from mbkit.tabular.occupancy import total_variation
from mbkit.tabular.offline import empirical_mdp
from mbkit.tabular.operators import performance, q_of, value_of
from mbkit.tabular.sampling import sample_rows
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment

DEPTH = 40  # largest rollout length
ROUNDING = 1e-9
SHOWN = (0, 1, 2, 5, 10, 20, 40)  # depths of the tables


class ModelErrors(NamedTuple):
    """Errors and bounds of one model, or of [sizes, seeds] models in leading dimensions."""

    drift: Array  # [DEPTH + 1] total variation of the state distributions
    drift_bound: Array  # [DEPTH + 1] bound on it
    noisy: Array  # [DEPTH + 1, 2] sup norm and root mean square of the target's error, critic with independent noise
    shifted: Array  # [DEPTH + 1, 2] the same for a critic that overestimates by a constant
    bound: Array  # [DEPTH + 1] bound on both sup norms
    eps: Array  # [] maximum total variation of the model
    value: Array  # [] |V - V_model|
    lemma: Array  # [] its bound by the simulation lemma
    returns: Array  # [] |J - J_model|
    mbpo: Array  # [] its bound by MBPO's theorem


@experiment("rollout_length", "Model errors compound at most linearly with the rollout length, and more data allow deeper value expansion")
def rollout_length(setting: Setting) -> Findings:
    """Models learned from N rows of Garnets: drift, simulation lemma, MBPO's bound, and value expansion with an inexact critic."""
    sizes = setting.pick((300, 1000, 3000, 10_000, 30_000, 100_000), (1000, 10_000))
    seeds = range(setting.seed, setting.seed + setting.pick(50, 10))
    runs = [[study(seed, n) for seed in seeds] for n in sizes]
    fields = (np.array([[run[i] for run in row] for row in runs]) for i in range(len(ModelErrors._fields)))
    errors = ModelErrors(*fields)  # [sizes, seeds, ...]
    perfect = np.array([perfect_model(seed) for seed in seeds])  # [seeds, 2]
    return Findings([*bound_claims(errors, perfect), depth_claim(sizes, errors)], tables_of(sizes, errors), figure_of(sizes, errors))


def bound_claims(errors: ModelErrors, perfect: Array) -> list[Claim]:
    """Claims that every bound holds."""
    pairs = (
        (errors.drift, errors.drift_bound),
        (errors.value, errors.lemma),
        (errors.returns, errors.mbpo),
        (np.maximum(errors.noisy, errors.shifted)[..., 0], errors.bound),
    )
    violations = [int((x > y + ROUNDING).sum()) for x, y in pairs]
    counts = [f"{n}/{x.size} violations" for n, (x, _) in zip(violations, pairs, strict=True)]
    tight, looser = (errors.value / errors.lemma).max(), (errors.mbpo / errors.lemma).min()
    return [
        Claim("the total variation of state distributions is at most k eps after k steps", counts[0], violations[0] == 0),
        Claim("the simulation lemma bounds the error of V", f"{counts[1]}, largest ratio {tight:.3f}", violations[1] == 0),
        Claim(
            "MBPO's bound for complete rollouts holds, and is looser",
            f"{counts[2]}, at least {looser:.2f} times that of the lemma",
            violations[2] == 0 and bool(looser >= 1),
        ),
        Claim(
            "with a perfect model an expansion of depth H leaves at most gamma^H of the critic's error, exactly gamma^H if it is constant",
            f"largest {perfect[:, 0].max():.3f} of gamma^H; constant: deviation {perfect[:, 1].max():.1g}",
            bool(perfect[:, 0].max() <= 1 + ROUNDING and perfect[:, 1].max() < ROUNDING),
        ),
        Claim("with a learned model: gamma^H |Q - Q^pi| + (1 - gamma^H) / (1 - gamma) gamma TV span(V^pi)", counts[3], violations[3] == 0),
    ]


def depth_claim(sizes: tuple[int, ...], errors: ModelErrors) -> Claim:
    """Claim on the depth with the smallest error for the noisy critic."""
    best = errors.noisy[..., 1].mean(1).argmin(1)
    return Claim(
        f"the best depth is larger with the most rows than with the fewest, and for some number strictly between 0 and {DEPTH}",
        ", ".join(f"{size} rows: {h}" for size, h in zip(sizes, best, strict=True)),
        bool(best[-1] > best[0] and ((best > 0) & (best < DEPTH)).any()),
    )


def tables_of(sizes: tuple[int, ...], errors: ModelErrors) -> list[Table]:
    """Tables of models and bounds, and of value expansion with either critic."""
    columns = (errors.eps, errors.value, errors.lemma, errors.returns, errors.mbpo)
    models = [(size, *(float(x[i].mean()) for x in columns), float(errors.value[i].std())) for i, size in enumerate(sizes)]
    names = (
        "rows",
        "eps, largest TV",
        "largest error of V",
        "simulation lemma",
        "error of J",
        "MBPO, complete rollouts",
        "std of V's error",
    )
    advice = [[branched_bound(garnet(), k, float(e), 1.0) for k in range(DEPTH + 1)] for e in errors.eps.mean(1)]
    depths = [f"H = {h}" for h in SHOWN]
    tables = [Table("Models and their bounds, means over Garnets", names, models)]
    for name, error in (("independent noise", errors.noisy), ("a constant", errors.shifted)):
        mean = error[..., 1].mean(1)  # [sizes, depths]
        rows = [
            (size, *(float(mean[i, h]) for h in SHOWN), int(mean[i].argmin()), int(np.argmin(advice[i]))) for i, size in enumerate(sizes)
        ]
        tables.append(Table(f"Error of value expansion, error of the critic: {name}", ("rows", *depths, "best H", "MBPO's k"), rows))
    return tables


def figure_of(sizes: tuple[int, ...], errors: ModelErrors) -> Figure:
    """Figure of drift, value expansion and values."""
    figure, (left, middle, right) = panels(
        ("steps k", "TV of state distributions"), ("depth H", "error of the target"), ("rows N", "error of the value")
    )
    error, k = errors.noisy[..., 1].mean(1), np.arange(1, DEPTH + 1)
    for i, size in enumerate(sizes):
        left.loglog(k, errors.drift[i, :, 1:].mean(0), color=color(i), label=f"N = {size}")
        left.loglog(k, np.minimum(errors.drift_bound[i, :, 1:].mean(0), 1), "--", lw=0.9, color=color(i))
        middle.semilogy(range(DEPTH + 1), error[i], color=color(i), label=f"N = {size}")
        middle.plot(error[i].argmin(), error[i].min(), "o", color=color(i))
    for i, (name, value) in enumerate((("|V - V_model|", errors.value), ("simulation lemma", errors.lemma), ("MBPO", errors.mbpo))):
        right.loglog(sizes, value.mean(1), "o-", ms=3.5, color=color(i), label=name)
    left.set_ylim(3e-3, 30)
    middle.set_ylim(3e-3, 30)
    right.set_ylim(3e-3, 3e3)
    for ax in (left, middle, right):
        ax.legend(frameon=False, labelcolor=INK, fontsize=7, loc="upper right", ncols=1 if ax is right else 2)
    return figure


# -------------------------------------------------------------------------------------------------------------------- measuring
def study(seed: int, rows: int) -> ModelErrors:
    """Errors and bounds of one model of one Garnet; policy and critic do not depend on the number of rows."""
    source, rng = garnet(seed=seed), np.random.default_rng(seed)
    mdp, model = padded(source), model_of(source, rows, np.random.default_rng([seed, rows]))
    pi = random_policy(mdp, rng)
    q = q_of(mdp, pi)
    size, noise = float(q[:-1].std()), rng.standard_normal(q.shape)
    noise *= size / np.sqrt((noise[:-1] ** 2).mean())  # the same root mean square as the shift
    noisy, shifted = ((q + error * ~mdp.terminal[:, None]) for error in (noise, size))
    eps = float(total_variation(mdp.P, model.P).max())
    return ModelErrors(
        drift=compounding(mdp, model, pi, DEPTH),
        drift_bound=one_step_error(mdp, model, pi) * np.arange(DEPTH + 1.0),
        noisy=expansion_errors(mdp, model, pi, noisy),
        shifted=expansion_errors(mdp, model, pi, shifted),
        bound=np.maximum(expansion_bound(mdp, model, pi, noisy, DEPTH), expansion_bound(mdp, model, pi, shifted, DEPTH)),
        eps=np.array(eps),
        value=np.abs(value_of(mdp, pi) - value_of(model, pi)).max(),
        lemma=np.array(simulation_bound(mdp, model, pi)),
        returns=np.array(abs(performance(mdp, pi) - performance(model, pi))),
        mbpo=np.array(mbpo_bound(mdp, eps)),
    )


def expansion_errors(mdp: MDP, model: MDP, pi: Array, q: Array) -> Array:
    """Sup norm and root mean square of target - Q^pi, for depths 0..DEPTH in the model; [DEPTH + 1, 2]."""
    error = np.array(value_expansion(model, pi, q, DEPTH)) - q_of(mdp, pi)
    inside = error[:, ~mdp.terminal]
    return np.stack([np.abs(inside).max((1, 2)), np.sqrt((inside**2).mean((1, 2)))], -1)


def perfect_model(seed: int) -> tuple[float, float]:
    """With a perfect model: largest error / (gamma^H critic error) over H for noise, and deviation from gamma^H for a constant error."""
    mdp, rng = garnet(seed=seed), np.random.default_rng(seed)
    pi = random_policy(mdp, rng)
    q = q_of(mdp, pi)
    share = mdp.gamma ** np.arange(DEPTH + 1)
    noisy = expansion_errors(mdp, mdp, pi, q + rng.standard_normal(q.shape))[:, 0]
    return float((noisy / (share * noisy[0])).max()), float(np.abs(expansion_errors(mdp, mdp, pi, q + 1.0)[:, 0] - share).max())


def padded(mdp: MDP) -> MDP:
    """MDP with an additional unreachable terminal state, so that it has the shape of its empirical MDP."""
    P, R = np.zeros((mdp.S + 1, mdp.A, mdp.S + 1)), np.zeros((mdp.S + 1, mdp.A))
    P[:-1, :, :-1], P[-1, :, -1], R[:-1] = mdp.P, 1.0, mdp.R
    return MDP(P, R, np.append(mdp.mu0, 0.0), mdp.gamma, np.arange(mdp.S + 1) == mdp.S)


def model_of(mdp: MDP, rows: int, rng: np.random.Generator) -> MDP:
    """Empirical MDP of N rows with the true rewards; pairs without rows terminate."""
    model = empirical_mdp(sample_rows(mdp, rng, rows), mdp.S, mdp.A, mdp.gamma, mdp.mu0)
    return MDP(model.P, padded(mdp).R, model.mu0, model.gamma, model.terminal)


def expansion_bound(mdp: MDP, model: MDP, pi: Array, q: Array, depth: int) -> Array:
    """Bound on |target of depth h - Q^pi|, h = 0..depth: gamma^h |Q - Q^pi| + (1 - gamma^h) / (1 - gamma) (eps_r + gamma eps span V^pi)."""
    discount = mdp.gamma ** np.arange(depth + 1)
    step = float(np.abs(mdp.R - model.R).max()) + mdp.gamma * float(total_variation(mdp.P, model.P).max()) * float(
        np.ptp(value_of(mdp, pi))
    )
    return np.asarray(discount * np.abs(q - q_of(mdp, pi)).max() + (1 - discount) / (1 - mdp.gamma) * step)


def mbpo_bound(mdp: MDP, eps_model: float, eps_policy: float = 0.0) -> float:
    """Bound of MBPO's theorem 4.1 on J(pi) - J_model(pi): 2 gamma r_max (eps_m + 2 eps_pi) / (1-gamma)^2 + 4 r_max eps_pi / (1-gamma)."""
    r_max, gamma = float(np.abs(mdp.R).max()), mdp.gamma
    return 2 * gamma * r_max * (eps_model + 2 * eps_policy) / (1 - gamma) ** 2 + 4 * r_max * eps_policy / (1 - gamma)


def branched_bound(mdp: MDP, k: int, eps_model: float, eps_policy: float) -> float:
    """Bound of MBPO's theorem 4.3: rollouts of k steps from states of the behaviour policy; eps_model is measured under the new policy.

    2 r_max (gamma^{k+1} eps_pi / (1-gamma)^2 + gamma^k eps_pi / (1-gamma) + k eps_m / (1-gamma)).
    """
    r_max, gamma = float(np.abs(mdp.R).max()), mdp.gamma
    return 2 * r_max / (1 - gamma) * (gamma ** (k + 1) * eps_policy / (1 - gamma) + gamma**k * eps_policy + k * eps_model)
