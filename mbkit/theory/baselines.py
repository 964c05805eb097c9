"""Baselines change the variance of a policy gradient, not its mean (Williams 1992; Greensmith et al. 2004; Peters & Schaal 2008).

S states, A actions, N episodes, T steps. Of an estimator w(s,a) (Q(s,a) - b(s)) with the score w = grad log pi, a vector, the trace of the
covariance is least for b*(s) = E[|w|^2 Q] / E[|w|^2], the squared norm of the whole score.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mbkit.report.figure import color, panels
from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import MDP, Array
from mbkit.tabular.natural_gradient import policy_gradient
from mbkit.tabular.occupancy import discounted
from mbkit.tabular.operators import expectation, q_of, softmax
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment

NAMES = ("none", "V", "b*", "b* of each component")
KINDS = ("whole return", "reward to go", "to go - V", "to go - b*")
UNLIKELY = 3.3  # chi-square of 16 degrees of freedom, over 16: more comes once in 100 000 times
SETTINGS = (("rewards in [0, 1]", 0.0, 1.0), ("rewards in [-0.5, 0.5]", -0.5, 1.0), ("rewards in [0, 1], sharp policy", 0.0, 4.0))


class Measured(NamedTuple):
    """Traces of covariances, and whether the means are the policy gradient."""

    variance: Array  # [settings, seeds, baselines] of one sample
    moved: float  # greatest distance of a sample's mean to the policy gradient
    spread: Array  # [seeds, kinds] of whole episodes
    errors: Array  # [seeds, kinds] T^2 of their means over its degrees of freedom


@experiment("baselines", "A baseline leaves the policy gradient's mean and divides its variance: none >= V >= the optimal one")
def baselines(setting: Setting) -> Findings:
    """The variance of one sample (s, a), exactly, and of whole episodes, sampled."""
    it = measure(setting)
    return Findings([*claims_of_samples(it), *claims_of_episodes(it)], [table_of_samples(it), table_of_episodes(it)], draw(it))


def measure(setting: Setting) -> Measured:
    """Every baseline in every setting, and every weight of the score."""
    seeds = range(setting.seed, setting.seed + setting.pick(50, 10))
    exact = np.array([[one_sample(seed, shift, scale) for seed in seeds] for _, shift, scale in SETTINGS])  # [settings, seeds, 4, 2]
    episodes = np.array(
        [whole_episodes(seed, setting.pick(20_000, 4_000)) for seed in range(setting.seed, setting.seed + setting.pick(10, 3))]
    )
    return Measured(exact[..., 0], float(exact[..., 1].max()), episodes[..., 0], episodes[..., 1])


def claims_of_samples(it: Measured) -> list[Claim]:
    """No bias; the order of the variances, and where there is none."""
    usual, counter, variance = it.variance[0], counterexample(), it.variance
    least = float((variance[..., 2] / np.minimum(variance[..., 0], variance[..., 1])).max())
    ordered = bool((usual[:, 0] >= usual[:, 1]).all() and (usual[:, 1] >= usual[:, 2]).all())
    return [
        Claim("no baseline moves the mean", f"within {it.moved:.1e} of the policy gradient", it.moved <= 1e-10),
        Claim("the optimal baseline is never worse than V or none", f"at most {least:.3f} of the better", least <= 1 + 1e-12),
        Claim("with rewards in [0, 1]: none >= V >= b*", "variances {:.4g}, {:.4g}, {:.4g}".format(*usual.mean(0)[:3]), ordered),
        Claim(
            "V is no better than none in general",
            f"two actions, V: {counter[1]:.4f}, none: {counter[0]:.4f}, b*: {counter[2]:.4f}",
            counter[1] > counter[0] >= counter[2],
        ),
    ]


def claims_of_episodes(it: Measured) -> list[Claim]:
    """Reward to go, V, and no bias."""
    spread, errors, go = it.spread, it.errors, it.spread.mean(0)
    return [
        Claim(
            "of whole episodes: reward to go helps, V helps more",
            "variances {:.4g}, {:.4g}, {:.4g}".format(*go[:3]),
            bool((spread[:, 0] > spread[:, 1]).all() and (spread[:, 1] > spread[:, 2]).all()),
        ),
        Claim(
            "and all have the policy gradient for their mean",
            f"T² / degrees of freedom: {errors.mean():.2f}, at most {errors.max():.2f}",
            bool(errors.max() < UNLIKELY),
        ),
    ]


def table_of_samples(it: Measured) -> Table:
    """By setting and baseline."""
    return Table(
        "Trace of the covariance of one sample of the gradient, (s, a) from the discounted occupancy",
        ("setting", "baseline", "mean over Garnets", "median share of none", "least", "greatest"),
        [
            (SETTINGS[i][0], name, *map(float, (v.mean(), *np.percentile(v / it.variance[i, :, 0], [50, 0, 100]))))
            for i in range(len(SETTINGS))
            for name, v in zip(NAMES, it.variance[i].T, strict=True)
        ],
    )


def table_of_episodes(it: Measured) -> Table:
    """By weight of the score."""
    whole = it.spread.mean(0)[0]
    return Table(
        "Trace of the covariance of REINFORCE from one episode",
        ("weight of the score", "mean over Garnets", "std over Garnets", "share of the whole return"),
        [(k, float(v.mean()), float(v.std()), float(v.mean() / whole)) for k, v in zip(KINDS, it.spread.T, strict=True)],
    )


def draw(it: Measured) -> Figure:
    """Every seed a dot, medians as bars."""
    figure, (left, right) = panels(("", "variance of one sample"), ("", "variance of one episode"))
    rng = np.random.default_rng(0)
    for ax, columns, names in ((left, it.variance[0].T, NAMES), (right, it.spread.T, KINDS)):
        for i, values in enumerate(columns):
            ax.semilogy(i + rng.uniform(-0.15, 0.15, len(values)), values, "o", markersize=3, alpha=0.6, color=color(i))
            ax.semilogy([i - 0.3, i + 0.3], [np.median(values)] * 2, color=color(i), linewidth=2)
        ax.set_xticks(
            range(4), [name.replace(" of each ", ", each\n").replace("hole ", "hole\n").replace("ard ", "ard\n") for name in names]
        )
    return figure


# ------------------------------------------------------------------------------------------------------------- one sample, exactly
def scores(pi: Array) -> Array:
    """Grad log pi(a|s) with respect to the logits of s: e_a - pi, [S, A, A]."""
    return np.asarray(np.eye(pi.shape[1]) - pi[:, None, :])


def optimal_baseline(pi: Array, q: Array) -> Array:
    """b* [S] = E[|w|^2 Q] / E[|w|^2]; in print often w^2, which means nothing for a vector."""
    square = (scores(pi) ** 2).sum(-1)
    return expectation(pi, square * q) / expectation(pi, square)


def component_baselines(pi: Array, q: Array) -> Array:
    """One baseline for every component of the score, [S, A]: E[w_i^2 Q] / E[w_i^2]. Unbiased too, and no other is below it."""
    square = scores(pi) ** 2
    return np.asarray(np.einsum("sa,sai,sa->si", pi, square, q) / np.einsum("sa,sai->si", pi, square))


def sample_covariance(law: Array, pi: Array, q: Array, baseline: Array) -> tuple[float, Array]:
    """(trace of the covariance, mean [S, A]) of w (Q - b) with (s, a) from law(s) pi(a|s); baseline [S, A], one a component."""
    x = scores(pi) * (q[:, :, None] - baseline[:, None, :])  # [S, A, A], the only entries that are not zero
    pairs = law[:, None] * pi
    mean = np.einsum("sa,sai->si", pairs, x)
    return float((pairs * (x**2).sum(-1)).sum() - (mean**2).sum()), mean


def one_sample(seed: int, shift: float, scale: float) -> list[tuple[float, float]]:
    """(trace of the covariance, distance of the mean to the policy gradient) for each of `NAMES`."""
    mdp, rng = garnet(8, 3, 3, seed=seed), np.random.default_rng(seed)
    mdp = MDP(mdp.P, mdp.R + shift, mdp.mu0, mdp.gamma)
    pi = softmax(scale * rng.normal(size=(8, 3)))
    q, horizon = q_of(mdp, pi), 1 / (1 - mdp.gamma)
    v, best = expectation(pi, q), optimal_baseline(pi, q)
    found = []
    for baseline in (np.zeros((8, 3)), np.repeat(v[:, None], 3, 1), np.repeat(best[:, None], 3, 1), component_baselines(pi, q)):
        variance, mean = sample_covariance(discounted(mdp, pi), pi, q, baseline)
        found.append((horizon**2 * variance, float(np.abs(horizon * mean - policy_gradient(mdp, pi)).max())))
    return found


def counterexample() -> tuple[float, float, float]:
    """Variances with none, V and b* where the likely action of two is worth 1, the other 0: V subtracts most where the score is longest."""
    pi, q = np.array([[0.9, 0.1]]), np.array([[1.0, 0.0]])
    of = [
        sample_covariance(np.ones(1), pi, q, np.full((1, 2), float(b)))[0] for b in (0.0, expectation(pi, q)[0], optimal_baseline(pi, q)[0])
    ]
    return of[0], of[1], of[2]


# ---------------------------------------------------------------------------------------------------------- whole episodes, sampled
def whole_episodes(seed: int, n: int, steps: int = 120) -> list[tuple[float, float]]:
    """(trace of the covariance, Hotelling's T^2 of the mean against the policy gradient) for each of `KINDS`, from N episodes.

    REINFORCE with its discount: sum_t w_t gamma^t (G_t - b(s_t)), or sum_t w_t G_0. What lies beyond 120 steps is 3e-6 of a return.
    """
    mdp, rng = garnet(8, 3, 3, seed=seed), np.random.default_rng(seed)
    pi = softmax(rng.normal(size=(8, 3)))
    q = q_of(mdp, pi)
    state, action = rollouts(mdp, pi, rng, n, steps)
    reward, discount = mdp.R[state, action], mdp.gamma ** np.arange(steps)[:, None]
    to_go = (discount * reward)[::-1].cumsum(0)[::-1]  # gamma^t G_t, [T, N]
    zero, v, best = np.zeros(mdp.S), expectation(pi, q), optimal_baseline(pi, q)
    weights = [np.broadcast_to(to_go[0], to_go.shape), *(to_go - discount * b[state] for b in (zero, v, best))]
    truth = policy_gradient(mdp, pi).ravel()
    return [summary(episode_gradients(pi, state, action, weight), truth) for weight in weights]


def rollouts(mdp: MDP, pi: Array, rng: np.random.Generator, n: int, steps: int) -> tuple[Array, Array]:
    """States and actions [T, N] of N episodes."""
    state, states, actions = (rng.random(n)[:, None] > mdp.mu0.cumsum()[:-1]).sum(1), [], []
    for _ in range(steps):
        action = (rng.random(n)[:, None] > pi.cumsum(1)[state, :-1]).sum(1)
        states.append(state)
        actions.append(action)
        state = (rng.random(n)[:, None] > mdp.cumulative[state, action, :-1]).sum(1)
    return np.array(states), np.array(actions)


def episode_gradients(pi: Array, state: Array, action: Array, weight: Array) -> Array:
    """Sum over t of weight grad log pi(a_t | s_t), [N, S A]."""
    n, (S, A) = state.shape[1], pi.shape
    rows = np.arange(n)
    total, visits = np.zeros((n, S, A)), np.zeros((n, S))
    for s, a, w in zip(state, action, weight, strict=True):
        total[rows, s, a] += w
        visits[rows, s] += w
    return (total - visits[:, :, None] * pi).reshape(n, S * A)


def summary(gradients: Array, truth: Array) -> tuple[float, float]:
    """Trace of the covariance, and Hotelling's T^2 of mean = truth over its degrees of freedom S (A - 1): about 1 if the mean is right."""
    covariance = np.cov(gradients.T)
    values, vectors = np.linalg.eigh(covariance)
    kept = values > 1e-9 * values[-1]  # a constant added to the logits of a state moves nothing
    along = vectors[:, kept].T @ (gradients.mean(0) - truth)
    return float(np.trace(covariance)), float(len(gradients) * (along**2 / values[kept]).sum() / kept.sum())
