"""Losses of a regularised critic with the terms that their closed forms need, and the rewards that they admit.

A critic minimises sum_a beta loss(Q, y) + lambda (pi - beta) g(Q) over Q(s, .) (`critic_regularisation`). With every Bregman divergence,
here all but Huber, slope = loss' / g' is a positive multiple of Q - y.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mbkit.errors import UserError
from mbkit.tabular.mdp import MDP, Array
from mbkit.tabular.operators import q_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loss:
    """Loss of a critic with the terms that the closed forms need."""

    name: str
    value: Callable[[Array, Array], Array]  # loss(Q, y)
    penalty: Callable[[Array], Array]  # g(Q), decreased under pi and increased under beta
    slope: Callable[[Array, Array], Array]  # loss'(Q, y) / g'(Q), zero at Q = y
    critic: Callable[[Array, Array], Array]  # (y, x) -> Q with slope(Q, y) = -x; NaN if there is none
    positive: bool  # requires y > 0, and then Q > 0


def _ratio_critic(y: Array, x: Array) -> Array:
    """Solution of 1 - y / Q = -x."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(1 + x > 0, y / (1 + x), np.nan))


def _itakura_critic(y: Array, x: Array) -> Array:
    """Solution of x Q^2 + Q - y = 0 that equals y at x = 0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * y / (1 + np.sqrt(1 + 4 * x * y)))


CROSS_ENTROPY = Loss(  # cross-entropy of the classifier C = Q / (1 + Q) with weights y and 1
    "cross_entropy",
    value=lambda q, y: -y * np.log(q / (1 + q)) + np.log1p(q),
    penalty=lambda q: np.log1p(q),
    slope=lambda q, y: 1 - y / q,
    critic=_ratio_critic,
    positive=True,
)
POISSON = Loss("poisson", lambda q, y: q - y * np.log(q), lambda q: q, lambda q, y: 1 - y / q, _ratio_critic, True)
MSE = Loss("mse", lambda q, y: 0.5 * (q - y) ** 2, lambda q: q, lambda q, y: q - y, lambda y, x: y - x, False)
ITAKURA_SAITO = Loss(
    "itakura_saito", lambda q, y: y / q - np.log(y / q) - 1, lambda q: q, lambda q, y: 1 / q - y / q**2, _itakura_critic, True
)


def huber(delta: float = 1.0) -> Loss:
    """Huber loss: quadratic up to delta, linear beyond. Where |lambda (pi - beta)| > delta beta the critic has no minimum."""
    if not delta > 0:
        raise UserError(f"delta of the Huber loss must be > 0, not {delta!r}")
    return Loss(
        "huber",
        value=lambda q, y: np.where(np.abs(q - y) <= delta, 0.5 * (q - y) ** 2, delta * (np.abs(q - y) - 0.5 * delta)),
        penalty=lambda q: q,
        slope=lambda q, y: np.clip(q - y, -delta, delta),
        critic=lambda y, x: np.where(np.abs(x) <= delta, y - x, np.nan),
        positive=False,
    )


LOSSES = {loss.name: loss for loss in (CROSS_ENTROPY, POISSON, MSE, ITAKURA_SAITO, huber())}


# ------------------------------------------------------------------------------------------------------------------- positivity
def check_rewards(mdp: MDP, loss: Loss, beta: Array | None = None) -> None:
    """Raise UserError where the loss needs y > 0 and targets can be <= 0; with `beta` also where Q^beta <= 0 on the data.

    # Paper: every reward > 0; here: no reward < 0 and Q^beta > 0 on the data (the paper's own grid has reward 0 almost everywhere).
    """
    if not loss.positive:
        return
    smallest = float(mdp.R[~mdp.terminal].min())
    if smallest < 0 or (beta is not None and (q_of(mdp, beta)[(beta > 0) & ~mdp.terminal[:, None]] <= 0).any()):
        advice = "shift them with `shift_rewards(mdp, smallest=0.1)` or use mse"
        raise UserError(f"{loss.name} needs rewards > 0; the smallest is {smallest:g}: {advice}")


def shift_rewards(mdp: MDP, smallest: float = 0.1) -> MDP:
    """MDP with a constant added to the rewards of all non-terminal states, so that the smallest reward is `smallest`.

    The shift is logged, because it changes beta Q / V and, with terminal states, even the optimal policy.

    Raises:
        UserError: `smallest` <= 0.
    """
    if not smallest > 0:
        raise UserError(f"shift_rewards: smallest={smallest!r}: expected a number > 0")
    alive = ~mdp.terminal[:, None]
    shift = smallest - float(mdp.R[~mdp.terminal].min())
    log.warning("rewards shifted by %g so that the smallest is %g; policies proportional to Q change with it", shift, smallest)
    sampler = mdp.reward_sampler
    shifted = None if sampler is None else (lambda rng, s, a, t: sampler(rng, s, a, t) + shift * (not mdp.terminal[s]))
    return replace(mdp, R=np.where(alive, mdp.R + shift, 0.0), reward_sampler=shifted)
