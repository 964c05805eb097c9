"""Does the data cover what a policy does? Support, effective sample size, concentrability. S states, A actions."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mbkit.tabular.environments import Episodes
from mbkit.tabular.mdp import MDP, Array, TabularError
from mbkit.tabular.occupancy import discounted_pairs
from mbkit.tabular.offline import counts


class Coverage(NamedTuple):
    """What a data set allows to say of a policy."""

    tried: Array  # [S, A] rows of each pair
    support: NDArray[np.bool_]  # [S, A] pairs that were tried
    outside: float  # mass of the policy's discounted occupancy where nothing was tried
    concentrability: float  # max d^pi / d^D, infinite where the policy goes and the data do not
    effective_size: float  # rows left after weighing them by d^pi / d^D


def support(tried: Array, at_least: int = 1) -> NDArray[np.bool_]:
    """Pairs [S, A] with so many rows."""
    return tried >= at_least


def effective_sample_size(weight: Array) -> float:
    """(sum w)^2 / sum w^2 (Kish 1965): n for equal weights, 1 where one weight has it all, 0 where all are 0."""
    w = np.asarray(weight, float)
    top = w.max(initial=0.0)
    if not (w >= 0).all() or not np.isfinite(top):
        raise TabularError("importance weights must be finite and >= 0")
    return float((w / top).sum() ** 2 / ((w / top) ** 2).sum()) if top > 0 else 0.0


def concentrability(target: Array, behaviour: Array) -> float:
    """Max target / behaviour over what the target visits, infinite where the behaviour never goes; occupancies of one shape."""
    if target.shape != behaviour.shape:
        raise TabularError(f"occupancies of one shape are compared, not {target.shape} with {behaviour.shape}")
    visited = target > 0
    with np.errstate(divide="ignore"):
        return float((target[visited] / behaviour[visited]).max(initial=0.0))


def coverage(mdp: MDP, pi: Array, rows: Episodes) -> Coverage:
    """Compare d^pi(s, a) with the frequencies of the data; terminal states, where nothing is to be learned, are left out."""
    alive = ~mdp.terminal[:, None]
    occupancy = discounted_pairs(mdp, pi) * alive
    occupancy = occupancy / occupancy.sum()
    tried = counts(rows, mdp.S, mdp.A)
    frequency = tried * alive / max(1.0, float((tried * alive).sum()))
    mask = support(tried)
    weight = np.divide(occupancy, frequency, out=np.zeros_like(occupancy), where=frequency > 0)
    return Coverage(
        tried,
        mask,
        float(occupancy[~mask].sum()),
        concentrability(occupancy, frequency),
        effective_sample_size((weight * alive)[rows.state, rows.action]),
    )
