"""KL regularisation towards the previous policy averages the errors of value iteration (arXiv:2003.14089).

q [S, A]; eps [k, S, A], the errors of iterations 1..k. The loss of a policy is the sup norm |q* - q_pi|.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mbkit.report.figure import INK, MUTED, color, panels
from mbkit.tabular.bounds import avi_bound, md_vi_bound, md_vi_entropy_bound
from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import MDP, Array
from mbkit.tabular.operators import q_of, soft_q_of
from mbkit.tabular.planning import policy_iteration, soft_policy_iteration
from mbkit.tabular.regularised import Iterate, avi, md_vi
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment

SIGMA = 0.5  # standard deviation of the errors; rewards are uniform on (0, 1)
NOISES = ("independent", "alternating", "constant")  # errors: new at every k; one table with alternating sign; one constant table


class Scheme(NamedTuple):
    """MD-VI(lambda, tau), or AVI if both are 0."""

    name: str
    lam: float
    tau: float = 0.0


SCHEMES = (
    Scheme("AVI", 0.0),
    Scheme("MD-VI(0.1, 0)", 0.1),
    Scheme("MD-VI(1, 0)", 1.0),
    Scheme("MD-VI(10, 0)", 10.0),
    Scheme("MD-VI(1, 0.1)", 1.0, 0.1),
    Scheme("soft VI(0.1)", 0.0, 0.1),
)


class AveragingResults(NamedTuple):
    """Losses and bounds after the iterations `marks`."""

    marks: tuple[int, ...]
    loss: Array  # [schemes, noises, seeds, marks]
    bound: Array  # [schemes, noises, seeds, marks]
    out_of_range: Array  # [schemes, noises, seeds, marks] 1 where an iterate exceeds the v_max of the theorem

    @property
    def mean(self) -> Array:
        """Mean losses over seeds, [schemes, noises, marks]."""
        return np.asarray(self.loss.mean(2))

    def slopes(self) -> list[float]:
        """Slope of the mean loss from k = 10 to 100 under independent noise, for each scheme."""
        first, last = self.marks.index(10), self.marks.index(100) + 1
        return [slope(self.marks[first:last], mean[0, first:last]) for mean in self.mean]


@experiment("averaging", "KL regularisation averages errors: the loss decreases like 1 / k, while that of value iteration stays constant")
def averaging(setting: Setting) -> Findings:
    """Loss of pi_{k+1} after k noisy iterations on Garnets for three kinds of noise, and the bounds of theorems 1 and 2."""
    marks = setting.pick((1, 2, 5, 10, 20, 50, 100, 200, 500, 1000), (1, 5, 10, 30, 100))
    seeds = range(setting.seed, setting.seed + setting.pick(50, 6))
    measured = np.array([[[measure(s, noise, seed, marks) for seed in seeds] for noise in NOISES] for s in SCHEMES])
    results = AveragingResults(marks, *np.moveaxis(measured, -2, 0))
    return Findings(claims_of(results), tables_of(results), figure_of(marks, results.mean))


def claims_of(results: AveragingResults) -> list[Claim]:
    """Claims on the loss after 100 iterations, on its slope, and on the bounds."""
    loss, bound, slopes = results.loss, results.bound, results.slopes()
    avi, _, md_vi_loss, *_ = results.mean[:, 0, results.marks.index(100)]
    violations, ratio = int((loss > bound + 1e-9).sum()), (loss / bound).max()
    return [
        Claim(
            "after 100 noisy iterations the loss of MD-VI(1, 0) is less than a fifth of AVI's",
            f"{md_vi_loss:.3f} against {avi:.3f}",
            bool(md_vi_loss < avi / 5),
        ),
        Claim(
            "the loss of MD-VI(1, 0) decreases about like 1 / k from k = 10 to 100",
            f"slope {slopes[2]:.2f}",
            -1.3 < slopes[2] < -0.6,
        ),
        Claim("the loss of AVI stays constant", f"slope {slopes[0]:.2f}", abs(slopes[0]) < 0.2),
        Claim("no loss exceeds its bound", f"{violations}/{loss.size}, largest ratio {ratio:.3f}", violations == 0),
    ]


def tables_of(results: AveragingResults) -> list[Table]:
    """Tables of the losses over k, by kind of noise, and relative to the bounds."""
    loss, bound, slopes = results.loss, results.bound, results.slopes()
    at = [loss[:, 0, :, results.marks.index(k)] for k in (10, 100)]  # [schemes, seeds] each
    independent = [(s.name, *(float(x) for y in at for x in (y[i].mean(), y[i].std())), slopes[i]) for i, s in enumerate(SCHEMES)]
    by_noise = [(s.name, *(float(x) for x in results.mean[i, :, -1])) for i, s in enumerate(SCHEMES)]
    bounds = [
        (s.name, x.size, int((x > y + 1e-9).sum()), float((x / y).max()), int(outside.sum()))
        for s, x, y, outside in zip(SCHEMES, loss, bound, results.out_of_range, strict=True)
    ]
    return [
        Table("Loss under independent noise", ("scheme", "k = 10", "std", "k = 100", "std", "slope from 10 to 100"), independent),
        Table(f"Loss at k = {results.marks[-1]} by kind of noise", ("scheme", *NOISES), by_noise),
        Table("Loss and bound", ("scheme", "cases", "violations", "largest ratio", "cases with an iterate above v_max"), bounds),
    ]


def figure_of(marks: tuple[int, ...], mean: Array) -> Figure:
    """Figure of the mean losses [schemes, noises, marks] under independent and under constant errors."""
    figure, (left, right) = panels(("iterations k", "loss, independent errors"), ("iterations k", "loss, constant errors"))
    for ax, noise in ((left, 0), (right, 2)):
        for i in range(5):
            ax.loglog(marks, mean[i, noise], "o-", ms=3.5, color=color(i), label=SCHEMES[i].name)
        ax.set_ylim(3e-3, 6)
    guide = np.array([10.0, marks[-1]])
    left.loglog(guide, 0.6 * mean[2, 0, marks.index(10)] * 10 / guide, "--", color=MUTED, label="1 / k")
    left.legend(frameon=False, labelcolor=INK, fontsize=7.5, ncols=2, loc="lower left")
    return figure


def measure(scheme: Scheme, noise: str, seed: int, marks: Sequence[int]) -> list[list[float]]:
    """Loss of pi_{k+1}, its bound, and whether some |q_j|, j <= k, exceeds the v_max that the theorem assumes; [3, marks]."""
    mdp = garnet(seed=seed)
    eps = errors(mdp, noise, seed, marks[-1])
    best, q_pi = reference(mdp, scheme.tau)
    limit = (1.0 + scheme.tau * np.log(mdp.A)) / (1 - mdp.gamma)
    columns, largest = [], 0.0
    for k, iterate in enumerate(islice(iterates(mdp, scheme, eps), marks[-1] + 1)):  # the k-th from 0 holds pi_{k+1}
        if k in marks:
            columns.append(
                (float(np.abs(best - q_pi(np.exp(iterate.log_pi))).max()), bound_of(mdp, eps[:k], scheme), float(largest > limit))
            )
        largest = max(largest, float(np.abs(iterate.q).max()))
    return [list(row) for row in zip(*columns, strict=True)]


def errors(mdp: MDP, noise: str, seed: int, k: int) -> Array:
    """Errors eps_1..eps_k of one of the `NOISES`, the same for every scheme."""
    rng = np.random.default_rng([seed, NOISES.index(noise)])
    if noise == "independent":
        return SIGMA * rng.standard_normal((k, mdp.S, mdp.A))
    table = SIGMA * rng.standard_normal((mdp.S, mdp.A))
    return np.multiply.outer((-1.0) ** np.arange(k) if noise == "alternating" else np.ones(k), table)


def iterates(mdp: MDP, scheme: Scheme, eps: Array) -> Iterator[Iterate]:
    """Iterates of the scheme from q_0 = 0 with errors eps; later errors are 0 and do not affect the policies used here."""
    zeros = np.zeros((mdp.S, mdp.A))

    def error(k: int) -> Array:
        return np.asarray(eps[k - 1]) if k <= len(eps) else zeros

    if scheme.lam + scheme.tau == 0:
        return avi(mdp, zeros, error)
    return md_vi(mdp, zeros, scheme.lam, scheme.tau, error)


def reference(mdp: MDP, tau: float) -> tuple[Array, Callable[[Array], Array]]:
    """q* and the function pi -> q_pi, with the entropy bonus of the scheme."""
    if tau == 0:
        return policy_iteration(mdp).q, partial(q_of, mdp)
    return soft_policy_iteration(mdp, tau).q, partial(soft_q_of, mdp, alpha=tau)


def bound_of(mdp: MDP, eps: Array, scheme: Scheme) -> float:
    """Bound of the theorems on the loss after these errors."""
    if scheme.tau > 0:
        return md_vi_entropy_bound(mdp, eps, scheme.lam, scheme.tau)
    return md_vi_bound(mdp, eps, scheme.lam) if scheme.lam > 0 else avi_bound(mdp, eps)


def slope(x: Sequence[float], y: Sequence[float] | Array) -> float:
    """Slope of log y over log x by least squares."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
