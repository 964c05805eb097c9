"""Which weight of CQL(H) gives a policy most like one-step RL's? Random MDPs and the grid, three kinds of data, tables and networks.

One-step RL: pi_1 = beta Q^beta / V^beta (arXiv:2307.12968). CQL(H): mu = softmax(Q_lambda) (arXiv:2006.04779). Both know the data alone:
the counted beta and the empirical MDP. Similarity: 1 - total variation, and how often the arg max agrees, over the states of the data.
Letters: L lambdas, N seeds, S states, A actions, E members, F features.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from mbkit.networks.mlp import EnsembleMLP
from mbkit.networks.optimizers import polyak_
from mbkit.report.figure import GRID, INK, MUTED
from mbkit.stats import bootstrap
from mbkit.tabular.environments import SIDE, garnet, one_step_grid
from mbkit.tabular.mdp import MDP, Array, uniform_policy
from mbkit.tabular.occupancy import discounted, total_variation
from mbkit.tabular.offline import behaviour, conservative_gap, conservative_q, counts, empirical_mdp, fitted_q_iteration
from mbkit.tabular.one_step import improve
from mbkit.tabular.operators import expectation, greedy, performance, q_of, value_of
from mbkit.tabular.planning import value_iteration
from mbkit.tabular.sampling import epsilon_greedy, sample_rows
from mbkit.theory.conservative import Conservative, Tables, conservative, far_bonus
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment

SOLO, FAR = 1e-6, 1e6  # lambdas that stand for the limits
ROWS = 2000  # of a data set
EPSILON = {"uniform": 1.0, "epsilon-greedy": 0.5, "expert": 0.05}  # of the behaviour policies around the best one
TICKS = (0.5, 0.7, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # of the figure's scale
TIE = 1e-9  # relative: actions so close count as equally good
HIDDEN, LR, TAU = (64, 64), 3e-3, 0.02  # of the networks: widths, Adam's step, weight of the new parameters in the slow copy


class Problem(NamedTuple):
    """N data sets of one kind from N MDPs, and what one-step RL makes of each; S counts the terminal state of an empirical MDP."""

    name: str
    truth: Sequence[MDP]  # N
    empirical: Sequence[MDP]  # N
    fitted: Array  # [N, S, A] fitted Q-iteration, which leaves unseen pairs at 0
    n: Array  # [N, S, A] counts
    beta: Array  # [N, S, A]
    q: Array  # [N, S, A] Q^beta on the empirical MDP
    pi: Array  # [N, S, A] one-step RL; uniform where there are no data
    inputs: Array  # [N, S, F] what a network is shown of each state

    @property
    def tables(self) -> Tables:
        """The same for the exact solver."""
        P, R = (np.stack([getattr(e, name) for e in self.empirical]) for name in ("P", "R"))
        return Tables(P, R, self.beta, np.stack([e.terminal for e in self.empirical]), self.empirical[0].gamma)

    def mean(self, x: Array) -> Array:
        """Mean of x [..., N, S] over the states of the data, [..., N]."""
        n = self.n.sum(-1)
        return np.asarray((x * n).sum(-1) / n.sum(-1))


def problem(where: str, kind: str, seeds: Sequence[int]) -> Problem:
    """Draw the data: uniform pairs, or pairs from the discounted occupancy of an epsilon-greedy policy around the best one."""
    parts = []
    for seed in seeds:
        rng = np.random.default_rng([seed, *where.encode(), *kind.encode()])
        mdp = garnet(20, 4, 5, seed, low=0.1) if where == "Garnet" else one_step_grid(2)
        S, A = mdp.S, mdp.A
        pi = epsilon_greedy(greedy(value_iteration(mdp, tol=1e-10).q), EPSILON[kind])
        weight = np.ones((S, A)) if kind == "uniform" else discounted(mdp, pi)[:, None] * pi
        data = sample_rows(mdp, rng, ROWS, weight)
        n, model = counts(data, S + 1, A), empirical_mdp(data, S, A, mdp.gamma, mdp.mu0)
        beta = behaviour(data, S + 1, A)
        q, seen = q_of(model, beta), n.sum(1) > 0
        one_step = beta.copy()
        one_step[seen] = improve(beta[seen], q[seen])
        cells = np.array([(i, j) for i in range(SIDE) for j in range(SIDE)]) * 2 / (SIDE - 1) - 1
        shown = np.vstack([cells if where == "grid" else rng.standard_normal((S, 8)), np.zeros((1, 8 if where == "Garnet" else 2))])
        horizon = int(np.ceil(np.log(1e-12) / np.log(mdp.gamma)))
        parts.append((mdp, model, fitted_q_iteration(data, S + 1, A, mdp.gamma, horizon), n, beta, q, one_step, shown))
    truth, models, *arrays = zip(*parts, strict=True)
    return Problem(f"{where}, {kind}", truth, models, *map(np.stack, arrays))


# ------------------------------------------------------------------------------------------------------------------ similarity
def same_argmax(pi: Array, reference: Array) -> Array:
    """Whether the likeliest action of pi is one of the likeliest of the reference, [..., S]."""
    reference = np.broadcast_to(reference, pi.shape)
    chosen = np.take_along_axis(reference, pi.argmax(-1)[..., None], -1)[..., 0]
    return np.asarray((chosen >= reference.max(-1) * (1 - TIE)).astype(float))


class Similarity(NamedTuple):
    """Of policies [L, N, S, A] to one-step RL's, means over the states of the data."""

    closeness: Array  # [L, N] 1 - total variation
    agreement: Array  # [L, N] fraction of equal arg max
    clone: Array  # [N] closeness of beta itself, which lambda -> infinity tends to

    def best(self, lams: Array) -> Array:
        """The lambda of the largest closeness, for each seed, [N]."""
        return np.asarray(lams[self.closeness.argmax(0)])


def similarity(on: Problem, mu: Array, reference: Array) -> Similarity:
    """Compare."""
    closeness, clone = (1 - on.mean(np.asarray(total_variation(pi, reference))) for pi in (mu, on.beta))
    return Similarity(closeness, on.mean(same_argmax(mu, reference)), clone)


# -------------------------------------------------------------------------------------------------------------------- networks
def network_loss(q: Tensor, y: Tensor, n: Tensor, lam: Tensor) -> Tensor:
    """Sum over members of CQL(H)'s loss on all rows: q, y, n [E, S, A], n sums to 1 over a member, lam [E]; 0: plain regression."""
    fit = 0.5 * (n * (q - y) ** 2).sum((1, 2))
    push = (n.sum(-1) * q.logsumexp(-1)).sum(1) - (n * q).sum((1, 2))
    return (fit + lam * push).sum()


def train(on: Problem, lams: Array, steps: int, seed: int) -> tuple[Array, Array]:
    """CQL(H) networks [L, N, S, A] and SARSA networks [N, S, A], all at once, each by full-batch Adam with a slow copy in its targets."""
    E, N = len(lams) + 1, len(on.truth)
    tables = on.tables

    def members(x: Array) -> Tensor:
        return torch.tensor(np.tile(x, (E, *[1] * (x.ndim - 1))), dtype=torch.float32)

    P, R, beta, inputs = members(tables.P), members(tables.R), members(on.beta), members(on.inputs)
    n = members(on.n / on.n.sum((1, 2), keepdims=True))
    alive = members((~tables.terminal).astype(float))
    lam = torch.tensor(np.repeat([0.0, *lams], N), dtype=torch.float32)
    sarsa = (lam == 0)[:, None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = EnsembleMLP(E * N, (on.inputs.shape[-1], *HIDDEN, on.beta.shape[-1]))
    level = (n * R).sum((1, 2)) / (1 - tables.gamma)
    with torch.no_grad():
        net.bias[-1] += level[:, None, None]  # values begin at the data's mean reward for ever: half the steps would go on getting there
    slow, optimizer = deepcopy(net).requires_grad_(False), torch.optim.Adam(net.parameters(), LR, foreach=True)
    for _ in range(steps):
        ahead = slow(inputs)
        v = alive * torch.where(sarsa, (beta * ahead).sum(-1), ahead.amax(-1))
        y = R + tables.gamma * (P.flatten(1, 2) @ v[..., None]).view_as(R)
        optimizer.zero_grad()
        network_loss(net(inputs), y, n, lam).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        polyak_(slow, net, TAU)
    with torch.no_grad():
        q = net(inputs).double().numpy().reshape(E, N, *on.beta.shape[1:])
    return q[1:], q[0]


def network_policies(on: Problem, lams: Array, steps: int, seed: int) -> tuple[Array, Array]:
    """softmax of the CQL networks [L, N, S, A] and beta Q / <beta, Q> of the SARSA networks [N, S, A]."""
    q, sarsa = train(on, lams, steps, seed)
    flat = sarsa.reshape(-1, sarsa.shape[-1])
    one_step = improve(on.beta.reshape(flat.shape), np.maximum(flat, 1e-6)).reshape(sarsa.shape)  # rewards are > 0: so is Q^beta
    return np.asarray(torch.tensor(q).softmax(-1).numpy()), one_step


# ------------------------------------------------------------------------------------------------------------------ experiment
@experiment("n1", "For which weight of CQL the policy is most like one-step RL's: near lambda = V^beta where the data are uniform")
def n1(setting: Setting) -> Findings:
    """Lambda x data x seeds x {Garnet, grid} x {table, network}."""
    seeds = range(setting.seed, setting.seed + setting.pick(10, 2))
    few = range(setting.seed, setting.seed + setting.pick(3, 1))
    lams, few_lams = np.logspace(-2, 4, setting.pick(15, 7)), np.logspace(-1, 3, setting.pick(5, 2))
    names = [(where, kind) for where in ("Garnet", "grid") for kind in EPSILON]
    problems = [problem(*name, seeds) for name in names]
    every = [conservative(p.tables, np.array([SOLO, *lams, FAR])) for p in problems]
    found = [similarity(p, c.mu[1:-1], p.pi) for p, c in zip(problems, every, strict=True)]
    small = [problem(*name, few) for name in names]
    networks = [network_policies(p, few_lams, setting.pick(4000, 120), setting.seed) for p in small]
    shown = [similarity(p, mu, pi) for p, (mu, pi) in zip(small, networks, strict=True)]
    claims = [*limit_claims(problems, every), *lower_bound_claims(problems), exact_uniform_claim(seeds), network_claim(small, networks)]
    tables = [
        best_table("Tables", problems, found, lams),
        return_table(problems, every, lams, found),
        curve_table("Tables: 1 - total variation to one-step RL (arg max agrees), means over seeds", problems, found, lams),
        best_table("Networks", small, shown, few_lams),
        curve_table("Networks: the same", small, shown, few_lams),
        overestimate_table(problems, every),
    ]
    return Findings(claims, tables, heatmaps(problems, (lams, found), (few_lams, shown)))


def limit_claims(problems: Sequence[Problem], every: Sequence[Conservative]) -> list[Claim]:
    """What holds for every data set: the mean of Q, and both ends of lambda."""
    mean, near, far, shift = 0.0, 0.0, 0.0, 0.0
    for p, c in zip(problems, every, strict=True):
        inside, seen, gamma = p.beta > 0, p.n.sum(-1) > 0, p.empirical[0].gamma
        scale = np.abs(c.y).max()
        off = np.abs(expectation(p.beta, c.q) - expectation(p.beta, c.y))
        mean = max(mean, float((off * seen).max() / scale))
        bound = SOLO / np.where(inside, p.beta, 1).min() / (1 - gamma)
        near = max(near, float(np.abs(np.where(inside, c.q[0] - p.fitted, 0.0))[:, :-1].max() / bound))
        far = max(far, float((np.asarray(total_variation(c.mu[-1], p.beta)) * seen).max()))
        limit = np.stack([q_of(e, b, bonus) for e, b, bonus in zip(p.empirical, p.beta, far_bonus(p.beta), strict=True)])
        shift = max(shift, float(np.abs(c.y[-1] - limit)[:, :-1].max() / scale))
    return [
        Claim("<beta, Q> = <beta, y> for every lambda", f"relative error {mean:.1e}", mean < 1e-9),
        Claim(
            f"lambda -> 0 is Q-iteration on the data: at {SOLO:g} within lambda / (min beta (1 - gamma))", f"{near:.3f} of it", near <= 1
        ),
        Claim(f"lambda -> infinity is behaviour cloning: at {FAR:g} softmax(Q) = beta", f"total variation {far:.1e}", far < 1e-3),
        Claim("and its targets are Q^beta with the reward <beta, log(max beta / beta)> added", f"relative error {shift:.1e}", shift < 1e-3),
    ]


def lower_bound_claims(problems: Sequence[Problem]) -> list[Claim]:
    """C15 with the one-step policy as actor on the empirical MDPs: V of CQL lies below V^pi by exactly (I - gamma P)^-1 lambda D."""
    worst, least = 0.0, np.inf
    for p in problems:
        for model, beta, pi in zip(p.empirical, p.beta, p.pi, strict=True):
            v = value_of(model, pi)
            below, gap = v - expectation(pi, conservative_q(model, pi, beta, 1.0)), conservative_gap(model, pi, beta, 1.0)
            worst, least = max(worst, float(np.abs(below - gap)[:-1].max() / v.max())), min(least, float(gap[:-1].min()))
    text = "CQL(mu = pi) with one-step RL's policy as pi underestimates V^pi by exactly lambda (I - gamma P)^-1 D, D >= 0"
    return [Claim(text, f"relative error {worst:.1e}, smallest gap {least:.1e}", worst < 1e-10 and least > -1e-10)]


def exact_uniform_claim(seeds: Sequence[int]) -> Claim:
    """With beta exactly uniform: lambda (mu / beta - 1) -> A^beta, which is one-step RL's form V (pi_1 / beta - 1) = A^beta."""
    error = []
    for seed in seeds:
        mdp = garnet(20, 4, 5, seed, low=0.1)
        beta = uniform_policy(mdp)
        found = conservative(Tables(mdp.P[None], mdp.R[None], beta[None], mdp.terminal[None], mdp.gamma), np.array([1e3, 1e4]))
        q = q_of(mdp, beta)
        advantage = q - expectation(beta, q)[:, None]
        away = np.array([1e3, 1e4])[:, None, None] * (found.mu[:, 0] / beta - 1) - advantage
        error.append(np.abs(away).max((1, 2)) / np.abs(advantage).max())
    first, last = np.mean(error, 0)
    text = "uniform data: lambda (mu / beta - 1) tends to A^beta like 1 / lambda, so that mu is one-step RL's policy where lambda = V^beta"
    return Claim(text, f"relative error {first:.1e} at 1e3, {last:.1e} at 1e4", bool(last < 1e-2 and 8 < first / last < 12))


def network_claim(problems: Sequence[Problem], networks: Sequence[tuple[Array, Array]]) -> Claim:
    """Networks obey the right-hand limit: with a large lambda nearer to the behaviour policy than with a small one."""
    away = [p.mean(np.asarray(total_variation(mu, p.beta))).mean(-1) for p, (mu, _) in zip(problems, networks, strict=True)]
    holds = all(np.isfinite(mu).all() and a[-1] < a[0] for a, (mu, _) in zip(away, networks, strict=True))
    first, last = np.mean(away, 0)[[0, -1]]
    text = "networks: all finite, and nearer to behaviour cloning at the largest lambda than at the smallest"
    return Claim(text, f"total variation to beta {first:.3f} -> {last:.3f}, means", holds)


# ---------------------------------------------------------------------------------------------------------------- what is shown
def interval(found: Similarity, lams: Array) -> tuple[float, float, float]:
    """Geometric mean over seeds of the lambda most alike, and its 95 % bootstrap interval."""
    point, low, high = (10.0**x for x in bootstrap(np.log10(found.best(lams)), statistic=lambda x, axis: np.mean(x, axis)))
    return point, low, high


def best_table(title: str, problems: Sequence[Problem], found: Sequence[Similarity], lams: Array) -> Table:
    """Where the closeness is largest, with a bootstrap interval over seeds of its geometric mean."""
    rows: list[Sequence[object]] = []
    for p, s in zip(problems, found, strict=True):
        there = interval(s, lams)
        value = float(p.mean(expectation(p.beta, p.q)).mean())
        at = s.closeness.argmax(0), np.arange(s.closeness.shape[1])
        means = (float(x.mean()) for x in (s.closeness[at], s.clone, s.agreement[at]))
        rows.append((p.name, *there, value, there[0] / value, *means))
    columns = ("data", "arg max lambda", "95 % low", "high", "V^beta", "ratio", "1 - TV there", "1 - TV of beta", "same arg max there")
    return Table(f"{title}: the lambda most like one-step RL", columns, rows)


def curve_table(title: str, problems: Sequence[Problem], found: Sequence[Similarity], lams: Array) -> Table:
    """Everything behind the heat maps."""
    rows = [
        (float(lam), *(f"{s.closeness[i].mean():.4f} ({s.agreement[i].mean():.2f})" for s in found)) for i, lam in enumerate(lams.tolist())
    ]
    return Table(title, ("lambda", *(p.name for p in problems)), rows)


def return_table(problems: Sequence[Problem], every: Sequence[Conservative], lams: Array, found: Sequence[Similarity]) -> Table:
    """Returns on the true MDP: behaviour, one-step RL, CQL where it is most like it, and the best softmax policy over all lambdas."""
    rows: list[Sequence[object]] = []
    for p, c, s in zip(problems, every, found, strict=True):

        def score(pi: Array, p: Problem = p) -> Array:
            return np.array([performance(mdp, x[: mdp.S]) for mdp, x in zip(p.truth, pi, strict=True)])

        over = np.stack([score(mu) for mu in c.mu[1:-1]])  # [L, N]
        at = over[s.closeness.argmax(0), np.arange(len(p.truth))]
        top = over.mean(1).argmax()
        rows.append((p.name, *(float(x.mean()) for x in (score(p.beta), score(p.pi), at, over[top])), float(lams[top])))
    columns = ("data", "behaviour", "one-step RL", "CQL where most alike", "CQL at its best lambda", "which")
    return Table("Tables: return on the true MDP, means over seeds", columns, rows)


def overestimate_table(problems: Sequence[Problem], every: Sequence[Conservative]) -> Table:
    """The greedy backup's values at a large lambda against V^beta and the best value that the data allow."""
    rows = []
    for p, c in zip(problems, every, strict=True):
        inside = p.beta > 0
        top = [float(p.mean(np.where(inside, q, -np.inf).max(-1)).mean()) for q in (c.q[0], c.q[-1])]
        rows.append((p.name, float(p.mean(expectation(p.beta, p.q)).mean()), top[0], top[1]))
    columns = ("data", "V^beta", "lambda -> 0", f"lambda = {FAR:g}")
    return Table("max Q of CQL(H), which is no lower bound: means over the data's states", columns, rows)


def two_slopes(ratio: Array) -> Array:
    """Logarithms to [-1, 1]: 1/2 is -1, 1 is 0, 300 is 1; below 1 little happens, but that is what matters."""
    logs = np.log(ratio)
    return np.asarray(np.where(logs < 0, logs / np.log(2), logs / np.log(300)))


def heatmaps(problems: Sequence[Problem], *parts: tuple[Array, Sequence[Similarity]]) -> Figure:
    """Rows: data; columns: lambda. Above tables, below networks; left the distance to one-step RL over cloning's, right the arg max."""
    figure = Figure(figsize=(9.8, 5.6), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True)
    for row, (name, (lams, found)) in enumerate(zip(("tables", "networks"), parts, strict=True)):
        ratio = np.stack([(1 - s.closeness).mean(1) / (1 - s.clone).mean() for s in found])  # [data, L]
        left = draw(axes[row, 0], two_slopes(ratio), lams, "RdBu_r", Normalize(-1, 1))
        right = draw(axes[row, 1], np.stack([s.agreement.mean(1) for s in found]), lams, "YlGnBu", Normalize(0, 1))
        axes[row, 0].set_title(f"{name}: distance to one-step RL, cloning's = 1", fontsize=9.5, color=INK, loc="left")
        axes[row, 1].set_title(f"{name}: same arg max", fontsize=9.5, color=INK, loc="left")
        axes[row, 0].set_yticks(range(len(problems)), [p.name for p in problems])
        for y, s in enumerate(found):
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
    """One heat map."""
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
