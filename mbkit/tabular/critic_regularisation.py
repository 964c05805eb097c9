"""Critic regularisation on tables: the critic of each loss in closed form, and the joint fixed point of actor and critic.

Eysenbach et al. 2023, arXiv:2307.12968. In every state the critic minimises over Q(s, .), with targets y = R + gamma P <pi, Q>,

    sum_a beta loss(Q, y) + lambda (pi - beta) g(Q),      stationary where  slope(Q, y) = -lambda (pi - beta) / beta,

slope = loss' / g'. beta [S, A] behaviour policy, pi [S, A] actor, lambda > 0 weight of the regulariser. Where beta is 0 there are no
data: the actor is 0 there, and nothing is divided by beta.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mbkit.errors import UserError
from mbkit.tabular.critic_losses import CROSS_ENTROPY, Loss, check_rewards
from mbkit.tabular.mdp import MDP, Array
from mbkit.tabular.operators import backup, expectation, q_of
from mbkit.tabular.planning import fixed_point


# ----------------------------------------------------------------------------------------------------------------------- critic
def objective(q: Array, y: Array, beta: Array, pi: Array, lam: float, loss: Loss) -> Array:
    """Objective that the critic minimises, [S]."""
    return np.asarray((beta * loss.value(q, y) + lam * (pi - beta) * loss.penalty(q)).sum(-1))


def critic(y: Array, beta: Array, pi: Array, lam: float, loss: Loss) -> Array:
    """Optimal critic for a fixed actor, [S, A]; cross-entropy and Poisson: y beta / ((1 - lambda) beta + lambda pi).

    Raises:
        UserError: the objective has no minimum in some (s, a): a denominator <= 0 (lambda > 1), a Huber loss whose slope is too small,
            or an actor with mass outside the data.
    """
    inside = beta > 0
    x = np.where(inside, lam * (pi - beta) / np.where(inside, beta, 1.0), 0.0)
    q = np.where(inside, loss.critic(y, x), 0.0)  # outside the data the positive losses push Q to 0
    unbounded = ~np.isfinite(q) | (~inside & (pi > 0) & (not loss.positive))
    if unbounded.any():
        s, a = np.argwhere(unbounded)[0]
        where = f"pi {pi[s, a]:g}, beta {beta[s, a]:g}, lambda {lam:g}"
        raise UserError(f"{loss.name} has no minimum at state {s}, action {a} ({where}); `joint_fixed_point` solves for both at once")
    return q


def normalised_target(mdp: MDP, v: Array) -> Array:
    """Targets of cross-entropy if each sample y = R + gamma V(s') has weights y / (1 + y) and 1 / (1 + y): E[y w] / E[w], [S, A].

    w = 1 / (1 + y) decreases with y, so the target lies below R + gamma P V unless P is deterministic.
    """
    y = mdp.R[..., None] + mdp.gamma * np.where(mdp.terminal, 0.0, v)
    weight = mdp.P / (1 + y)
    return np.asarray((weight * y).sum(-1) / weight.sum(-1))


def fixed_policy_iterates(
    mdp: MDP, beta: Array, pi: Array, lam: float, q0: Array, loss: Loss = CROSS_ENTROPY, normalized: bool = False
) -> Iterator[Array]:
    """Iterates Q_{t+1} = critic(R + gamma P <pi, Q_t>) for a fixed actor; lambda = 1 and cross-entropy: Q_t = Q^beta_t beta / pi for all t.

    Args:
        mdp: the model.
        beta: behaviour policy.
        pi: the actor.
        lam: weight of the regulariser.
        q0: initial Q [S, A]; > 0 for the positive losses.
        loss: loss of the critic.
        normalized: use `normalised_target` as the published code does; the equality above then needs a deterministic P.

    Raises:
        UserError: rewards that the loss does not admit.
    """
    check_rewards(mdp, loss)
    q = q0
    while True:
        v = expectation(pi, q)
        q = critic(normalised_target(mdp, v) if normalized else backup(mdp, v), beta, pi, lam, loss)
        yield q


def harmonic_mixture(beta: Array, pi: Array, lam: float) -> Array:
    """Sub-policy h = pi beta / ((1 - lambda) beta + lambda pi), [S, A]: the fixed-policy critic has the value of h; rows sum to <= 1."""
    both = (beta > 0) & (pi > 0)
    return np.where(both, pi * beta / np.where(both, (1 - lam) * beta + lam * pi, 1.0), 0.0)


# ------------------------------------------------------------------------------------------------------------------------ actor
def multiplicative_actor(pi: Array, q: Array) -> Array:
    """Actor update pi' proportional to pi Q; after the critic with lambda = 1 has converged, one update gives beta Q^beta / V^beta."""
    weights = pi * np.maximum(q, 0.0)
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def damped_actor(pi: Array, q: Array, rate: float) -> Array:
    """Actor update pi' = pi + rate (onehot argmax Q - pi) of the published protocol."""
    new = (1 - rate) * pi
    new[np.arange(len(pi)), q.argmax(-1)] += rate
    return new


# ------------------------------------------------------------------------------------------------------------ joint fixed point
@dataclass(frozen=True, eq=False)
class JointFixedPoint:
    """Fixed point of actor and critic."""

    pi: Array  # [S, A]
    level: Array  # [S] common Q of all actions with pi > 0, the actor's value
    y: Array  # [S, A] targets R + gamma P level
    clipped: bool  # whether some action of the data has pi = 0


def water_fill(y: Array, beta: Array, lam: float, loss: Loss, halvings: int = 200) -> tuple[Array, Array]:
    """Actor that no action improves, and its level: pi = beta (1 - slope(c, y) / lambda)_+ with c [S] such that pi sums to 1.

    All actions with pi > 0 have Q = c, the others less. c lies between the smallest and the largest y of the data; bisection solves for it.
    """
    inside = beta > 0
    low, high = np.where(inside, y, np.inf).min(-1), np.where(inside, y, -np.inf).max(-1)

    safe = np.where(inside, y, high[:, None])  # where beta is 0 the value of y does not matter

    def fill(c: Array) -> Array:
        return np.asarray(beta * np.maximum(0.0, 1 - loss.slope(c[:, None], safe) / lam))

    for _ in range(halvings):
        middle = 0.5 * (low + high)
        too_low = fill(middle).sum(-1) > 1
        low, high = np.where(too_low, middle, low), np.where(too_low, high, middle)
    pi = fill(high)
    return pi / pi.sum(-1, keepdims=True), high


def joint_fixed_point(mdp: MDP, beta: Array, lam: float, loss: Loss = CROSS_ENTROPY, tol: float = 1e-12) -> JointFixedPoint:
    """Joint fixed point of actor and critic: iterates y = R + gamma P level(y), [S, A], to convergence.

    Where nothing is clipped and the loss is a Bregman divergence (all here but Huber), the level is <beta, y>: y = Q^beta for every
    lambda, and pi = beta (1 + A^beta / (lambda V^beta)) with cross-entropy, beta (1 + A^beta / lambda) with the halved MSE.

    Raises:
        UserError: lambda <= 0, or rewards that the loss does not admit.
    """
    if not lam > 0:
        raise UserError(f"lambda must be > 0, not {lam!r}")
    check_rewards(mdp, loss, beta)

    def sweep(y: Array) -> Array:
        return backup(mdp, np.where(mdp.terminal, 0.0, water_fill(positive_targets(y), beta, lam, loss, 50)[1]))

    def positive_targets(y: Array) -> Array:
        return np.where(mdp.terminal[:, None], 1.0, y)  # terminal states have value 0, by which positive losses would divide

    y = fixed_point(sweep, q_of(mdp, beta), mdp.gamma, tol).x
    pi, level = water_fill(positive_targets(y), beta, lam, loss)
    return JointFixedPoint(pi, np.where(mdp.terminal, 0.0, level), y, bool(((beta > 0) & (pi <= 0)).any()))


def exactness_threshold(mdp: MDP, beta: Array) -> float:
    """Smallest lambda for which cross-entropy clips no action and its critic is exactly Q^beta: max (V - Q) / V on the data."""
    q = q_of(mdp, beta)
    v = expectation(beta, q)
    alive = (beta > 0) & ~mdp.terminal[:, None]
    return float(((v[:, None] - q) / np.where(mdp.terminal, 1.0, v)[:, None])[alive].max())


# ----------------------------------------------------------------------------------------------------------- published protocol
def protocol(mdp: MDP, beta: Array, q0: Array, rate: float = 1e-4, lam: float = 1.0, eps: float = 1e-12) -> Iterator[tuple[Array, Array]]:
    """Published protocol: (Q_t, pi_t), t = 1, 2, ..., one cross-entropy backup, then one damped actor update, from the uniform policy.

    Paper: eps = 1e-12 in the denominator; the closed forms above need none. Raises UserError for negative rewards.
    """
    check_rewards(mdp, CROSS_ENTROPY)
    pi, q = np.full((mdp.S, mdp.A), 1 / mdp.A), q0
    while True:
        q = backup(mdp, expectation(pi, q)) * beta / ((1 - lam) * beta + lam * pi + eps)
        pi = damped_actor(pi, q, rate)
        yield q, pi
