"""Baselines change the variance of a policy gradient but not its mean (Williams 1992; Greensmith et al. 2004; Peters & Schaal 2008).

S states, A actions, N episodes, T steps. The estimator w(s,a) (Q(s,a) - b(s)) with the score vector w = grad log pi has the
smallest trace of the covariance for b*(s) = E[|w|^2 Q] / E[|w|^2], with the squared norm of the whole score.
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

NAMES = ("none", "V", "b*", "b* per component")
KINDS = ("whole return", "reward to go", "to go - V", "to go - b*")
UNLIKELY = 3.3  # quantile 1 - 1e-5 of chi-square with 16 degrees of freedom, divided by 16
SETTINGS = (("rewards in [0, 1]", 0.0, 1.0), ("rewards in [-0.5, 0.5]", -0.5, 1.0), ("rewards in [0, 1], sharp policy", 0.0, 4.0))


class BaselineResults(NamedTuple):
    """Traces of covariances, and errors of the means."""

    variance: Array  # [settings, seeds, baselines] trace of the covariance of one sample
    bias: float  # largest distance of a sample's mean to the policy gradient
    episode_variance: Array  # [seeds, kinds] trace of the covariance of one episode
    errors: Array  # [seeds, kinds] T^2 of the episode means over its degrees of freedom


@experiment("baselines", "A baseline does not change the mean of a policy gradient but reduces its variance: none >= V >= optimal baseline")
def baselines(setting: Setting) -> Findings:
    """Variance of one sample (s, a), exactly, and of whole episodes, by sampling."""
    results = measure(setting)
    return Findings(
        [*claims_of_samples(results), *claims_of_episodes(results)], [table_of_samples(results), table_of_episodes(results)], draw(results)
    )


def measure(setting: Setting) -> BaselineResults:
    """Variances of all baselines in all settings, and of all weights of the score."""
    seeds = range(setting.seed, setting.seed + setting.pick(50, 10))
    exact = np.array([[one_sample(seed, shift, scale) for seed in seeds] for _, shift, scale in SETTINGS])  # [settings, seeds, 4, 2]
    episodes = np.array(
        [whole_episodes(seed, setting.pick(20_000, 4_000)) for seed in range(setting.seed, setting.seed + setting.pick(10, 3))]
    )
    return BaselineResults(exact[..., 0], float(exact[..., 1].max()), episodes[..., 0], episodes[..., 1])


def claims_of_samples(results: BaselineResults) -> list[Claim]:
    """Claims on bias and on the order of the variances."""
    usual, counter, variance = results.variance[0], counterexample(), results.variance
    ratio = float((variance[..., 2] / np.minimum(variance[..., 0], variance[..., 1])).max())
    ordered = bool((usual[:, 0] >= usual[:, 1]).all() and (usual[:, 1] >= usual[:, 2]).all())
    return [
        Claim("no baseline changes the mean", f"within {results.bias:.1e} of the policy gradient", results.bias <= 1e-10),
        Claim("the optimal baseline is never worse than V or none", f"at most {ratio:.3f} of the smaller variance", ratio <= 1 + 1e-12),
        Claim("with rewards in [0, 1]: none >= V >= b*", "variances {:.4g}, {:.4g}, {:.4g}".format(*usual.mean(0)[:3]), ordered),
        Claim(
            "in general V is not better than no baseline",
            f"two actions, V: {counter[1]:.4f}, none: {counter[0]:.4f}, b*: {counter[2]:.4f}",
            counter[1] > counter[0] >= counter[2],
        ),
    ]


def claims_of_episodes(results: BaselineResults) -> list[Claim]:
    """Claims on reward to go, V and bias."""
    variance, errors, mean = results.episode_variance, results.errors, results.episode_variance.mean(0)
    return [
        Claim(
            "for whole episodes reward to go reduces the variance, and V reduces it further",
            "variances {:.4g}, {:.4g}, {:.4g}".format(*mean[:3]),
            bool((variance[:, 0] > variance[:, 1]).all() and (variance[:, 1] > variance[:, 2]).all()),
        ),
        Claim(
            "and the mean of each is the policy gradient",
            f"T² / degrees of freedom: {errors.mean():.2f}, at most {errors.max():.2f}",
            bool(errors.max() < UNLIKELY),
        ),
    ]


def table_of_samples(results: BaselineResults) -> Table:
    """Table of variances by setting and baseline."""
    return Table(
        "Trace of the covariance of one sample of the gradient, (s, a) from the discounted occupancy",
        ("setting", "baseline", "mean over Garnets", "median ratio to none", "smallest ratio", "largest ratio"),
        [
            (SETTINGS[i][0], name, *map(float, (v.mean(), *np.percentile(v / results.variance[i, :, 0], [50, 0, 100]))))
            for i in range(len(SETTINGS))
            for name, v in zip(NAMES, results.variance[i].T, strict=True)
        ],
    )


def table_of_episodes(results: BaselineResults) -> Table:
    """Table of variances by weight of the score."""
    whole = results.episode_variance.mean(0)[0]
    return Table(
        "Trace of the covariance of REINFORCE from one episode",
        ("weight of the score", "mean over Garnets", "std over Garnets", "ratio to the whole return"),
        [(k, float(v.mean()), float(v.std()), float(v.mean() / whole)) for k, v in zip(KINDS, results.episode_variance.T, strict=True)],
    )


def draw(results: BaselineResults) -> Figure:
    """Figure with a dot per seed and bars at the medians."""
    figure, (left, right) = panels(("", "variance of one sample"), ("", "variance of one episode"))
    rng = np.random.default_rng(0)
    for ax, columns, names in ((left, results.variance[0].T, NAMES), (right, results.episode_variance.T, KINDS)):
        for i, values in enumerate(columns):
            ax.semilogy(i + rng.uniform(-0.15, 0.15, len(values)), values, "o", markersize=3, alpha=0.6, color=color(i))
            ax.semilogy([i - 0.3, i + 0.3], [np.median(values)] * 2, color=color(i), linewidth=2)
        ax.set_xticks(range(4), [name.replace(" per ", " per\n").replace("hole ", "hole\n").replace("ard ", "ard\n") for name in names])
    return figure


# ---------------------------------------------------------------------------------------------------------- one sample, exactly
def scores(pi: Array) -> Array:
    """Scores grad log pi(a|s) with respect to the logits of s: e_a - pi, [S, A, A]."""
    return np.asarray(np.eye(pi.shape[1]) - pi[:, None, :])


def optimal_baseline(pi: Array, q: Array) -> Array:
    """Optimal baseline b* [S] = E[|w|^2 Q] / E[|w|^2]; often printed with w^2, which is undefined for a vector."""
    square = (scores(pi) ** 2).sum(-1)
    return expectation(pi, square * q) / expectation(pi, square)


def component_baselines(pi: Array, q: Array) -> Array:
    """Optimal baseline per component of the score, [S, A]: E[w_i^2 Q] / E[w_i^2]; unbiased too, with the smallest variance."""
    square = scores(pi) ** 2
    return np.asarray(np.einsum("sa,sai,sa->si", pi, square, q) / np.einsum("sa,sai->si", pi, square))


def sample_covariance(occupancy: Array, pi: Array, q: Array, baseline: Array) -> tuple[float, Array]:
    """Trace of the covariance and mean [S, A] of w (Q - b) for (s, a) from occupancy(s) pi(a|s); baseline [S, A], per component."""
    x = scores(pi) * (q[:, :, None] - baseline[:, None, :])  # [S, A, A], the entries that are not 0
    pairs = occupancy[:, None] * pi
    mean = np.einsum("sa,sai->si", pairs, x)
    return float((pairs * (x**2).sum(-1)).sum() - (mean**2).sum()), mean


def one_sample(seed: int, shift: float, scale: float) -> list[tuple[float, float]]:
    """Trace of the covariance and distance of the mean to the policy gradient, for each of `NAMES`."""
    mdp, rng = garnet(8, 3, 3, seed=seed), np.random.default_rng(seed)
    mdp = MDP(mdp.P, mdp.R + shift, mdp.mu0, mdp.gamma)
    pi = softmax(scale * rng.normal(size=(8, 3)))
    q, horizon = q_of(mdp, pi), 1 / (1 - mdp.gamma)
    v, best = expectation(pi, q), optimal_baseline(pi, q)
    results = []
    for baseline in (np.zeros((8, 3)), np.repeat(v[:, None], 3, 1), np.repeat(best[:, None], 3, 1), component_baselines(pi, q)):
        variance, mean = sample_covariance(discounted(mdp, pi), pi, q, baseline)
        results.append((horizon**2 * variance, float(np.abs(horizon * mean - policy_gradient(mdp, pi)).max())))
    return results


def counterexample() -> tuple[float, float, float]:
    """Variances with no baseline, V and b*, two actions: probability 0.9 and value 1, probability 0.1 and value 0."""
    pi, q = np.array([[0.9, 0.1]]), np.array([[1.0, 0.0]])
    variances = [
        sample_covariance(np.ones(1), pi, q, np.full((1, 2), float(b)))[0] for b in (0.0, expectation(pi, q)[0], optimal_baseline(pi, q)[0])
    ]
    return variances[0], variances[1], variances[2]


# -------------------------------------------------------------------------------------------------- whole episodes, by sampling
def whole_episodes(seed: int, n: int, steps: int = 120) -> list[tuple[float, float]]:
    """Trace of the covariance and Hotelling's T^2 of the mean against the policy gradient, for each of `KINDS`, from N episodes.

    Discounted REINFORCE: sum_t w_t gamma^t (G_t - b(s_t)), or sum_t w_t G_0. Truncation at 120 steps drops 3e-6 of a return.
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
    """Sample states and actions [T, N] of N episodes."""
    state, states, actions = (rng.random(n)[:, None] > mdp.mu0.cumsum()[:-1]).sum(1), [], []
    for _ in range(steps):
        action = (rng.random(n)[:, None] > pi.cumsum(1)[state, :-1]).sum(1)
        states.append(state)
        actions.append(action)
        state = (rng.random(n)[:, None] > mdp.cumulative[state, action, :-1]).sum(1)
    return np.array(states), np.array(actions)


def episode_gradients(pi: Array, state: Array, action: Array, weight: Array) -> Array:
    """Gradient estimate of each episode: sum over t of weight grad log pi(a_t | s_t), [N, S A]."""
    n, (S, A) = state.shape[1], pi.shape
    rows = np.arange(n)
    total, visits = np.zeros((n, S, A)), np.zeros((n, S))
    for s, a, w in zip(state, action, weight, strict=True):
        total[rows, s, a] += w
        visits[rows, s] += w
    return (total - visits[:, :, None] * pi).reshape(n, S * A)


def summary(gradients: Array, truth: Array) -> tuple[float, float]:
    """Trace of the covariance, and Hotelling's T^2 of mean = truth over its degrees of freedom S (A - 1), about 1 if unbiased."""
    covariance = np.cov(gradients.T)
    values, vectors = np.linalg.eigh(covariance)
    nonzero = values > 1e-9 * values[-1]  # a constant added to the logits of a state changes nothing
    along = vectors[:, nonzero].T @ (gradients.mean(0) - truth)
    return float(np.trace(covariance)), float(len(gradients) * (along**2 / values[nonzero]).sum() / nonzero.sum())
