"""How errors grow with the horizon: its square for value iteration, the horizon itself for what averages (arXiv:2003.14089).

Random problems do not show it, because their errors don't conspire; two small families of problems attain the bounds. The chain is after
Scherrer & Lesner 2012, arXiv:1211.6898. q [S, A]; eps [k, S, A]; a policy's loss is |q* - q_pi|, a sup norm.
"""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from mbkit.report.figure import INK, color, panels
from mbkit.tabular.bounds import avi_bound, md_vi_bound
from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import MDP, Array
from mbkit.tabular.operators import q_of
from mbkit.tabular.planning import policy_iteration
from mbkit.tabular.regularised import Iterate, avi, md_vi
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment

EPSILON = 0.1  # sup norm of the errors of the two families
SIGMA = 0.5  # standard deviation of the errors on Garnets
LAMBDA = 0.1
TIE = 1e-9  # relative: a reward is made better by so much, where a tie would be decided by rounding
STAY, LEFT = 0, 1
COLUMNS = ("AVI: loss", "bound", "MD-VI: loss", "bound")


@experiment("horizon", "How errors grow with the horizon: with its square in value iteration, linearly where they are averaged")
def horizon(setting: Setting) -> Findings:
    """Bounds and losses against 1 / (1 - gamma): chain (worst for AVI), loops (worst for MD-VI), Garnets with random errors."""
    horizons = setting.pick((5, 10, 20, 50, 100), (5, 10, 20))
    seeds = range(setting.seed, setting.seed + setting.pick(20, 5))
    length = setting.pick(1000, 300)
    worst = np.array([conspiring(h) for h in horizons])  # [horizons, 4] AVI's loss and bound, MD-VI's loss and bound
    fixed = np.array([constant(h) for h in horizons])
    noisy = np.array([[random_errors(h, seed, length) for h in horizons] for seed in seeds])  # [seeds, horizons, 4]
    everything = np.concatenate([worst, fixed, noisy.reshape(-1, 4)]).reshape(-1, 2)
    violated = int((everything[:, 0] > everything[:, 1] * (1 + 1e-9)).sum())
    tight, share = worst[:, 0] / worst[:, 1], fixed[:, 2] / fixed[:, 3]
    grows, linear = slope(horizons, worst[:, 0]), slope(horizons, fixed[:, 2])
    claims = [
        Claim("the chain attains AVI's bound to 3 %", f"loss / bound {tight.min():.3f} to {tight.max():.3f}", bool(tight.min() > 0.97)),
        Claim("there AVI's loss grows with the square of the horizon", f"slope {grows:.2f}", 1.9 < grows < 2.3),
        Claim(
            "MD-VI under the same errors, as many times, loses less than a hundredth of that",
            f"at most {(worst[:, 2] / worst[:, 0]).max():.2g} of it",
            bool((worst[:, 2] < 0.01 * worst[:, 0]).all()),
        ),
        Claim(
            "the loops attain MD-VI's bound up to the factor gamma and 2 %",
            f"loss / bound / gamma {(share / gammas(horizons)).min():.3f} to {(share / gammas(horizons)).max():.3f}",
            bool((share > 0.98 * gammas(horizons)).all()),
        ),
        Claim("there MD-VI's loss grows with the horizon", f"slope {linear:.2f}", 0.9 < linear < 1.3),
        Claim("no loss exceeds its bound", f"{violated}/{len(everything)}", violated == 0),
    ]
    parts = {"chain": worst, "loops": fixed, f"Garnets, k = {length}": noisy.mean(0)}
    tables = [
        Table(
            f"{name}: loss and bound", ("1 / (1 - gamma)", *COLUMNS), [(h, *map(float, row)) for h, row in zip(horizons, part, strict=True)]
        )
        for name, part in parts.items()
    ]
    rows = [(name, *(slope(horizons, column) if column.min() > 1e-12 else "-" for column in part.T)) for name, part in parts.items()]
    spread = [(h, *map(float, row)) for h, row in zip(horizons, noisy.std(0), strict=True)]
    tables += [Table("Slopes in log-log", ("", *COLUMNS), rows), Table("Garnets: std over seeds", ("1 / (1 - gamma)", *COLUMNS), spread)]
    figure, (left, right) = panels(("horizon 1 / (1 - gamma)", "loss, worst errors"), ("horizon 1 / (1 - gamma)", "loss, random errors"))
    for ax, plain, kl, where in ((left, worst, fixed, (" (chain)", " (loops)")), (right, noisy.mean(0), noisy.mean(0), ("", ""))):
        for data, column, name, shade in ((plain, 0, "AVI" + where[0], color(0)), (kl, 2, "MD-VI" + where[1], color(1))):
            ax.loglog(horizons, data[:, column], "o", color=shade, label=name, ls="-" if ax is right else "")
            ax.loglog(horizons, data[:, column + 1], "--", color=shade, lw=1.2, label="its bound")
        ax.legend(frameon=False, labelcolor=INK, fontsize=7.5)
    return Findings(claims, tables, figure)


# ------------------------------------------------------------------------------------------------------- where bounds are attained
def chain(gamma: float, length: int) -> tuple[MDP, Array]:
    """States 0..n; LEFT leads from i to i - 1 and pays 0, STAY pays r_i < 0. With eps [n, S, A], AVI stays in n after n iterations.

    Errors of iteration i: -e on leaving i, +e on staying there, +e on leaving i + 1. They make q(i) = -u_i and q(i + 1) = u_i,
    u_i = e (1 + ... + gamma^{i-1}); r_i = -2 u_i makes staying in i as good as leaving. What is lost: 2 gamma u_n / (1 - gamma).
    """
    u = EPSILON * (1 - gamma ** np.arange(length + 1)) / (1 - gamma)
    i = np.arange(length + 1)
    P, R = np.zeros((length + 1, 2, length + 1)), np.zeros((length + 1, 2))
    P[i, STAY, i] = P[i, LEFT, np.maximum(i - 1, 0)] = 1.0
    R[:, STAY] = -2 * u * (1 - TIE)
    eps = np.zeros((length, length + 1, 2))
    k = i[1:]
    eps[k - 1, k, LEFT], eps[k - 1, k, STAY] = -EPSILON, EPSILON
    eps[k[:-1] - 1, k[:-1] + 1, LEFT] = EPSILON
    return MDP(P, R, np.eye(length + 1)[-1], gamma), eps


def loops(gamma: float) -> tuple[MDP, Array]:
    """One state, two ways to stay: one pays 0, the other -2 e. A constant error eps [S, A] of size e makes the worse look as good."""
    mdp = MDP(np.ones((1, 2, 1)), np.array([[-2 * EPSILON * (1 - TIE), 0.0]]), np.ones(1), gamma)
    return mdp, EPSILON * np.array([[1.0, -1.0]])


def conspiring(h: int) -> tuple[float, float, float, float]:
    """Loss and bound of AVI and of MD-VI after the chain's errors; ten horizons long, so that the bound's last term is below 1 %."""
    mdp, eps = chain(1 - 1 / h, 10 * h)
    return both(mdp, eps, LAMBDA)


def constant(h: int) -> tuple[float, float, float, float]:
    """The same on the loops, whose error never changes; MD-VI without its KL's weight, for which the start matters longest."""
    mdp, table = loops(1 - 1 / h)
    return both(mdp, np.tile(table, (300 * h, 1, 1)), 1e-12)


def random_errors(h: int, seed: int, length: int) -> tuple[float, float, float, float]:
    """The same on a Garnet with independent normal errors."""
    mdp = garnet(seed=seed, gamma=1 - 1 / h)
    return both(mdp, SIGMA * np.random.default_rng(seed).standard_normal((length, mdp.S, mdp.A)), LAMBDA)


# ------------------------------------------------------------------------------------------------------------------------ measuring
def both(mdp: MDP, eps: Array, lam: float) -> tuple[float, float, float, float]:
    """Loss and bound of AVI and of MD-VI(lam, 0) after the errors eps."""
    best, zeros = policy_iteration(mdp).q, np.zeros((mdp.S, mdp.A))
    plain = loss_after(mdp, best, avi(mdp, zeros, errors_of(eps)), len(eps))
    kl = loss_after(mdp, best, md_vi(mdp, zeros, lam, 0.0, errors_of(eps)), len(eps))
    return plain, avi_bound(mdp, eps), kl, md_vi_bound(mdp, eps, lam)


def errors_of(eps: Array) -> Callable[[int], Array]:
    """k -> eps_k; beyond the last 0, which no policy here depends on."""
    return lambda k: np.asarray(eps[k - 1]) if k <= len(eps) else np.zeros(eps.shape[1:])


def loss_after(mdp: MDP, best: Array, iterates: Iterator[Iterate], k: int) -> float:
    """|q* - q_pi| of pi_{k+1}, the policy after k errors."""
    log_pi = next(islice(iterates, k, None)).log_pi
    return float(np.abs(best - q_of(mdp, np.exp(log_pi))).max())


def gammas(horizons: tuple[int, ...]) -> Array:
    """Discounts of these horizons."""
    return np.asarray(1 - 1 / np.array(horizons))


def slope(x: tuple[int, ...], y: Array) -> float:
    """Of a straight line through log y against log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
