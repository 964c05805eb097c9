"""Three continuous control problems with hand-written controllers, and data sets from noisy versions of these.

The 1-D LQR with known values, Gymnasium's Pendulum-v1 (reimplemented in batches), and a point mass in the plane. Actions in [-1, 1];
episodes end by truncation only. Letters: n episodes, T steps, X state, O observation, A action, N rows.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mbkit.tabular.environments import LQR, lqr_value, riccati_gain
from mbkit.tabular.mdp import Array

Rng = np.random.Generator
KINDS = ("random", "medium", "medium-expert")
SPREAD = {"medium": 0.3, "expert": 0.15}  # standard deviation of the noise on a controller's actions
WEAK = 0.6  # action of the medium controller relative to the expert's
LQR_FORCE = 4.0  # u at a = 1, large enough that the LQR controllers are hardly ever clipped
TORQUE, SPEED, GRAVITY, DT = 2.0, 8.0, 10.0, 0.05  # parameters of Pendulum-v1
TOP_ENERGY = GRAVITY / 2  # energy of the pendulum at rest in the upright position: w^2 / 6 + (g / 2) cos(angle)
CATCH = 0.35  # angle in rad from the upright position below which the controller balances


class Plant(NamedTuple):
    """Control problem; states [..., X], actions [..., A]."""

    name: str
    gamma: float
    steps: int  # T
    reset: Callable[[Rng, int], Array]  # (rng, n) -> states [n, X]
    step: Callable[[Rng, Array, Array], tuple[Array, Array]]  # (rng, state, action) -> reward [...], next state
    observe: Callable[[Array], Array]  # state -> observation [..., O] of order 1
    expert: Callable[[Array], Array]  # state -> action


class Rows(NamedTuple):
    """Rows with next actions; at the end of an episode the next action is sampled additionally."""

    obs: Array  # [N, O]
    action: Array  # [N, A]
    reward: Array  # [N]
    next_obs: Array  # [N, O]
    next_action: Array  # [N, A]


# -------------------------------------------------------------------------------------------------------------------------- LQR
def lqr_step(rng: Rng, s: Array, a: Array) -> tuple[Array, Array]:
    """Step of the LQR of `mbkit.tabular`, u = 4 a."""
    u = LQR_FORCE * a
    return LQR().reward(s, u)[..., 0], LQR().step(rng, s, u)


def lqr_noisy_value(gain: float, sigma: float, lqr: LQR = LQR()) -> tuple[float, float]:  # noqa: B008
    """Value (p, c) of V(s) = -(p s^2 + c) under u = -gain s + noise of standard deviation sigma, of any distribution."""
    p, _ = lqr_value(lqr, gain)
    return p, (lqr.cost * sigma**2 + lqr.gamma * p * (lqr.noise**2 + (lqr.b * sigma) ** 2)) / (1 - lqr.gamma)


def lqr_noisy_q(gain: float, sigma: float, s: Array, u: Array, lqr: LQR = LQR()) -> Array:  # noqa: B008
    """Closed-form Q of the noisy linear policy."""
    p, c = lqr_noisy_value(gain, sigma, lqr)
    return np.asarray(lqr.reward(s, u) - lqr.gamma * (p * ((lqr.a * s + lqr.b * u) ** 2 + lqr.noise**2) + c))


def lqr_behaviour(kind: str) -> tuple[float, float]:
    """Gain and noise of u in the data sets of the LQR."""
    if kind == "random":
        return 0.0, LQR_FORCE / np.sqrt(3)
    return WEAK * riccati_gain(LQR()), SPREAD["medium"] * LQR_FORCE


# --------------------------------------------------------------------------------------------------------------------- pendulum
def pendulum_step(rng: Rng, state: Array, a: Array) -> tuple[Array, Array]:
    """Step of Gymnasium's pendulum; state (angle, speed), angle 0 is upright. The reward is a tenth of Gymnasium's."""
    angle, speed, u = state[..., 0], state[..., 1], TORQUE * np.clip(a[..., 0], -1, 1)
    cost = wrapped(angle) ** 2 + 0.1 * speed**2 + 0.001 * u**2
    speed = np.clip(speed + (1.5 * GRAVITY * np.sin(angle) + 3 * u) * DT, -SPEED, SPEED)
    return -0.1 * cost, np.stack([angle + speed * DT, speed], -1)


def wrapped(angle: Array) -> Array:
    """Angle in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def swing_up(state: Array) -> Array:
    """Swing-up controller: energy pumping, then balancing near the upright position (Astrom & Furuta 2000)."""
    angle, speed = wrapped(state[..., 0]), state[..., 1]
    missing = TOP_ENERGY - (speed**2 / 6 + 0.5 * GRAVITY * np.cos(angle))
    pump = np.clip(2 * missing, -1, 1) * np.where(speed >= 0, 1.0, -1.0)
    hold = -(6 * angle + 1.5 * speed)
    return np.clip(np.where(np.abs(angle) < CATCH, hold, pump), -1, 1)[..., None]


# ------------------------------------------------------------------------------------------------------------------- point mass
def mass_step(rng: Rng, state: Array, a: Array) -> tuple[Array, Array]:
    """Step of the point mass: v' = 0.95 v + 0.2 a, x' = x + 0.1 v', reward -(|x|^2 + 0.1 |v|^2 + 0.05 |a|^2); state (x, v)."""
    a, x, v = np.clip(a, -1, 1), state[..., :2], state[..., 2:]
    reward = -((x**2).sum(-1) + 0.1 * (v**2).sum(-1) + 0.05 * (a**2).sum(-1))
    v = 0.95 * v + 0.2 * a
    return reward, np.concatenate([x + 0.1 * v, v], -1)


PLANTS = (
    Plant(
        "LQR",
        LQR().gamma,
        20,
        lambda rng, n: rng.standard_normal((n, 1)),
        lqr_step,
        lambda s: s,
        lambda s: np.clip(-riccati_gain(LQR()) / LQR_FORCE * s, -1, 1),
    ),
    Plant(
        "pendulum",
        0.95,
        200,
        lambda rng, n: rng.uniform([-np.pi, -1.0], [np.pi, 1.0], (n, 2)),
        pendulum_step,
        lambda s: np.stack([np.cos(s[..., 0]), np.sin(s[..., 0]), s[..., 1] / 4], -1),
        swing_up,
    ),
    Plant(
        "point mass",
        0.95,
        50,
        lambda rng, n: np.concatenate([rng.uniform(-1, 1, (n, 2)), np.zeros((n, 2))], -1),
        mass_step,
        lambda s: s,
        lambda s: np.clip(-(3 * s[..., :2] + 2 * s[..., 2:]), -1, 1),
    ),
)


# ------------------------------------------------------------------------------------------------------------------------- data
def behave(plant: Plant, kind: str, rng: Rng, state: Array) -> Array:
    """Actions of the behaviour policy: random, or the medium or expert controller with noise, clipped to [-1, 1]."""
    mean = plant.expert(state)
    if kind == "random":
        return rng.uniform(-1, 1, mean.shape)
    mean = WEAK * mean if kind == "medium" else mean
    return np.clip(mean + SPREAD[kind] * rng.standard_normal(mean.shape), -1, 1)


def record(plant: Plant, kind: str, rng: Rng, rows: int) -> Rows:
    """Data set of `rows` rows from whole episodes; medium-expert is half of each."""
    if kind == "medium-expert":
        parts = record(plant, "medium", rng, rows // 2), record(plant, "expert", rng, rows - rows // 2)
        return Rows(*map(np.concatenate, zip(*parts, strict=True)))
    state = plant.reset(rng, -(-rows // plant.steps))
    action = behave(plant, kind, rng, state)
    steps = []
    for _ in range(plant.steps):
        reward, after = plant.step(rng, state, action)
        next_action = behave(plant, kind, rng, after)
        steps.append((plant.observe(state), action, reward, plant.observe(after), next_action))
        state, action = after, next_action
    return Rows(*(np.concatenate(column)[:rows] for column in zip(*steps, strict=True)))


def returns(plant: Plant, act: Callable[[Array], Array], state: Array, rng: Rng) -> Array:
    """Undiscounted returns [...] of the policy act(observation) from states [..., X]."""
    total = np.zeros(state.shape[:-1])
    for _ in range(plant.steps):
        reward, state = plant.step(rng, state, act(plant.observe(state)))
        total += reward
    return total
