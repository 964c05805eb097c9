"""Regularising by the KL to the previous policy averages errors away; plain value iteration carries the newest (arXiv:2003.14089).

q [S, A]; eps [k, S, A], the errors of iterations 1..k. A policy's loss is |q* - q_pi|, a sup norm.
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

SIGMA = 0.5  # of the errors; rewards are uniform on (0, 1)
NOISES = ("fresh", "alternating", "constant")  # errors: new at every k; one table of them, its sign alternating; that table always


class Scheme(NamedTuple):
    """MD-VI(lambda, tau); both 0: AVI."""

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


@experiment("averaging", "The KL to the previous policy averages errors: the loss falls like 1 / k, where value iteration's stays")
def averaging(setting: Setting) -> Findings:
    """Loss of pi_{k+1} after k noisy iterations on Garnets, three kinds of noise, against the bounds of theorems 1 and 2."""
    marks = setting.pick((1, 2, 5, 10, 20, 50, 100, 200, 500, 1000), (1, 5, 10, 30, 100))
    seeds = range(setting.seed, setting.seed + setting.pick(50, 6))
    both = np.array([[[measure(s, noise, seed, marks) for seed in seeds] for noise in NOISES] for s in SCHEMES])
    loss, bound, out_of_range = np.moveaxis(both, -2, 0)  # each [schemes, noises, seeds, marks]
    at = {k: i for i, k in enumerate(marks)}
    mean = loss.mean(2)  # [schemes, noises, marks]
    slopes = [slope(marks[at[10] : at[100] + 1], m[0, at[10] : at[100] + 1]) for m in mean]
    violated = (loss > bound + 1e-9).sum((1, 2, 3))
    ratio = (loss / bound).max((1, 2, 3))
    cases = loss[0].size
    avi_loss, md_loss = mean[0, 0, at[100]], mean[2, 0, at[100]]
    claims = [
        Claim(
            "MD-VI(1, 0) has less than a fifth of AVI's loss after 100 noisy iterations",
            f"{md_loss:.3f} against {avi_loss:.3f}",
            bool(md_loss < avi_loss / 5),
        ),
        Claim(
            "MD-VI(1, 0)'s loss falls about like 1 / k between k = 10 and 100",
            f"slope {slopes[2]:.2f}",
            -1.3 < slopes[2] < -0.6,
        ),
        Claim("AVI's loss stays", f"slope {slopes[0]:.2f}", abs(slopes[0]) < 0.2),
        Claim("no loss exceeds its bound", f"{violated.sum()}/{loss.size}, largest ratio {ratio.max():.3f}", not violated.any()),
    ]
    fresh = [
        (s.name, *(float(x) for k in (10, 100) for x in (loss[i, 0, :, at[k]].mean(), loss[i, 0, :, at[k]].std())), slopes[i])
        for i, s in enumerate(SCHEMES)
    ]
    tables = [
        Table("Loss under fresh noise", ("scheme", "k = 10", "std", "k = 100", "std", "slope from 10 to 100"), fresh),
        Table(
            f"Loss at k = {marks[-1]} by kind of noise",
            ("scheme", *NOISES),
            [(s.name, *(float(x) for x in mean[i, :, -1])) for i, s in enumerate(SCHEMES)],
        ),
        Table(
            "Loss against its bound",
            ("scheme", "cases", "violations", "largest ratio", "of these with an iterate beyond v_max"),
            [(s.name, cases, int(violated[i]), float(ratio[i]), int(out_of_range[i].sum())) for i, s in enumerate(SCHEMES)],
        ),
    ]
    return Findings(claims, tables, figure_of(marks, mean))


def figure_of(marks: tuple[int, ...], mean: Array) -> Figure:
    """Mean losses [schemes, noises, marks] under fresh and under constant errors."""
    figure, (left, right) = panels(("iterations k", "loss, fresh noise"), ("iterations k", "loss, the same error at every k"))
    for ax, noise in ((left, 0), (right, 2)):
        for i in range(5):
            ax.loglog(marks, mean[i, noise], "o-", ms=3.5, color=color(i), label=SCHEMES[i].name)
        ax.set_ylim(3e-3, 6)
    guide = np.array([10.0, marks[-1]])
    left.loglog(guide, 0.6 * mean[2, 0, marks.index(10)] * 10 / guide, "--", color=MUTED, label="1 / k")
    left.legend(frameon=False, labelcolor=INK, fontsize=7.5, ncols=2, loc="lower left")
    return figure


def measure(scheme: Scheme, noise: str, seed: int, marks: Sequence[int]) -> list[list[float]]:
    """[3, marks]: loss of pi_{k+1}, its bound, and whether some |q_j|, j <= k, passed the v_max that the theorem assumes."""
    mdp = garnet(seed=seed)
    eps = errors(mdp, noise, seed, marks[-1])
    best, q_pi = reference(mdp, scheme.tau)
    limit = (1.0 + scheme.tau * np.log(mdp.A)) / (1 - mdp.gamma)
    found, largest = [], 0.0
    for k, iterate in enumerate(islice(iterates(mdp, scheme, eps), marks[-1] + 1)):  # the k-th from 0 holds pi_{k+1}
        if k in marks:
            found.append((float(np.abs(best - q_pi(np.exp(iterate.log_pi))).max()), bound_of(mdp, eps[:k], scheme), float(largest > limit)))
        largest = max(largest, float(np.abs(iterate.q).max()))
    return [list(row) for row in zip(*found, strict=True)]


def errors(mdp: MDP, noise: str, seed: int, k: int) -> Array:
    """eps_1..eps_k of one of the `NOISES`; every scheme meets the same."""
    rng = np.random.default_rng([seed, NOISES.index(noise)])
    if noise == "fresh":
        return SIGMA * rng.standard_normal((k, mdp.S, mdp.A))
    table = SIGMA * rng.standard_normal((mdp.S, mdp.A))
    return np.multiply.outer((-1.0) ** np.arange(k) if noise == "alternating" else np.ones(k), table)


def iterates(mdp: MDP, scheme: Scheme, eps: Array) -> Iterator[Iterate]:
    """The scheme from q_0 = 0 with errors eps; the one beyond the last is 0, and no policy here depends on it."""
    zeros = np.zeros((mdp.S, mdp.A))

    def error(k: int) -> Array:
        return np.asarray(eps[k - 1]) if k <= len(eps) else zeros

    if scheme.lam + scheme.tau == 0:
        return avi(mdp, zeros, error)
    return md_vi(mdp, zeros, scheme.lam, scheme.tau, error)


def reference(mdp: MDP, tau: float) -> tuple[Array, Callable[[Array], Array]]:
    """q* and pi -> q_pi, of the MDP with the entropy that the scheme keeps."""
    if tau == 0:
        return policy_iteration(mdp).q, partial(q_of, mdp)
    return soft_policy_iteration(mdp, tau).q, partial(soft_q_of, mdp, alpha=tau)


def bound_of(mdp: MDP, eps: Array, scheme: Scheme) -> float:
    """What the theory promises of the loss after these errors."""
    if scheme.tau > 0:
        return md_vi_entropy_bound(mdp, eps, scheme.lam, scheme.tau)
    return md_vi_bound(mdp, eps, scheme.lam) if scheme.lam > 0 else avi_bound(mdp, eps)


def slope(x: Sequence[float], y: Sequence[float] | Array) -> float:
    """Of a straight line through log y against log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
