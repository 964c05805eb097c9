"""Equivalence of critic regularisation and one-step RL under sampling and function approximation, for six losses.

Open questions of Eysenbach et al. 2023, arXiv:2307.12968. The critic is Q = exp(u) for every loss, u linear or an MLP; the actor is a
table. L losses, K lambdas, N seeds, T checkpoints, S states, A actions. With x = lambda (pi - beta),

    critic  min sum_a beta loss(Q, y) + x g(Q), by Adam,
    actor   pi' proportional to pi exp(eta / lambda Q / V).
"""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mbkit.report.figure import INK, MUTED, color, panels, steps_axis
from mbkit.tabular.mdp import Array
from mbkit.tabular.one_step import one_step_policy
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment
from mbkit.theory.joint_fixed_points import EmpiricalForms, closed_forms, empirical_forms, policy_distance, problem
from mbkit.theory.learned_critics import CRITICS, NAMES, CriticCheckpoints, CriticGrid, Training, betas, polynomials, train

ROWS = 320  # rows per state of the data set that is used with every lambda
FLOOR = 1e-5  # smallest total variation in the figure
DIVERGED = 3.0  # relative error of Q above which a critic counts as diverged
SOLVED = 1e-8  # tolerance of fixed points that are iterated to 1e-9


class ApproximationResults(NamedTuple):
    """Distances are to one-step RL on the true MDP; dicts are by critic."""

    grid: CriticGrid
    one: int  # index of lambda = 1
    exact: Array  # [L, K, N] distance of the closed forms
    empirical: EmpiricalForms  # closed forms on `ROWS` rows per state
    rows: dict[int, EmpiricalForms]  # by rows per state, lambda = 1
    marks: list[int]  # [T] steps of the checkpoints
    final: dict[str, Array]  # [L, K, N] distance of the regularised actors
    over_steps: dict[str, Array]  # [T, N] the same at the checkpoints, cross-entropy, lambda = 1
    to_one_step: dict[str, Array]  # [L, N] regularised actor to one-step RL with the same critic, lambda = 1
    one_step: dict[str, Array]  # [L, N] distance of one-step RL with the same critic
    q_error: dict[str, Array]  # [L, K, N] relative error of Q
    to_closed_form: Array  # [L, N] actor of "linear 25" to its closed form, lambda = 1

    def points(self, name: str) -> list[tuple[Array, Array]]:
        """Relative error of Q and distance of a loss at lambda = 1: learned critics, then data sets."""
        n = NAMES.index(name)
        learned = [(self.q_error[c][n, self.one], self.final[c][n, self.one]) for c in self.final]
        return learned + [(forms.q_error[n], forms.distance[n]) for forms in self.rows.values()]


@experiment(
    "approximate_equivalence",
    "The equality with one-step RL holds exactly on sampled data, and approximately with function approximation",
    alias="n2",
)
def approximate_equivalence(setting: Setting) -> Findings:
    """Six losses x {closed form, on sampled data, linear, MLP}: distance to one-step RL over lambda, steps and the critic's error."""
    results = measure(setting)
    return Findings(claims(results), [*tables_at_one(results), *tables_over(results), *tables_of_errors(results)], draw(results))


def measure(setting: Setting) -> ApproximationResults:
    """Closed forms on true and on empirical MDPs, and learned critics, for every loss, lambda and seed."""
    lambdas = np.logspace(0, 0.5, 2) if setting.quick else np.logspace(-0.5, 1, 4)
    grid = CriticGrid([problem(seed) for seed in range(setting.seed, setting.seed + setting.pick(5, 1))], lambdas)
    one = int(np.argmin(np.abs(lambdas - 1)))
    target = np.stack([one_step_policy(p.mdp, p.beta) for p in grid.problems])  # [N, S, A]
    forms, learned = closed_forms(grid), learn(grid, setting)
    empirical = empirical_forms(grid, lambdas, ROWS, forms.q)
    sizes = setting.pick((20, 80, ROWS, 1280), (ROWS,))
    improved = {name: c.q_beta[:, one] * betas(grid) for name, c in learned.items()}  # [L, N, S, A] not normalised
    return ApproximationResults(
        grid=grid,
        one=one,
        exact=policy_distance(forms.pi, target),
        empirical=empirical,
        rows={k: empirical.at(one) if k == ROWS else empirical_forms(grid, lambdas[[one]], k, forms.q[:, [one]]).at(0) for k in sizes},
        marks=learned["linear 25"].steps,
        final={name: policy_distance(c.pi[-1], target) for name, c in learned.items()},
        over_steps={name: policy_distance(c.pi[:, 0, one], target) for name, c in learned.items()},
        to_one_step={name: policy_distance(improved[name], c.pi[-1][:, one]) for name, c in learned.items()},
        one_step={name: policy_distance(improved[name], target) for name in learned},
        q_error={name: relative_error(grid, c.q[-1], forms.q, betas(grid)) for name, c in learned.items()},
        to_closed_form=policy_distance(learned["linear 25"].pi[-1], forms.pi)[:, one],
    )


def learn(grid: CriticGrid, setting: Setting) -> dict[str, CriticCheckpoints]:
    """Train every critic of `CRITICS`, or three of them in a quick experiment."""
    options = Training(setting.pick(4000, 1000))
    names = setting.pick(tuple(CRITICS), ("linear 25", "linear 4", "MLP 16"))
    return {name: train(grid, polynomials(CRITICS[name][0]), CRITICS[name][1], options, setting.seed) for name in names}


def claims(results: ApproximationResults) -> list[Claim]:
    """Claims on what equals one-step RL, and on what does not."""
    equal, biased = float(results.exact[[0, 2], results.one].max()), float(results.exact[1, results.one].min())
    same_data = max(forms.to_one_step for forms in results.rows.values())
    learned, approximate = float(results.to_closed_form[:4].max()), float(results.to_one_step["linear 4"][0].min())
    return [
        Claim("closed form: cross-entropy and Poisson at lambda = 1 are one-step RL", f"total variation {equal:.1e}", equal <= SOLVED),
        Claim("with normalised weights it is not if the dynamics are stochastic", f"total variation at least {biased:.1e}", biased > 1e-4),
        Claim("on sampled data both are one-step RL on the same data", f"total variation {same_data:.1e}", same_data <= SOLVED),
        Claim(
            "a critic that represents every table learns its closed form: cross-entropy of both weights, Poisson, MSE, lambda = 1",
            f"total variation at most {learned:.1e}",
            learned <= 0.01,
        ),
        Claim(
            "a less expressive critic breaks the equality: cross-entropy at lambda = 1, linear in 4 features",
            f"total variation at least {approximate:.1e} to one-step RL with the same critic",
            approximate > 1e-3,
        ),
    ]


def tables_at_one(results: ApproximationResults) -> list[Table]:
    """Tables for every critic at lambda = 1: distances, standard deviations, and one-step RL with the same critics."""
    at_one = [
        ("closed form", results.exact[:, results.one]),
        *((f"{k} rows per state", forms.distance) for k, forms in results.rows.items()),
    ]
    at_one += [(name, each[:, results.one]) for name, each in results.final.items()]
    return [
        Table("Total variation to one-step RL at lambda = 1, mean over seeds", ("critic", *NAMES), [(c, *means(tv)) for c, tv in at_one]),
        Table("Standard deviation over seeds", ("critic", *NAMES), [(c, *tv.std(-1).tolist()) for c, tv in at_one]),
        Table(
            "One-step RL with the learned critics: distance to exact one-step RL and to the regularised actor (lambda = 1)",
            ("critic", "distance to", *NAMES),
            [
                (c, to, *means(tv))
                for c in results.final
                for to, tv in (("exact one-step RL", results.one_step[c]), ("regularised actor", results.to_one_step[c]))
            ],
        ),
    ]


def tables_over(results: ApproximationResults) -> list[Table]:
    """Tables over lambda, and over steps."""
    by_lambda = [
        ("closed form", results.exact),
        (f"closed form, {ROWS} rows per state", results.empirical.distance),
        *results.final.items(),
    ]
    return [
        Table(
            "Total variation to one-step RL over lambda, mean over seeds",
            ("critic", "lambda", *NAMES),
            [(c, float(lam), *means(tv[:, k])) for c, tv in by_lambda for k, lam in enumerate(results.grid.lambdas)],
        ),
        Table(
            "Total variation to one-step RL over steps, cross-entropy, lambda = 1, mean over seeds",
            ("critic", *(f"{t} steps" for t in results.marks)),
            [(c, *means(tv)) for c, tv in results.over_steps.items()],
        ),
    ]


def tables_of_errors(results: ApproximationResults) -> list[Table]:
    """Tables of the regression on the critic's error, and of diverged critics."""
    return [
        Table(
            "Regression at lambda = 1: total variation on the relative error of Q",
            ("loss", "points", "slope", "intercept", "R^2", "rank correlation"),
            [(name, *regression(results.points(name))) for name in NAMES],
        ),
        Table(
            f"Diverged members of {results.grid.lambdas.size * len(results.grid.problems)}: relative error of Q above {DIVERGED:g}",
            ("critic", *NAMES),
            [(c, *diverged(each)) for c, each in results.q_error.items()],
        ),
    ]


def draw(results: ApproximationResults) -> Figure:
    """Figure over lambda, over steps, and over the critic's error."""
    figure, (first, second, third) = panels(
        ("lambda", "TV to one-step RL"),
        ("steps", "TV to one-step RL, lambda = 1"),
        ("relative error of Q", "TV to one-step RL, lambda = 1"),
    )
    for n, name in enumerate(NAMES):
        style = "--" if name == "poisson" else "-"
        first.semilogx(results.grid.lambdas, results.exact[n].mean(-1), style, color=color(n), linewidth=1.7, label=name.replace("_", "-"))
        first.semilogx(results.grid.lambdas, results.final["MLP 16"][n].mean(-1), "o", color=color(n), markersize=4)
        x, y = (np.concatenate([each[k] for each in results.points(name)]) for k in (0, 1))
        converged = x < DIVERGED
        third.loglog(x[converged], np.maximum(y[converged], FLOOR), "o", color=color(n), markersize=3, alpha=0.7)
    first.axvline(1, color=MUTED, linewidth=0.8)
    first.set_ylim(bottom=0)
    shown = [name for name in results.over_steps if name != "linear 16"]
    for n, name in enumerate(shown):
        second.semilogy(results.marks, results.over_steps[name].mean(-1), "o-", color=color(n), markersize=3, linewidth=1.5, label=name)
    steps_axis(second)
    for ax in (first, second):
        ax.legend(loc="lower left", bbox_to_anchor=(-0.1, 1), ncols=3, frameon=False, labelcolor=INK, fontsize=8, columnspacing=1.0)
    return figure


# --------------------------------------------------------------------------------------------------------------------- measures
def means(x: Array) -> list[float]:
    """Means over seeds."""
    values: list[float] = x.mean(-1).tolist()
    return values


def relative_error(grid: CriticGrid, q: Array, exact: Array, weight: Array) -> Array:
    """Root mean square of Q - Q_exact over states and beta, relative to the mean value; [..., N, S, A] -> [..., N]."""
    mean = np.array([p.mean for p in grid.problems])
    return np.asarray(np.sqrt((weight * (q - exact) ** 2).sum(-1).mean(-1)) / mean)


def regression(points: list[tuple[Array, Array]]) -> tuple[int, float, float, float, float]:
    """Points, slope, intercept, R^2 and Spearman's rank correlation of the second on the first, without diverged members."""
    x, y = (np.concatenate([each[k] for each in points]) for k in (0, 1))
    converged = x < DIVERGED
    x, y = x[converged], y[converged]
    slope, intercept = np.polyfit(x, y, 1)
    ranked = np.corrcoef(np.argsort(np.argsort(x)).astype(float), np.argsort(np.argsort(y)).astype(float))[0, 1]
    linear = np.corrcoef(x, y)[0, 1] ** 2
    return len(x), float(slope), float(intercept), float(linear), float(ranked)


def diverged(q_error: Array) -> list[int]:
    """Number of diverged members of each loss, [L], including NaN."""
    count: list[int] = (~(q_error < DIVERGED)).sum((1, 2)).tolist()
    return count
