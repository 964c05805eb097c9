"""Does the equality of critic regularisation and one-step RL survive data and function approximation, and for which losses?

Eysenbach et al. 2023, arXiv:2307.12968, its open questions. One form of critic for every loss, Q = exp(u), u linear or an MLP; the actor
is a table. L losses, K lambdas, N seeds, T checkpoints, S states, A actions. With x = lambda (pi - beta),

    critic  min sum_a beta loss(Q, y) + x g(Q), by Adam,
    actor   pi' proportional to pi exp(eta / lambda Q / V).
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mbkit.report.figure import INK, MUTED, color, panels, steps_axis
from mbkit.tabular.critic_losses import CROSS_ENTROPY, LOSSES
from mbkit.tabular.critic_regularisation import Rest, joint_fixed_point, normalised_target, water_fill
from mbkit.tabular.environments import one_step_grid
from mbkit.tabular.mdp import MDP, Array, random_policy
from mbkit.tabular.occupancy import total_variation
from mbkit.tabular.offline import behaviour, empirical_mdp
from mbkit.tabular.one_step import improve, one_step_policy
from mbkit.tabular.operators import q_of, value_of
from mbkit.tabular.planning import fixed_point
from mbkit.tabular.sampling import sample_rows
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment
from mbkit.theory.learned_critics import CRITICS, NAMES, NORMALISED, Problem, Run, Trained, Training, betas, own_unit, polynomials, train

SLIP = 0.1  # probability that the grid moves as it likes: weights y / (1 + y) are biased only where the dynamics are random
LEAST = 0.05  # added to every reward of the grid, so that the positive losses can take it
ROWS = 320  # rows a state of the data set that every lambda is tried on
FLOOR = 1e-5  # smaller total variations are drawn here
LOST = 3.0  # relative error of Q beyond which a critic is not on its way to rest
SOLVED = 1e-8  # equality of fixed points that are iterated to 1e-9


class Rests(NamedTuple):
    """Closed forms of every member."""

    pi: Array  # [L, K, N, S, A]
    q: Array  # [L, K, N, S, A]


class OnRows(NamedTuple):
    """Closed forms of empirical MDPs."""

    apart: Array  # [L, K, N] total variation to the true one-step RL
    wrong: Array  # [L, K, N] relative error of Q
    unlike: float  # largest total variation of cross-entropy and Poisson at lambda = 1 to one-step RL on the same rows

    def at(self, k: int) -> "OnRows":
        """One lambda, [L, N]."""
        return OnRows(self.apart[:, k], self.wrong[:, k], self.unlike)


class Measured(NamedTuple):
    """What the experiment leaves to be judged, tabulated and drawn; dicts are by critic. Distances are to the exact one-step RL."""

    run: Run
    one: int  # which lambda is 1
    exact: Array  # [L, K, N] distance of the closed forms
    wide: OnRows  # closed forms on `ROWS` rows a state
    rows: dict[int, OnRows]  # by rows a state, lambda = 1
    marks: list[int]  # [T] steps of the checkpoints
    final: dict[str, Array]  # [L, K, N] distance of the regularised actors
    over_steps: dict[str, Array]  # [T, N] the same at the checkpoints, cross-entropy, lambda = 1
    own: dict[str, Array]  # [L, N] regularised actor to the same critic's one-step RL, lambda = 1
    naive: dict[str, Array]  # [L, N] distance of that one
    wrong: dict[str, Array]  # [L, K, N] relative error of Q
    to_rest: Array  # [L, N] actor of "linear 25" to its closed form, lambda = 1

    def points(self, name: str) -> list[tuple[Array, Array]]:
        """(relative error of Q, distance) of a loss at lambda = 1: learned critics, then data sets."""
        n = NAMES.index(name)
        learned = [(self.wrong[c][n, self.one], self.final[c][n, self.one]) for c in self.final]
        return learned + [(it.wrong[n], it.apart[n]) for it in self.rows.values()]


@experiment("n2", "The equality with one-step RL survives sampling exactly, and function approximation as far as the critic is right")
def n2(setting: Setting) -> Findings:
    """Six losses x {closed form, the same on rows, linear, MLP}: distance to one-step RL over lambda, steps and the critic's error."""
    it = measure(setting)
    return Findings(claims(it), [*tables_at_one(it), *tables_over(it), *tables_of_errors(it)], draw(it))


def measure(setting: Setting) -> Measured:
    """Closed forms, the same on rows, and learned critics of every loss, lambda and seed."""
    lambdas = np.logspace(0, 0.5, 2) if setting.quick else np.logspace(-0.5, 1, 4)
    run = Run([problem(seed) for seed in range(setting.seed, setting.seed + setting.pick(5, 1))], lambdas)
    one = int(np.argmin(np.abs(lambdas - 1)))
    target = np.stack([one_step_policy(p.mdp, p.beta) for p in run.problems])  # [N, S, A]
    rest, learned = closed_forms(run), learn(run, setting)
    wide = on_rows(run, lambdas, ROWS, rest.q)
    sizes = setting.pick((20, 80, ROWS, 1280), (ROWS,))
    improved = {name: it.q_beta[:, one] * betas(run) for name, it in learned.items()}  # [L, N, S, A] not normalised
    return Measured(
        run=run,
        one=one,
        exact=apart(rest.pi, target),
        wide=wide,
        rows={k: wide.at(one) if k == ROWS else on_rows(run, lambdas[[one]], k, rest.q[:, [one]]).at(0) for k in sizes},
        marks=learned["linear 25"].steps,
        final={name: apart(it.pi[-1], target) for name, it in learned.items()},
        over_steps={name: apart(it.pi[:, 0, one], target) for name, it in learned.items()},
        own={name: apart(improved[name], it.pi[-1][:, one]) for name, it in learned.items()},
        naive={name: apart(improved[name], target) for name in learned},
        wrong={name: error(run, it.q[-1], rest.q, betas(run)) for name, it in learned.items()},
        to_rest=apart(learned["linear 25"].pi[-1], rest.pi)[:, one],
    )


def learn(run: Run, setting: Setting) -> dict[str, Trained]:
    """Every critic of `CRITICS`, or three of them."""
    how = Training(setting.pick(4000, 1000))
    names = setting.pick(tuple(CRITICS), ("linear 25", "linear 4", "MLP 16"))
    return {name: train(run, polynomials(CRITICS[name][0]), CRITICS[name][1], how, setting.seed) for name in names}


def claims(it: Measured) -> list[Claim]:
    """What equals one-step RL, and what does not."""
    equal, biased_by = float(it.exact[[0, 2], it.one].max()), float(it.exact[1, it.one].min())
    same_rows = max(each.unlike for each in it.rows.values())
    found, broken = float(it.to_rest[:4].max()), float(it.own["linear 4"][0].min())
    return [
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


def tables_at_one(it: Measured) -> list[Table]:
    """Every critic at lambda = 1: distances, their spread, and the same critics' own one-step RL."""
    at_one = [("closed form", it.exact[:, it.one]), *((f"{k} rows a state", each.apart) for k, each in it.rows.items())]
    at_one += [(name, each[:, it.one]) for name, each in it.final.items()]
    return [
        Table("Total variation to one-step RL at lambda = 1, mean over seeds", ("critic", *NAMES), [(c, *means(tv)) for c, tv in at_one]),
        Table("Its standard deviation over seeds", ("critic", *NAMES), [(c, *tv.std(-1).tolist()) for c, tv in at_one]),
        Table(
            "The same critics' own one-step RL: to the exact one, and to their regularised actor (lambda = 1)",
            ("critic", "distance to", *NAMES),
            [
                (c, to, *means(tv))
                for c in it.final
                for to, tv in (("exact one-step RL", it.naive[c]), ("own regularised actor", it.own[c]))
            ],
        ),
    ]


def tables_over(it: Measured) -> list[Table]:
    """Over lambda, and over steps."""
    by_lambda = [("closed form", it.exact), (f"closed form, {ROWS} rows a state", it.wide.apart), *it.final.items()]
    return [
        Table(
            "Total variation to one-step RL over lambda, mean over seeds",
            ("critic", "lambda", *NAMES),
            [(c, float(lam), *means(tv[:, k])) for c, tv in by_lambda for k, lam in enumerate(it.run.lambdas)],
        ),
        Table(
            "Total variation to one-step RL over steps, cross-entropy, lambda = 1, mean over seeds",
            ("critic", *(f"{t} steps" for t in it.marks)),
            [(c, *means(tv)) for c, tv in it.over_steps.items()],
        ),
    ]


def tables_of_errors(it: Measured) -> list[Table]:
    """Distance on the critic's error, and critics that are not on their way to rest."""
    return [
        Table(
            "Regression at lambda = 1: total variation on the relative error of Q",
            ("loss", "points", "slope", "intercept", "R^2", "rank correlation"),
            [(name, *regression(it.points(name))) for name in NAMES],
        ),
        Table(
            f"Members whose Q ran away, of {it.run.lambdas.size * len(it.run.problems)}: relative error beyond {LOST:g}",
            ("critic", *NAMES),
            [(c, *runaway(each)) for c, each in it.wrong.items()],
        ),
    ]


def draw(it: Measured) -> Figure:
    """Over lambda, over steps, over the critic's error."""
    figure, (first, second, third) = panels(
        ("lambda", "total variation to one-step RL"), ("steps", "the same, lambda = 1"), ("relative error of Q", "the same, lambda = 1")
    )
    for n, name in enumerate(NAMES):
        style = "--" if name == "poisson" else "-"
        first.semilogx(it.run.lambdas, it.exact[n].mean(-1), style, color=color(n), linewidth=1.7, label=name.replace("_", "-"))
        first.semilogx(it.run.lambdas, it.final["MLP 16"][n].mean(-1), "o", color=color(n), markersize=4)
        x, y = (np.concatenate([each[k] for each in it.points(name)]) for k in (0, 1))
        kept = x < LOST
        third.loglog(x[kept], np.maximum(y[kept], FLOOR), "o", color=color(n), markersize=3, alpha=0.7)
    first.axvline(1, color=MUTED, linewidth=0.8)
    first.set_ylim(bottom=0)
    shown = [name for name in it.over_steps if name != "linear 16"]
    for n, name in enumerate(shown):
        second.semilogy(it.marks, it.over_steps[name].mean(-1), "o-", color=color(n), markersize=3, linewidth=1.5, label=name)
    steps_axis(second)
    for ax in (first, second):
        ax.legend(loc="lower left", bbox_to_anchor=(-0.1, 1), ncols=3, frameon=False, labelcolor=INK, fontsize=8, columnspacing=1.0)
    return figure


# ---------------------------------------------------------------------------------------------------------------------- measures
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
