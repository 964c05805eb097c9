"""Does the equality of critic regularisation and one-step RL survive data and function approximation, and for which losses?

Eysenbach et al. 2023, arXiv:2307.12968, its open questions. One form of critic for every loss, Q = exp(u), u linear or an MLP; the actor
is a table. L losses, K lambdas, N seeds, E = L K N members, S states, A actions, D features. With x = lambda (pi - beta),

    critic  min sum_a beta loss(Q, y) + x g(Q), by Adam,
    actor   pi' proportional to pi exp(eta / lambda Q / V).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mbkit.config import at_least, positive
from mbkit.nn import EnsembleMLP
from mbkit.report.figure import INK, MUTED, color, panels, steps_axis
from mbkit.tabular.critic_losses import CROSS_ENTROPY, LOSSES
from mbkit.tabular.critic_regularisation import Rest, joint_fixed_point, normalised_target, water_fill
from mbkit.tabular.environments import SIDE, one_step_grid
from mbkit.tabular.mdp import MDP, Array, random_policy
from mbkit.tabular.occupancy import total_variation
from mbkit.tabular.offline import behaviour, empirical_mdp
from mbkit.tabular.one_step import improve, one_step_policy
from mbkit.tabular.operators import q_of, value_of
from mbkit.tabular.planning import fixed_point
from mbkit.tabular.sampling import sample_rows
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment

NORMALISED = "ce_normalised"
NAMES = ("cross_entropy", NORMALISED, "poisson", "mse", "huber", "itakura_saito")
UNIT = {"mse": 1, "huber": 1, "itakura_saito": -1}  # lambda = 1 times the mean value to this power is the loss' own unit of lambda
SLIP = 0.1  # probability that the grid moves as it likes: weights y / (1 + y) are biased only where the dynamics are random
LEAST = 0.05  # added to every reward of the grid, so that the positive losses can take it
ROWS = 320  # rows a state of the data set that every lambda is tried on
FLOOR = 1e-5  # smaller total variations are drawn here
LOST = 3.0  # relative error of Q beyond which a critic is not on its way to rest
SOLVED = 1e-8  # equality of fixed points that are iterated to 1e-9
CRITICS: dict[str, tuple[int, tuple[int, ...]]] = {  # degree of the features, hidden layers; degree 4 is every table
    "linear 25": (4, ()),
    "linear 16": (3, ()),
    "linear 9": (2, ()),
    "linear 4": (1, ()),
    "MLP 4": (1, (4, 4)),
    "MLP 16": (1, (16, 16)),
    "MLP 32": (1, (32, 32)),
}


@dataclass(frozen=True)
class Training:
    """How critic and actor are learned."""

    steps: int = at_least(4000, 4)  # of Adam; in the first quarter the actor is beta, so that the critic is one-step RL's
    lr: float = positive(0.01)  # of Adam, falling linearly to a tenth
    eta: float = positive(0.01)  # of the actor; pi follows Q at this rate for every lambda


class Problem(NamedTuple):
    """One seed."""

    mdp: MDP
    beta: Array  # [S, A]
    mean: float  # of V^beta over the states
    seed: int


class Run(NamedTuple):
    """What is done at once."""

    problems: list[Problem]  # N seeds of one grid
    lambdas: Array  # [K] in units of cross-entropy
    names: tuple[str, ...] = NAMES  # L losses

    @property
    def shape(self) -> tuple[int, int, int]:
        """Losses, lambdas, seeds."""
        return len(self.names), len(self.lambdas), len(self.problems)


class Rests(NamedTuple):
    """Closed forms of every member."""

    pi: Array  # [L, K, N, S, A]
    q: Array  # [L, K, N, S, A]


class Trained(NamedTuple):
    """What learning left at T checkpoints."""

    steps: list[int]  # [T]
    pi: Array  # [T, L, K, N, S, A]
    q: Array  # [T, L, K, N, S, A]
    q_beta: Array  # [L, K, N, S, A] the same critic's Q^beta: its state when the actor begins to move


@experiment("n2", "The equality with one-step RL survives sampling exactly, and function approximation as far as the critic is right")
def n2(setting: Setting) -> Findings:
    """Six losses x {closed form, the same on rows, linear, MLP}: distance to one-step RL over lambda, steps and the critic's error."""
    lambdas = np.logspace(0, 0.5, 2) if setting.quick else np.logspace(-0.5, 1, 4)
    run = Run([problem(seed) for seed in range(setting.seed, setting.seed + setting.pick(5, 1))], lambdas)
    one = int(np.argmin(np.abs(lambdas - 1)))
    how = Training(setting.pick(4000, 1000))
    critics = {name: CRITICS[name] for name in (CRITICS if not setting.quick else ("linear 25", "linear 4", "MLP 16"))}
    target = np.stack([one_step_policy(p.mdp, p.beta) for p in run.problems])  # [N, S, A]
    rest = closed_forms(run)
    learned = {name: train(run, polynomials(degree), hidden, how, setting.seed) for name, (degree, hidden) in critics.items()}
    wide = on_rows(run, lambdas, ROWS, rest.q)
    sizes = setting.pick((20, 80, ROWS, 1280), (ROWS,))
    rows = {k: wide.at(one) if k == ROWS else on_rows(run, lambdas[[one]], k, rest.q[:, [one]]).at(0) for k in sizes}
    exact = apart(rest.pi, target)  # [L, K, N]
    final = {name: apart(it.pi[-1], target) for name, it in learned.items()}
    own = {name: apart(it.q_beta[:, one] * betas(run), it.pi[-1][:, one]) for name, it in learned.items()}  # [L, N]
    naive = {name: apart(it.q_beta[:, one] * betas(run), target) for name, it in learned.items()}
    wrong = {name: error(run, it.q[-1], rest.q, betas(run)) for name, it in learned.items()}
    points = {name: [(wrong[c][n, one], final[c][n, one]) for c in learned] for n, name in enumerate(NAMES)}
    for n, name in enumerate(NAMES):
        points[name] += [(it.wrong[n], it.apart[n]) for it in rows.values()]
    to_rest = apart(learned["linear 25"].pi[-1], rest.pi)[:, one]
    equal, biased_by = float(exact[[0, 2], one].max()), float(exact[1, one].min())
    same_rows = max(it.unlike for it in rows.values())
    found, broken = float(to_rest[:4].max()), float(own["linear 4"][0].min())
    claims = [
        Claim("closed form: cross-entropy and Poisson at lambda = 1 are one-step RL", f"total variation {equal:.1e}", equal <= SOLVED),
        Claim(
            "with normalised weights it is not, where dynamics are random", f"total variation at least {biased_by:.1e}", biased_by > 1e-4
        ),
        Claim("on rows they are one-step RL on the same rows", f"total variation {same_rows:.1e}", same_rows <= SOLVED),
        Claim(
            "a critic that can be every table learns its closed form: cross-entropy of both weights, Poisson, MSE, lambda = 1",
            f"total variation at most {found:.1e}",
            found <= 0.01,
        ),
        Claim(
            "a critic that cannot breaks the equality: cross-entropy at lambda = 1, linear in 4 features",
            f"total variation at least {broken:.1e} to one-step RL with the same critic",
            broken > 1e-3,
        ),
    ]
    by_lambda = [("closed form", exact), (f"closed form, {ROWS} rows a state", wide.apart), *final.items()]
    at_one = [("closed form", exact[:, one]), *((f"{k} rows a state", it.apart) for k, it in rows.items())]
    at_one += [(name, each[:, one]) for name, each in final.items()]
    first = learned["linear 25"].steps
    tables = [
        Table("Total variation to one-step RL at lambda = 1, mean over seeds", ("critic", *NAMES), [(c, *means(tv)) for c, tv in at_one]),
        Table("Its standard deviation over seeds", ("critic", *NAMES), [(c, *tv.std(-1).tolist()) for c, tv in at_one]),
        Table(
            "The same critics' own one-step RL: to the exact one, and to their regularised actor (lambda = 1)",
            ("critic", "distance to", *NAMES),
            [(c, to, *means(tv)) for c in learned for to, tv in (("exact one-step RL", naive[c]), ("own regularised actor", own[c]))],
        ),
        Table(
            "Total variation to one-step RL over lambda, mean over seeds",
            ("critic", "lambda", *NAMES),
            [(c, float(lam), *means(tv[:, k])) for c, tv in by_lambda for k, lam in enumerate(lambdas)],
        ),
        Table(
            "Total variation to one-step RL over steps, cross-entropy, lambda = 1, mean over seeds",
            ("critic", *(f"{t} steps" for t in first)),
            [(c, *apart(it.pi[:, 0, one], target).mean(-1).tolist()) for c, it in learned.items()],
        ),
        Table(
            "Regression at lambda = 1: total variation on the relative error of Q",
            ("loss", "points", "slope", "intercept", "R^2", "rank correlation"),
            [(name, *regression(each)) for name, each in points.items()],
        ),
        Table(
            f"Members whose Q ran away, of {lambdas.size * len(run.problems)}: relative error beyond {LOST:g}",
            ("critic", *NAMES),
            [(c, *runaway(each)) for c, each in wrong.items()],
        ),
    ]
    over_steps = {name: apart(it.pi[:, 0, one], target) for name, it in learned.items()}
    return Findings(claims, tables, draw(run, exact, final, over_steps, first, points))


# ---------------------------------------------------------------------------------------------------------------------- measures
def betas(run: Run) -> Array:
    """[N, S, A]."""
    return np.stack([p.beta for p in run.problems])


def means(x: Array) -> list[float]:
    """Over seeds."""
    found: list[float] = x.mean(-1).tolist()
    return found


def apart(pi: Array, other: Array) -> Array:
    """Total variation, mean over states: [..., S, A] -> [...]; weights that do not sum to 1 are normalised."""
    return np.asarray(total_variation(pi / pi.sum(-1, keepdims=True), other).mean(-1))


def error(run: Run, q: Array, exact: Array, weight: Array) -> Array:
    """Root of the mean over states and beta of (Q - Q_exact)^2, relative to the mean value; [..., N, S, A] -> [..., N]."""
    mean = np.array([p.mean for p in run.problems])
    return np.asarray(np.sqrt((weight * (q - exact) ** 2).sum(-1).mean(-1)) / mean)


def regression(points: list[tuple[Array, Array]]) -> tuple[int, float, float, float, float]:
    """(points, slope, intercept, R^2, Spearman's rank correlation) of the second on the first, without members that ran away."""
    x, y = (np.concatenate([each[k] for each in points]) for k in (0, 1))
    x, y = x[kept := x < LOST], y[kept]
    slope, intercept = np.polyfit(x, y, 1)
    ranked = np.corrcoef(np.argsort(np.argsort(x)).astype(float), np.argsort(np.argsort(y)).astype(float))[0, 1]
    linear = np.corrcoef(x, y)[0, 1] ** 2
    return len(x), float(slope), float(intercept), float(linear), float(ranked)


def runaway(wrong: Array) -> list[int]:
    """How many of the members of each loss, [L]; not-a-numbers among them."""
    count: list[int] = (~(wrong < LOST)).sum((1, 2)).tolist()
    return count


# --------------------------------------------------------------------------------------------------------------- tables, exactly
def problem(seed: int) -> Problem:
    """The slippery 5x5 grid, 0.05 everywhere and 1 more in the far corner, and a random behaviour with every beta >= 0.02."""
    grid = one_step_grid(1)
    mdp = replace(grid, P=(1 - SLIP) * grid.P + SLIP * grid.P.mean(1, keepdims=True), R=grid.R + LEAST)
    beta = 0.9 * random_policy(mdp, np.random.default_rng(seed)) + 0.1 / mdp.A
    return Problem(mdp, beta, float(value_of(mdp, beta).mean()), seed)


def own_unit(name: str, lam: float, mean: float) -> float:
    """Lambda of a loss that weighs the regulariser as cross-entropy's does at a value of `mean`: times mean^(1 - k) of experiment d2."""
    return float(lam * mean ** UNIT.get(name, 0))


def rest_of(mdp: MDP, beta: Array, lam: float, name: str) -> tuple[Array, Array]:
    """(pi, Q) [S, A] where actor and critic of a loss rest, in closed form; Q is the level where pi > 0 and lower elsewhere."""
    if name != NORMALISED:
        rest, loss = joint_fixed_point(mdp, beta, lam, LOSSES[name], 1e-9), LOSSES[name]
    else:
        rest, loss = normalised_rest(mdp, beta, lam), CROSS_ENTROPY
    dropped = loss.critic(rest.y, np.full_like(beta, -lam))  # pi = 0 pushes Q up by lambda beta alone
    return rest.pi, np.where(rest.pi > 0, rest.level[:, None], np.where((beta > 0) & ~mdp.terminal[:, None], dropped, 0.0))


def normalised_rest(mdp: MDP, beta: Array, lam: float) -> Rest:
    """`joint_fixed_point` of cross-entropy on targets whose samples have weights y / (1 + y) and 1 / (1 + y)."""

    def sweep(y: Array) -> Array:
        return normalised_target(mdp, np.where(mdp.terminal, 0.0, water_fill(living(y), beta, lam, CROSS_ENTROPY, 50)[1]))

    def living(y: Array) -> Array:
        return np.where(mdp.terminal[:, None], 1.0, y)

    y = fixed_point(sweep, q_of(mdp, beta), mdp.gamma, 1e-9).x
    pi, level = water_fill(living(y), beta, lam, CROSS_ENTROPY)
    return Rest(pi, np.where(mdp.terminal, 0.0, level), y, bool(((beta > 0) & (pi <= 0)).any()))


def from_rows(it: Problem, rows: int, rng: np.random.Generator) -> tuple[MDP, Array]:
    """The empirical MDP and behaviour of so many rows in every state, actions from beta."""
    data = sample_rows(it.mdp, rng, rows * it.mdp.S, it.beta)
    seen = empirical_mdp(data, it.mdp.S, it.mdp.A, it.mdp.gamma, it.mdp.mu0)
    return seen, behaviour(data, seen.S, seen.A)


def closed_forms(run: Run) -> Rests:
    """Every member's (pi, Q) at rest."""
    found = [[[rest_of(p.mdp, p.beta, own_unit(name, k, p.mean), name) for p in run.problems] for k in run.lambdas] for name in run.names]
    both = np.array(found)  # [L, K, N, 2, S, A]
    return Rests(both[:, :, :, 0], both[:, :, :, 1])


class OnRows(NamedTuple):
    """Closed forms of empirical MDPs."""

    apart: Array  # [L, K, N] total variation to the true one-step RL
    wrong: Array  # [L, K, N] relative error of Q
    unlike: float  # largest total variation of cross-entropy and Poisson at lambda = 1 to one-step RL on the same rows

    def at(self, k: int) -> "OnRows":
        """One lambda, [L, N]."""
        return OnRows(self.apart[:, k], self.wrong[:, k], self.unlike)


def on_rows(run: Run, lambdas: Array, rows: int, exact: Array) -> OnRows:
    """So many rows a state; exact [L, K, N, S, A] is the true Q at rest."""
    far, wrong, unlike = np.empty(exact.shape[:3]), np.empty(exact.shape[:3]), 0.0
    for n, it in enumerate(run.problems):
        S, target = it.mdp.S, one_step_policy(it.mdp, it.beta)
        seen, beta = from_rows(it, rows, np.random.default_rng([rows, it.seed]))
        own = improve(beta[:S], q_of(seen, beta)[:S])
        for j, name in enumerate(run.names):
            for k, lam in enumerate(lambdas.tolist()):
                pi, q = rest_of(seen, beta, own_unit(name, lam, it.mean), name)
                far[j, k, n] = apart(pi[:S], target)
                wrong[j, k, n] = np.sqrt((beta[:S] * (q[:S] - exact[j, k, n]) ** 2).sum(-1).mean()) / it.mean
                if lam == 1 and name in ("cross_entropy", "poisson"):
                    unlike = max(unlike, float(apart(pi[:S], own)))
    return OnRows(far, wrong, unlike)


# -------------------------------------------------------------------------------------------------------------- learned critics
PUSHES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {  # (Q, y, beta, x) -> derivative of the objective in u = log Q
    "cross_entropy": lambda q, y, beta, x: (beta * (q - y) + x * q) / (1 + q),
    NORMALISED: lambda q, y, beta, x: (beta * (q - y) + x * q) / (1 + q),
    "poisson": lambda q, y, beta, x: beta * (q - y) + x * q,
    "mse": lambda q, y, beta, x: q * (beta * (q - y) + x),
    "huber": lambda q, y, beta, x: q * (beta * (q - y).clamp(-1, 1) + x),
    "itakura_saito": lambda q, y, beta, x: beta * (1 - y / q) + x * q,
}


def polynomials(degree: int) -> Array:
    """Products of the first degree + 1 orthonormal polynomials of row and column, [S, (degree + 1)^2]; degree 4 is every table."""
    powers = np.vander(np.linspace(-1, 1, SIDE), degree + 1, increasing=True)
    basis = np.linalg.qr(powers)[0] * np.sqrt(SIDE)
    return np.asarray(np.einsum("id,je->ijde", basis, basis).reshape(SIDE * SIDE, -1))


def single(values: Array) -> Tensor:
    """A float32 copy for learning."""
    return torch.tensor(values, dtype=torch.float32)


def biased(P: Tensor, y: Tensor) -> Tensor:
    """E[y w] / E[w] with w = 1 / (1 + y) over s', for samples y [..., S, A, S]: what normalised weights regress on, [..., S, A]."""
    weight = P / (1 + y)
    return (weight * y).sum(-1) / weight.sum(-1)


def train(run: Run, features: Array, hidden: tuple[int, ...], how: Training, seed: int) -> Trained:
    """All losses, lambdas and seeds at once, on exact expectations over uniform states, beta and P.

    Args:
        run: what.
        features: of the states, [S, D].
        hidden: layers of the critic; () is a linear one.
        how: steps and their sizes.
        seed: of the first weights.
    """
    mdp = run.problems[0].mdp
    P, R, x, bounds = single(mdp.P), single(mdp.R), single(features), (mdp.R.min() / (1 - mdp.gamma), mdp.R.max() / (1 - mdp.gamma))
    beta = single(np.stack([p.beta for p in run.problems]))  # [N, S, A]
    own = single(np.array([[[own_unit(name, lam, p.mean) for p in run.problems] for lam in run.lambdas] for name in run.names]))
    own, speed = own[..., None, None], how.eta / single(run.lambdas)[:, None, None, None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = EnsembleMLP(int(np.prod(run.shape)), (x.shape[1], *hidden, mdp.A))
    optimizer = torch.optim.Adam(net.parameters(), lr=how.lr, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, how.steps)
    log_pi, warm = beta.log().expand(*run.shape, mdp.S, mdp.A), how.steps // 4
    marks = np.linspace(warm, how.steps, 9).astype(int).tolist()
    pis, qs = [], []
    for t in range(1, how.steps + 1):
        u = net(x).view(*run.shape, mdp.S, mdp.A)
        with torch.no_grad():
            q, pi = u.exp(), log_pi.exp()
            level = (pi * q).sum(-1, keepdim=True)
            v = level[..., 0].clamp(*bounds)  # what no policy's value can leave; without it some young networks never return
            y = R + mdp.gamma * torch.einsum("sat,lknt->lknsa", P, v)
            if NORMALISED in run.names:
                n = run.names.index(NORMALISED)
                y[n] = biased(P, R[..., None] + mdp.gamma * v[n][..., None, None, :])
            push = torch.stack([PUSHES[name](q[n], y[n], beta, own[n] * (pi[n] - beta)) for n, name in enumerate(run.names)])
        optimizer.zero_grad()
        (u * push).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if t > warm:
            log_pi = (log_pi + speed * q / level).log_softmax(-1)
        if t in marks:
            pis.append(log_pi.exp().double().numpy())
            qs.append(q.double().numpy())
    return Trained(marks, np.stack(pis), np.stack(qs), qs[0])


def draw(
    run: Run, exact: Array, final: dict[str, Array], steps: dict[str, Array], marks: list[int], points: dict[str, list[tuple[Array, Array]]]
) -> Figure:
    """Over lambda, over steps, over the critic's error."""
    figure, (first, second, third) = panels(
        ("lambda", "total variation to one-step RL"), ("steps", "the same, lambda = 1"), ("relative error of Q", "the same, lambda = 1")
    )
    for n, name in enumerate(NAMES):
        style = "--" if name == "poisson" else "-"
        first.semilogx(run.lambdas, exact[n].mean(-1), style, color=color(n), linewidth=1.7, label=name.replace("_", "-"))
        first.semilogx(run.lambdas, final["MLP 16"][n].mean(-1), "o", color=color(n), markersize=4)
        x, y = (np.concatenate([each[k] for each in points[name]]) for k in (0, 1))
        kept = x < LOST
        third.loglog(x[kept], np.maximum(y[kept], FLOOR), "o", color=color(n), markersize=3, alpha=0.7)
    first.axvline(1, color=MUTED, linewidth=0.8)
    first.set_ylim(bottom=0)
    shown = [name for name in steps if name != "linear 16"]
    for n, name in enumerate(shown):
        second.semilogy(marks, steps[name].mean(-1), "o-", color=color(n), markersize=3, linewidth=1.5, label=name)
    steps_axis(second)
    for ax in (first, second):
        ax.legend(loc="lower left", bbox_to_anchor=(-0.1, 1), ncols=3, frameon=False, labelcolor=INK, fontsize=8, columnspacing=1.0)
    return figure
