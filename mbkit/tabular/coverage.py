"""Coverage of a policy by a data set: support, effective sample size, concentrability. S states, A actions."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mbkit.errors import UserError
from mbkit.tabular.environments import Episodes
from mbkit.tabular.mdp import MDP, Array
from mbkit.tabular.occupancy import discounted_pairs
from mbkit.tabular.offline import counts


class Coverage(NamedTuple):
    """How well a data set covers a policy."""

    counts: Array  # [S, A] rows of each pair
    support: NDArray[np.bool_]  # [S, A] pairs with rows
    outside: float  # mass of the policy's discounted occupancy outside the support
    concentrability: float  # max d^pi / d^D, infinite where the policy has mass outside the support
    effective_size: float  # effective sample size under the weights d^pi / d^D


def support(n: Array, at_least: int = 1) -> NDArray[np.bool_]:
    """Pairs [S, A] with at least `at_least` rows, from counts n [S, A]."""
    return n >= at_least


def effective_sample_size(weight: Array) -> float:
    """(sum w)^2 / sum w^2 (Kish 1965): n for equal weights, 1 for a single positive weight, 0 if all are 0."""
    w = np.asarray(weight, float)
    top = w.max(initial=0.0)
    if not (w >= 0).all() or not np.isfinite(top):
        raise UserError("importance weights must be finite and >= 0")
    return float((w / top).sum() ** 2 / ((w / top) ** 2).sum()) if top > 0 else 0.0


def concentrability(target: Array, behaviour: Array) -> float:
    """Maximum of target / behaviour occupancy where the target is positive, infinite where the behaviour is 0 there; same shapes."""
    if target.shape != behaviour.shape:
        raise UserError(f"concentrability compares occupancies of one shape, not {target.shape} with {behaviour.shape}")
    visited = target > 0
    with np.errstate(divide="ignore"):
        return float((target[visited] / behaviour[visited]).max(initial=0.0))


def coverage(mdp: MDP, pi: Array, rows: Episodes) -> Coverage:
    """Compare d^pi(s, a) with the frequencies of the data; terminal states are excluded."""
    alive = ~mdp.terminal[:, None]
    occupancy = discounted_pairs(mdp, pi) * alive
    occupancy = occupancy / occupancy.sum()
    n = counts(rows, mdp.S, mdp.A)
    frequency = n * alive / max(1.0, float((n * alive).sum()))
    mask = support(n)
    weight = np.divide(occupancy, frequency, out=np.zeros_like(occupancy), where=frequency > 0)
    return Coverage(
        n,
        mask,
        float(occupancy[~mask].sum()),
        concentrability(occupancy, frequency),
        effective_sample_size((weight * alive)[rows.state, rows.action]),
    )
