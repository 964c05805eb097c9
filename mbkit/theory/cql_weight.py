"""Weight of CQL(H) at which its policy is most similar to one-step RL: random MDPs and a grid, three kinds of data, tables and networks.

One-step RL: pi_1 = beta Q^beta / V^beta (arXiv:2307.12968). CQL(H): mu = softmax(Q_lambda) (arXiv:2006.04779). Both use only the data: the
estimated beta and the empirical MDP. Similarity: 1 - total variation, and the fraction of equal argmax, over the states of the data.
Letters: L lambdas, N seeds, S states, A actions.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from mbkit.report.figure import GRID, INK, MUTED
from mbkit.stats import bootstrap
from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import Array, uniform_policy
from mbkit.tabular.occupancy import total_variation
from mbkit.tabular.offline import conservative_gap, conservative_q
from mbkit.tabular.operators import expectation, performance, q_of, value_of
from mbkit.theory.conservative import ConservativeFixedPoint, Tables, conservative, large_lambda_bonus
from mbkit.theory.conservative_discrete_nets import network_policies
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment
from mbkit.theory.offline_problems import EPSILON, OfflineProblem, Similarity, problem, similarity

SMALL, LARGE = 1e-6, 1e6  # lambdas that approximate the limits 0 and infinity
TICKS = (0.5, 0.7, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # ticks of the colour scale


@experiment("cql_weight", "The policy of CQL is most similar to one-step RL near lambda = V^beta if the data are uniform", alias="n1")
def cql_weight(setting: Setting) -> Findings:
    """Lambda x data x seeds x {Garnet, grid} x {table, network}."""
    seeds = range(setting.seed, setting.seed + setting.pick(10, 2))
    few = range(setting.seed, setting.seed + setting.pick(3, 1))
    lams, few_lams = np.logspace(-2, 4, setting.pick(15, 7)), np.logspace(-1, 3, setting.pick(5, 2))
    names = [(environment, kind) for environment in ("Garnet", "grid") for kind in EPSILON]
    problems = [problem(*name, seeds) for name in names]
    solutions = [conservative(p.tables, np.array([SMALL, *lams, LARGE])) for p in problems]
    exact = [similarity(p, c.mu[1:-1], p.pi) for p, c in zip(problems, solutions, strict=True)]
    fewer = [problem(*name, few) for name in names]
    networks = [network_policies(p, few_lams, setting.pick(4000, 120), setting.seed) for p in fewer]
    learned = [similarity(p, mu, pi) for p, (mu, pi) in zip(fewer, networks, strict=True)]
    claims = [*limit_claims(problems, solutions), *lower_bound_claims(problems), exact_uniform_claim(seeds), network_claim(fewer, networks)]
    tables = [
        best_table("Tables", problems, exact, lams),
        return_table(problems, solutions, lams, exact),
        curve_table("Tables: 1 - total variation to one-step RL (fraction of equal argmax), means over seeds", problems, exact, lams),
        best_table("Networks", fewer, learned, few_lams),
        curve_table("Networks: the same", fewer, learned, few_lams),
        overestimation_table(problems, solutions),
    ]
    return Findings(claims, tables, heatmaps(problems, (lams, exact), (few_lams, learned)))


def limit_claims(problems: Sequence[OfflineProblem], solutions: Sequence[ConservativeFixedPoint]) -> list[Claim]:
    """Claims on every data set: the mean of Q, and both limits of lambda."""
    mean, near, far, shift = 0.0, 0.0, 0.0, 0.0
    for p, c in zip(problems, solutions, strict=True):
        inside, visited, gamma = p.beta > 0, p.n.sum(-1) > 0, p.empirical[0].gamma
        scale = np.abs(c.y).max()
        error = np.abs(expectation(p.beta, c.q) - expectation(p.beta, c.y))
        mean = max(mean, float((error * visited).max() / scale))
        bound = SMALL / np.where(inside, p.beta, 1).min() / (1 - gamma)
        near = max(near, float(np.abs(np.where(inside, c.q[0] - p.fitted, 0.0))[:, :-1].max() / bound))
        far = max(far, float((np.asarray(total_variation(c.mu[-1], p.beta)) * visited).max()))
        limit = np.stack([q_of(e, b, bonus) for e, b, bonus in zip(p.empirical, p.beta, large_lambda_bonus(p.beta), strict=True)])
        shift = max(shift, float(np.abs(c.y[-1] - limit)[:, :-1].max() / scale))
    return [
        Claim("<beta, Q> = <beta, y> for every lambda", f"relative error {mean:.1e}", mean < 1e-9),
        Claim(
            f"lambda -> 0 is Q-iteration on the data: at {SMALL:g} within lambda / (min beta (1 - gamma))", f"{near:.3f} of it", near <= 1
        ),
        Claim(f"lambda -> infinity is behaviour cloning: at {LARGE:g} softmax(Q) = beta", f"total variation {far:.1e}", far < 1e-3),
        Claim("and its targets are Q^beta with the reward <beta, log(max beta / beta)> added", f"relative error {shift:.1e}", shift < 1e-3),
    ]


def lower_bound_claims(problems: Sequence[OfflineProblem]) -> list[Claim]:
    """Claim on the gap (I - gamma P)^-1 lambda D of CQL's V, with the one-step policy as actor on the empirical MDPs."""
    largest, smallest = 0.0, np.inf
    for p in problems:
        for model, beta, pi in zip(p.empirical, p.beta, p.pi, strict=True):
            v = value_of(model, pi)
            below, gap = v - expectation(pi, conservative_q(model, pi, beta, 1.0)), conservative_gap(model, pi, beta, 1.0)
            largest, smallest = max(largest, float(np.abs(below - gap)[:-1].max() / v.max())), min(smallest, float(gap[:-1].min()))
    text = "CQL(mu = pi) with the policy of one-step RL as pi underestimates V^pi by exactly lambda (I - gamma P)^-1 D, D >= 0"
    return [Claim(text, f"relative error {largest:.1e}, smallest gap {smallest:.1e}", largest < 1e-10 and smallest > -1e-10)]


def exact_uniform_claim(seeds: Sequence[int]) -> Claim:
    """Claim for exactly uniform beta: lambda (mu / beta - 1) -> A^beta, where one-step RL has V (pi_1 / beta - 1) = A^beta."""
    errors = []
    for seed in seeds:
        mdp = garnet(20, 4, 5, seed, low=0.1)
        beta = uniform_policy(mdp)
        solution = conservative(Tables(mdp.P[None], mdp.R[None], beta[None], mdp.terminal[None], mdp.gamma), np.array([1e3, 1e4]))
        q = q_of(mdp, beta)
        advantage = q - expectation(beta, q)[:, None]
        error = np.array([1e3, 1e4])[:, None, None] * (solution.mu[:, 0] / beta - 1) - advantage
        errors.append(np.abs(error).max((1, 2)) / np.abs(advantage).max())
    first, last = np.mean(errors, 0)
    text = "uniform data: lambda (mu / beta - 1) tends to A^beta like 1 / lambda, so that mu is the one-step policy for lambda = V^beta"
    return Claim(text, f"relative error {first:.1e} at 1e3, {last:.1e} at 1e4", bool(last < 1e-2 and 8 < first / last < 12))


def network_claim(problems: Sequence[OfflineProblem], networks: Sequence[tuple[Array, Array]]) -> Claim:
    """Claim on the limit of networks: nearer to the behaviour policy with a large lambda than with a small one."""
    distances = [p.mean(np.asarray(total_variation(mu, p.beta))).mean(-1) for p, (mu, _) in zip(problems, networks, strict=True)]
    holds = all(np.isfinite(mu).all() and d[-1] < d[0] for d, (mu, _) in zip(distances, networks, strict=True))
    first, last = np.mean(distances, 0)[[0, -1]]
    text = "networks: all finite, and nearer to behaviour cloning at the largest lambda than at the smallest"
    return Claim(text, f"total variation to beta {first:.3f} -> {last:.3f}, means", holds)


# ------------------------------------------------------------------------------------------------------------ tables and figure
def interval(measured: Similarity, lams: Array) -> tuple[float, float, float]:
    """Geometric mean over seeds of the most similar lambda, and its 95 % bootstrap interval."""
    point, low, high = (10.0**x for x in bootstrap(np.log10(measured.best(lams)), statistic=lambda x, axis: np.mean(x, axis)))
    return point, low, high


def best_table(title: str, problems: Sequence[OfflineProblem], similarities: Sequence[Similarity], lams: Array) -> Table:
    """Table of the most similar lambda, with a bootstrap interval over seeds of its geometric mean."""
    rows: list[Sequence[object]] = []
    for p, s in zip(problems, similarities, strict=True):
        best = interval(s, lams)
        value = float(p.mean(expectation(p.beta, p.q)).mean())
        at = s.closeness.argmax(0), np.arange(s.closeness.shape[1])
        means = (float(x.mean()) for x in (s.closeness[at], s.clone, s.agreement[at]))
        rows.append((p.name, *best, value, best[0] / value, *means))
    columns = ("data", "best lambda", "95 % low", "high", "V^beta", "ratio", "1 - TV at it", "1 - TV of beta", "same argmax at it")
    return Table(f"{title}: lambda most similar to one-step RL", columns, rows)


def curve_table(title: str, problems: Sequence[OfflineProblem], similarities: Sequence[Similarity], lams: Array) -> Table:
    """Table of the values in the heat maps."""
    rows = [
        (float(lam), *(f"{s.closeness[i].mean():.4f} ({s.agreement[i].mean():.2f})" for s in similarities))
        for i, lam in enumerate(lams.tolist())
    ]
    return Table(title, ("lambda", *(p.name for p in problems)), rows)


def return_table(
    problems: Sequence[OfflineProblem], solutions: Sequence[ConservativeFixedPoint], lams: Array, similarities: Sequence[Similarity]
) -> Table:
    """Table of returns on the true MDP: behaviour policy, one-step RL, CQL at the most similar and at the best lambda."""
    rows: list[Sequence[object]] = []
    for p, c, s in zip(problems, solutions, similarities, strict=True):

        def score(pi: Array, p: OfflineProblem = p) -> Array:
            return np.array([performance(mdp, x[: mdp.S]) for mdp, x in zip(p.truth, pi, strict=True)])

        returns = np.stack([score(mu) for mu in c.mu[1:-1]])  # [L, N]
        similar = returns[s.closeness.argmax(0), np.arange(len(p.truth))]
        best = returns.mean(1).argmax()
        rows.append((p.name, *(float(x.mean()) for x in (score(p.beta), score(p.pi), similar, returns[best])), float(lams[best])))
    columns = ("data", "behaviour policy", "one-step RL", "CQL at the most similar lambda", "CQL at the best lambda", "best lambda")
    return Table("Tables: return on the true MDP, means over seeds", columns, rows)


def overestimation_table(problems: Sequence[OfflineProblem], solutions: Sequence[ConservativeFixedPoint]) -> Table:
    """Table of V^beta and of max Q of CQL(H) at the smallest and the largest lambda."""
    rows = []
    for p, c in zip(problems, solutions, strict=True):
        inside = p.beta > 0
        values = [float(p.mean(np.where(inside, q, -np.inf).max(-1)).mean()) for q in (c.q[0], c.q[-1])]
        rows.append((p.name, float(p.mean(expectation(p.beta, p.q)).mean()), *values))
    columns = ("data", "V^beta", "lambda -> 0", f"lambda = {LARGE:g}")
    return Table("max Q of CQL(H), which is not a lower bound: means over the data's states", columns, rows)


def two_slopes(ratio: Array) -> Array:
    """Colour scale of ratios, [-1, 1], logarithmic with two slopes: 1/2 -> -1, 1 -> 0, 300 -> 1."""
    logs = np.log(ratio)
    return np.asarray(np.where(logs < 0, logs / np.log(2), logs / np.log(300)))


def heatmaps(problems: Sequence[OfflineProblem], *parts: tuple[Array, Sequence[Similarity]]) -> Figure:
    """Heat maps over data and lambda. Top: tables; bottom: networks. Left: distance to one-step RL relative to cloning; right: argmax."""
    figure = Figure(figsize=(9.8, 5.6), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True)
    for row, (name, (lams, similarities)) in enumerate(zip(("tables", "networks"), parts, strict=True)):
        ratio = np.stack([(1 - s.closeness).mean(1) / (1 - s.clone).mean() for s in similarities])  # [data, L]
        left = draw(axes[row, 0], two_slopes(ratio), lams, "RdBu_r", Normalize(-1, 1))
        right = draw(axes[row, 1], np.stack([s.agreement.mean(1) for s in similarities]), lams, "YlGnBu", Normalize(0, 1))
        axes[row, 0].set_title(f"{name}: distance to one-step RL (cloning: 1)", fontsize=9.5, color=INK, loc="left")
        axes[row, 1].set_title(f"{name}: same argmax", fontsize=9.5, color=INK, loc="left")
        axes[row, 0].set_yticks(range(len(problems)), [p.name for p in problems])
        for y, s in enumerate(similarities):
            at = np.interp(np.log10(interval(s, lams)), np.log10(lams), np.arange(len(lams)))
            axes[row, 0].plot(at[1:], [y, y], color=INK, linewidth=1.5)
            axes[row, 0].plot(at[0], y, "o", color="white", markeredgecolor=INK, markersize=6)
        bars = [figure.colorbar(image, ax=ax, shrink=0.9, pad=0.02) for image, ax in zip((left, right), axes[row], strict=True)]
        bars[0].set_ticks([*two_slopes(np.array(TICKS))], labels=[f"{tick:g}" for tick in TICKS])
        for bar in bars:
            bar.outline.set_visible(False)  # type: ignore[operator]
            bar.ax.tick_params(which="both", colors=MUTED, length=0, labelsize=8)
    for ax in axes[1]:
        ax.set_xlabel("lambda", color=MUTED)
    return figure


def draw(ax: Axes, values: Array, lams: Array, colors: str, norm: Normalize) -> AxesImage:
    """Draw one heat map."""
    image = ax.imshow(values, aspect="auto", cmap=colors, norm=norm)
    named = [i for i in range(len(lams)) if len(lams) <= 8 or i % 2 == 0]
    ax.set_xticks(named, [f"{lams[i]:.2g}" if lams[i] < 100 else f"{lams[i]:.0f}" for i in named], fontsize=8)
    ax.set_xticks(np.arange(len(lams)) - 0.5, minor=True)
    ax.set_yticks(np.arange(len(values)) - 0.5, minor=True)
    ax.grid(which="minor", color=GRID, linewidth=0.6)
    ax.tick_params(which="both", colors=MUTED, length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return image
