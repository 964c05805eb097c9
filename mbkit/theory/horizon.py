"""Growth of errors with the horizon: quadratic for value iteration, linear for schemes that average errors (arXiv:2003.14089).

Random errors on random problems do not attain the bounds; two small families of problems do. The chain follows Scherrer & Lesner 2012,
arXiv:1211.6898. q [S, A]; eps [k, S, A]; the loss of a policy is the sup norm |q* - q_pi|.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mbkit.report.figure import INK, color, panels
from mbkit.tabular.bounds import avi_bound, md_vi_bound
from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import MDP, Array
from mbkit.tabular.operators import q_of
from mbkit.tabular.planning import policy_iteration
from mbkit.tabular.regularised import Iterate, avi, md_vi
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment

EPSILON = 0.1  # sup norm of the errors on chain and loops
SIGMA = 0.5  # standard deviation of the errors on Garnets
LAMBDA = 0.1
TIE = 1e-9  # relative increase of a reward that breaks a tie, which rounding would decide otherwise
STAY, LEFT = 0, 1
COLUMNS = ("AVI: loss", "bound", "MD-VI: loss", "bound")


class HorizonResults(NamedTuple):
    """Loss and bound of AVI, then of MD-VI, in the last dimension [4]."""

    horizons: tuple[int, ...]
    length: int  # iterations on Garnets
    chain: Array  # [horizons, 4]
    loops: Array  # [horizons, 4]
    garnets: Array  # [seeds, horizons, 4]

    @property
    def parts(self) -> dict[str, Array]:
        """Means over seeds by problem, each [horizons, 4]."""
        return {"chain": self.chain, "loops": self.loops, f"Garnets, k = {self.length}": self.garnets.mean(0)}


@experiment("horizon", "Errors grow with the square of the horizon in value iteration, and linearly in schemes that average them")
def horizon(setting: Setting) -> Findings:
    """Bounds and losses over 1 / (1 - gamma): chain (worst for AVI), loops (worst for MD-VI), Garnets with random errors."""
    horizons = setting.pick((5, 10, 20, 50, 100), (5, 10, 20))
    seeds = range(setting.seed, setting.seed + setting.pick(20, 5))
    length = setting.pick(1000, 300)
    results = HorizonResults(
        horizons,
        length,
        np.array([chain_errors(h) for h in horizons]),
        np.array([loop_errors(h) for h in horizons]),
        np.array([[random_errors(h, seed, length) for h in horizons] for seed in seeds]),
    )
    return Findings(claims_of(results), tables_of(results), draw(results))


def claims_of(results: HorizonResults) -> list[Claim]:
    """Claims on tightness, growth and validity of the bounds."""
    horizons, chain, loops = results.horizons, results.chain, results.loops
    pairs = np.concatenate([chain, loops, results.garnets.reshape(-1, 4)]).reshape(-1, 2)  # loss and bound
    violations = int((pairs[:, 0] > pairs[:, 1] * (1 + 1e-9)).sum())
    tight, share, others = chain[:, 0] / chain[:, 1], loops[:, 2] / loops[:, 3] / gammas(horizons), chain[:, 2] / chain[:, 0]
    quadratic, linear = slope(horizons, chain[:, 0]), slope(horizons, loops[:, 2])
    return [
        Claim(
            "on the chain AVI attains its bound within 3 %",
            f"loss / bound {tight.min():.3f} to {tight.max():.3f}",
            bool(tight.min() > 0.97),
        ),
        Claim("there the loss of AVI grows with the square of the horizon", f"slope {quadratic:.2f}", 1.9 < quadratic < 2.3),
        Claim(
            "under the same errors the loss of MD-VI is less than a hundredth of AVI's",
            f"at most {others.max():.2g} of it",
            bool((chain[:, 2] < 0.01 * chain[:, 0]).all()),
        ),
        Claim(
            "on the loops MD-VI attains its bound up to the factor gamma and 2 %",
            f"loss / bound / gamma {share.min():.3f} to {share.max():.3f}",
            bool((loops[:, 2] / loops[:, 3] > 0.98 * gammas(horizons)).all()),
        ),
        Claim("there the loss of MD-VI grows linearly with the horizon", f"slope {linear:.2f}", 0.9 < linear < 1.3),
        Claim("no loss exceeds its bound", f"{violations}/{len(pairs)}", violations == 0),
    ]


def tables_of(results: HorizonResults) -> list[Table]:
    """Tables of losses and bounds by problem, of slopes, and of standard deviations on Garnets."""
    horizons, columns = results.horizons, ("1 / (1 - gamma)", *COLUMNS)

    def over_horizons(title: str, values: Array) -> Table:
        return Table(title, columns, [(h, *map(float, row)) for h, row in zip(horizons, values, strict=True)])

    slopes = [(name, *(slope(horizons, x) if x.min() > 1e-12 else "-" for x in part.T)) for name, part in results.parts.items()]
    return [
        *(over_horizons(f"{name}: loss and bound", part) for name, part in results.parts.items()),
        Table("Slopes in log-log", ("", *COLUMNS), slopes),
        over_horizons("Garnets: std over seeds", results.garnets.std(0)),
    ]


def draw(results: HorizonResults) -> Figure:
    """Figure of losses and bounds over the horizon. Left: chain and loops. Right: Garnets."""
    figure, (left, right) = panels(("horizon 1 / (1 - gamma)", "loss, worst errors"), ("horizon 1 / (1 - gamma)", "loss, random errors"))
    mean = results.garnets.mean(0)
    for ax, avi_part, md_part, suffixes in ((left, results.chain, results.loops, (" (chain)", " (loops)")), (right, mean, mean, ("", ""))):
        for data, column, name, shade in ((avi_part, 0, "AVI" + suffixes[0], color(0)), (md_part, 2, "MD-VI" + suffixes[1], color(1))):
            ax.loglog(results.horizons, data[:, column], "o", color=shade, label=name, ls="-" if ax is right else "")
            ax.loglog(results.horizons, data[:, column + 1], "--", color=shade, lw=1.2, label="its bound")
        ax.legend(frameon=False, labelcolor=INK, fontsize=7.5)
    return figure


# ---------------------------------------------------------------------------------------------- problems that attain the bounds
def chain(gamma: float, length: int) -> tuple[MDP, Array]:
    """Chain of states 0..n and errors eps [n, S, A] with which AVI stays in n after n iterations, the worst case for AVI.

    LEFT leads from i to i - 1 with reward 0, STAY has reward r_i < 0. Errors of iteration i: -e for leaving i, +e for staying there, +e
    for leaving i + 1. They give q(i) = -u_i and q(i + 1) = u_i, u_i = e (1 + ... + gamma^{i-1}); with r_i = -2 u_i staying in i is as
    good as leaving. The loss is 2 gamma u_n / (1 - gamma).
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
    """One state, two actions with rewards 0 and -2 e, and a constant error eps [S, A] of size e that makes them look equal."""
    mdp = MDP(np.ones((1, 2, 1)), np.array([[-2 * EPSILON * (1 - TIE), 0.0]]), np.ones(1), gamma)
    return mdp, EPSILON * np.array([[1.0, -1.0]])


def chain_errors(h: int) -> tuple[float, float, float, float]:
    """Loss and bound of AVI and of MD-VI on a chain of ten horizons, for which the last term of the bound is below 1 %."""
    mdp, eps = chain(1 - 1 / h, 10 * h)
    return both(mdp, eps, LAMBDA)


def loop_errors(h: int) -> tuple[float, float, float, float]:
    """Loss and bound of AVI and of MD-VI on the loops; lambda is close to 0, so that the initial value has little influence."""
    mdp, table = loops(1 - 1 / h)
    return both(mdp, np.tile(table, (300 * h, 1, 1)), 1e-12)


def random_errors(h: int, seed: int, length: int) -> tuple[float, float, float, float]:
    """Loss and bound of AVI and of MD-VI on a Garnet with independent normal errors."""
    mdp = garnet(seed=seed, gamma=1 - 1 / h)
    return both(mdp, SIGMA * np.random.default_rng(seed).standard_normal((length, mdp.S, mdp.A)), LAMBDA)


# -------------------------------------------------------------------------------------------------------------------- measuring
def both(mdp: MDP, eps: Array, lam: float) -> tuple[float, float, float, float]:
    """Loss and bound of AVI and of MD-VI(lam, 0) after the errors eps."""
    best, zeros = policy_iteration(mdp).q, np.zeros((mdp.S, mdp.A))
    plain = loss_after(mdp, best, avi(mdp, zeros, errors_of(eps)), len(eps))
    kl = loss_after(mdp, best, md_vi(mdp, zeros, lam, 0.0, errors_of(eps)), len(eps))
    return plain, avi_bound(mdp, eps), kl, md_vi_bound(mdp, eps, lam)


def errors_of(eps: Array) -> Callable[[int], Array]:
    """Function k -> eps_k; 0 after the last error, which does not affect the policies used here."""
    return lambda k: np.asarray(eps[k - 1]) if k <= len(eps) else np.zeros(eps.shape[1:])


def loss_after(mdp: MDP, best: Array, iterates: Iterator[Iterate], k: int) -> float:
    """Loss |q* - q_pi| of pi_{k+1}, the policy after k errors."""
    log_pi = next(islice(iterates, k, None)).log_pi
    return float(np.abs(best - q_of(mdp, np.exp(log_pi))).max())


def gammas(horizons: tuple[int, ...]) -> Array:
    """Discounts of these horizons."""
    return np.asarray(1 - 1 / np.array(horizons))


def slope(x: tuple[int, ...], y: Array) -> float:
    """Slope of log y over log x by least squares."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
