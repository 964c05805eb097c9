"""The discounted occupancy tends to the stationary distribution at the rate 1 - gamma. P [S, S] transitions of a policy, d [S]."""

import numpy as np

from mbkit.report.figure import axes, color
from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import random_policy
from mbkit.tabular.occupancy import discounted, stationary, total_variation
from mbkit.theory.experiment import Claim, Findings, Setting, Table, experiment

HORIZONS = (10, 100, 1000, 10_000)  # 1 / (1 - gamma)


@experiment("occupancy", "The discounted occupancy tends to the stationary distribution at the rate 1 - gamma")
def occupancy(setting: Setting) -> Findings:
    """Distance of d_gamma = (1 - gamma) mu0 (I - gamma P)^-1 to d = d P for random policies on random Garnets."""
    seeds = range(setting.seed, setting.seed + setting.pick(50, 10))
    gaps = np.array([distances(seed) for seed in seeds])  # [seeds, horizons]
    ratio = gaps[:, :-1] / gaps[:, 1:]
    mean, spread = gaps.mean(0), gaps.std(0)
    rows = [(1 - 1 / h, h, float(m), float(s)) for h, m, s in zip(HORIZONS, mean, spread, strict=True)]
    table = Table("Total variation between d_gamma and d", ("gamma", "1 / (1 - gamma)", "mean over Garnets", "std"), rows)
    last = float(ratio[:, -1].mean())
    claim = Claim(
        "a ten times longer horizon has a tenth of the distance", f"ratio {last:.3f} at the longest horizons", abs(last - 10) < 0.1
    )
    figure, ax = axes("horizon 1 / (1 - gamma)", "total variation")
    ax.loglog(HORIZONS, mean, "o-", color=color(0), label="measured")
    ax.loglog(HORIZONS, mean[0] * HORIZONS[0] / np.array(HORIZONS), "--", color=color(5), label="slope -1")
    ax.legend(frameon=False)
    return Findings([claim], [table], figure)


def distances(seed: int) -> list[float]:
    """Total variation between discounted occupancy and stationary distribution, for each horizon."""
    mdp = garnet(seed=seed)
    pi = random_policy(mdp, np.random.default_rng(seed))
    limit = stationary(mdp, pi)
    return [float(total_variation(discounted(mdp, pi, 1 - 1 / h), limit)) for h in HORIZONS]
