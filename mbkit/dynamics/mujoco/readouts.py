"""From recorded physics to observation, reward and termination: each task's `step` once more, over whole batches of float64 arrays.

B rows, H actions, A action, O observation. A `Readout` reads frames, MjData fields as [B, H+1, ...] with the rows' start at index 0, and
native actions [B, H, A], and returns obs [B, H, O], reward [B, H] and terminated [B, H]. Operations are in the environment's own order
and precision (its action costs are float32), so that the results are the same to the last digit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.envs.mujoco.inverted_double_pendulum_v5 import InvertedDoublePendulumEnv
from gymnasium.envs.mujoco.inverted_pendulum_v5 import InvertedPendulumEnv
from gymnasium.envs.mujoco.pusher_v5 import PusherEnv
from gymnasium.envs.mujoco.reacher_v5 import ReacherEnv
from gymnasium.envs.mujoco.swimmer_v5 import SwimmerEnv
from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv
from numpy.typing import NDArray

from mbkit.envs.benchmarks import BenchmarkEnv

Array = NDArray[Any]
Frames = dict[str, Array]


class Simulated(NamedTuple):
    """Results of H simulated steps of B rows."""

    obs: Array  # float64 [B, H, O]
    reward: Array  # float64 [B, H]
    terminated: Array  # bool [B, H]


@dataclass(frozen=True)
class Readout:
    """How one task is read; `fields` are the MjData fields it needs beside qpos and qvel, as they stand right after a step."""

    read: Callable[[Any, Frames, Array], Simulated]  # (environment, frames, native action)
    fields: tuple[str, ...] = ()
    applies: Callable[[Any], bool] = lambda env: True


STEPPING = ("step", "_observe", "do_simulation", "_step_mujoco_simulation")  # methods of a benchmark task that its readout repeats


def readout_of(env: Any) -> Readout | None:
    """The readout of an unwrapped environment, or None: a subclass of a known task may have changed its step."""
    if isinstance(env, BenchmarkEnv) and all(getattr(type(env), name) is getattr(BenchmarkEnv, name) for name in STEPPING):
        return Readout(benchmark)
    readout = READOUTS.get(type(env))
    return readout if readout and readout.applies(env) else None


def squared(action: Array) -> Array:
    """Sum of squares over the last axis, in the action's own precision."""
    return np.sum(np.square(action), -1)  # type: ignore[no-any-return]


def norm(vector: Array) -> Array:
    """Length along the last axis, as np.linalg.norm computes it for a single vector."""
    return np.sqrt(np.vecdot(vector, vector))  # type: ignore[no-any-return]


def between(x: Array, bounds: tuple[float, float]) -> Array:
    """low < x < high."""
    return (bounds[0] < x) & (x < bounds[1])


def benchmark(env: BenchmarkEnv, frames: Frames, action: Array) -> Simulated:
    """The PETS tasks: their own `observe` and `reward`."""
    qpos, qvel = torch.from_numpy(frames["qpos"]), torch.from_numpy(frames["qvel"])
    obs = env.observe(qpos[:, :-1], qpos[:, 1:], qvel[:, 1:], env.dt)
    reward = env.reward(torch.from_numpy(action.astype(np.float64)), obs).numpy()
    return Simulated(obs.numpy(), reward, np.zeros(reward.shape, np.bool_))


def always_healthy(env: Any, qpos: Array, qvel: Array) -> Array:
    """HalfCheetah and Swimmer never fall."""
    return np.ones(qpos.shape[:-1], np.bool_)


def hopper_healthy(env: Any, qpos: Array, qvel: Array) -> Array:
    """Height, angle and every coordinate but x and z in their ranges."""
    rest = np.concatenate([qpos[..., 2:], qvel], -1)
    return walker_healthy(env, qpos, qvel) & between(rest, env._healthy_state_range).all(-1)  # type: ignore[no-any-return]


def walker_healthy(env: Any, qpos: Array, qvel: Array) -> Array:
    """Height and angle in their ranges."""
    return between(qpos[..., 1], env._healthy_z_range) & between(qpos[..., 2], env._healthy_angle_range)


def runner(health: Callable[[Any, Array, Array], Array], hidden: int, clip: float, env: Any, frames: Frames, action: Array) -> Simulated:
    """HalfCheetah, Hopper, Walker2d, Swimmer: forward speed over the step, a bonus for health, a cost of actions.

    `hidden` positions are left out of the observation, velocities are clipped at `clip`.
    """
    x, qpos, qvel = frames["qpos"][..., 0], frames["qpos"][:, 1:], frames["qvel"][:, 1:]
    healthy = health(env, qpos, qvel)
    forward = env._forward_reward_weight * ((x[:, 1:] - x[:, :-1]) / env.dt)
    reward = forward + healthy * getattr(env, "_healthy_reward", 0.0) - env._ctrl_cost_weight * squared(action)
    positions = qpos[..., hidden * env._exclude_current_positions_from_observation :]
    obs = np.concatenate([positions, np.clip(qvel, -clip, clip)], -1)
    return Simulated(obs, reward, ~healthy if getattr(env, "_terminate_when_unhealthy", False) else np.zeros_like(healthy))


def ant(env: Any, frames: Frames, action: Array) -> Simulated:
    """Ant without contact forces: the torso's speed from body positions, which lag one substep behind the state."""
    x, qpos, qvel = frames["xpos"][:, :, main_body(env), 0], frames["qpos"][:, 1:], frames["qvel"][:, 1:]
    low, high = env._healthy_z_range
    finite = np.isfinite(qpos).all(-1) & np.isfinite(qvel).all(-1)
    healthy = finite & (low <= qpos[..., 2]) & (qpos[..., 2] <= high)
    forward = (x[:, 1:] - x[:, :-1]) / env.dt * env._forward_reward_weight
    reward = forward + healthy * env._healthy_reward - env._ctrl_cost_weight * squared(action)
    obs = np.concatenate([qpos[..., 2 * env._exclude_current_positions_from_observation :], qvel], -1)
    return Simulated(obs, reward, ~healthy if env._terminate_when_unhealthy else np.zeros_like(healthy))


def main_body(env: Any) -> int:
    """Index of Ant's main body, which the user may name."""
    return int(env.data.body(env._main_body).id)


def inverted_pendulum(env: Any, frames: Frames, action: Array) -> Simulated:
    """One while the pole stands."""
    obs = np.concatenate([frames["qpos"][:, 1:], frames["qvel"][:, 1:]], -1)
    fell = ~np.isfinite(obs).all(-1) | (np.abs(obs[..., 1]) > 0.2)
    return Simulated(obs, (~fell).astype(np.float64), fell)


def inverted_double_pendulum(env: Any, frames: Frames, action: Array) -> Simulated:
    """The tip's site and the rail's constraint force are what the last Runge-Kutta stage left."""
    qpos, qvel, force = (frames[name][:, 1:] for name in ("qpos", "qvel", "qfrc_constraint"))
    x, y = frames["site_xpos"][:, 1:, 0, 0], frames["site_xpos"][:, 1:, 0, 2]
    fell = y <= 1
    away = 0.01 * np.square(x) + np.square(y - 2)
    fast = 1e-3 * np.square(qvel[..., 1]) + 5e-3 * np.square(qvel[..., 2])
    angle = qpos[..., 1:]
    obs = np.concatenate([qpos[..., :1], np.sin(angle), np.cos(angle), np.clip(qvel, -10, 10), np.clip(force[..., :1], -10, 10)], -1)
    return Simulated(obs, env._healthy_reward * ~fell - away - fast, fell)


def reacher(env: Any, frames: Frames, action: Array) -> Simulated:
    """Fingertip and target are body positions, as the last Runge-Kutta stage left them."""
    qpos, qvel, xpos = (frames[name][:, 1:] for name in ("qpos", "qvel", "xpos"))
    gap = xpos[:, :, env.data.body("fingertip").id] - xpos[:, :, env.data.body("target").id]
    reward = -norm(gap) * env._reward_dist_weight + -squared(action) * env._reward_control_weight
    angle = qpos[..., :2]
    obs = np.concatenate([np.cos(angle), np.sin(angle), qpos[..., 2:], qvel[..., :2], gap[..., :2]], -1)
    return Simulated(obs, reward, np.zeros(reward.shape, np.bool_))


def pusher(env: Any, frames: Frames, action: Array) -> Simulated:
    """Tip, object and goal are body positions, one substep behind the state."""
    qpos, qvel, xpos = (frames[name][:, 1:] for name in ("qpos", "qvel", "xpos"))
    tip, thing, goal = (xpos[:, :, env.data.body(name).id] for name in ("tips_arm", "object", "goal"))
    near, far = -norm(thing - tip) * env._reward_near_weight, -norm(thing - goal) * env._reward_dist_weight
    reward = far + -squared(action) * env._reward_control_weight + near
    obs = np.concatenate([qpos[..., :7], qvel[..., :7], tip, thing, goal], -1)
    return Simulated(obs, reward, np.zeros(reward.shape, np.bool_))


def without_contact(env: Any) -> bool:
    """Contact forces are computed once more after a step, which no recording contains. They matter where they are observed or cost."""
    return env._contact_cost_weight == 0 and not env._include_cfrc_ext_in_observation


READOUTS: dict[type, Readout] = {
    HalfCheetahEnv: Readout(partial(runner, always_healthy, 1, np.inf)),
    SwimmerEnv: Readout(partial(runner, always_healthy, 2, np.inf)),
    HopperEnv: Readout(partial(runner, hopper_healthy, 1, 10.0)),
    Walker2dEnv: Readout(partial(runner, walker_healthy, 1, 10.0)),
    InvertedPendulumEnv: Readout(inverted_pendulum),
    InvertedDoublePendulumEnv: Readout(inverted_double_pendulum, ("site_xpos", "qfrc_constraint")),
    ReacherEnv: Readout(reacher, ("xpos",)),
    PusherEnv: Readout(pusher, ("xpos",)),
    AntEnv: Readout(ant, ("xpos",), without_contact),
}
