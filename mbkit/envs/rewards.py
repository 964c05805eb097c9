"""Rewards and terminations of Gymnasium's tasks as functions of (obs, action, next_obs), taken from each environment's definition.

Shapes: obs and next_obs [..., O], action [..., A] in [-1, 1] (int64 [...] if discrete) -> [...]. Weights and ranges follow `env_kwargs`.
A reward that the observation doesn't determine is a sentence instead of a function: it says why, and the reward has to be learned.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, pi
from typing import Any

import torch
from torch import Tensor

from mbkit.types import RewardFn, TerminationFn

Kwargs = Mapping[str, Any]
Reward = RewardFn | str


def never(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """The termination of a task that has none."""
    return next_obs.new_zeros(next_obs.shape[:-1], dtype=torch.bool)


@dataclass(frozen=True)
class Known:
    """One task: what its keyword arguments turn into."""

    reward: Callable[[Kwargs], Reward]
    termination: Callable[[Kwargs], TerminationFn] = lambda kwargs: never


def squared(action: Tensor) -> Tensor:
    """|a|^2, [..., A] -> [...]."""
    return action.square().sum(-1)


def inside(x: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Whether low < x < high; a NaN is not."""
    return (x > bounds[0]) & (x < bounds[1])


def sees_x(kwargs: Kwargs) -> bool:
    """Whether the observation begins with the position the reward is made of."""
    return not kwargs.get("exclude_current_positions_from_observation", True)


def unless_healthy(healthy: Callable[[Tensor], Tensor], kwargs: Kwargs) -> TerminationFn:
    """Terminated where `healthy` of the next observation is false, unless the task was told to go on."""
    return (lambda obs, action, next_obs: ~healthy(next_obs)) if kwargs.get("terminate_when_unhealthy", True) else never


def forward(
    timestep: float, skip: int, ctrl: float, healthy: Callable[[Kwargs], Callable[[Tensor], Tensor]] | None = None
) -> Callable[[Kwargs], Reward]:
    """weight (x' - x) / dt + healthy_reward [healthy'] - ctrl |a|^2, dt = timestep * frame skip (s): exact if the observation has x."""

    def build(kwargs: Kwargs) -> Reward:
        if not sees_x(kwargs):
            return (
                "the forward reward is the change of the x position, which is not in the observation "
                "(env_kwargs.exclude_current_positions_from_observation=false puts it there)"
            )
        if "xml_file" in kwargs:
            return "env_kwargs.xml_file replaces the body, and with it the time step"
        dt: float = timestep * kwargs.get("frame_skip", skip)
        weight: float = kwargs.get("forward_reward_weight", 1.0)
        cost: float = kwargs.get("ctrl_cost_weight", ctrl)
        bonus: float = kwargs.get("healthy_reward", 1.0)
        alive = healthy and healthy(kwargs)

        def reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
            moving = weight * (next_obs[..., 0] - obs[..., 0]) / dt - cost * squared(action)
            return moving + bonus * alive(next_obs) if alive else moving

        return reward

    return build


def hopper_healthy(kwargs: Kwargs) -> Callable[[Tensor], Tensor]:
    """Height, angle and all other coordinates in their ranges; velocities are seen clipped at 10, so a range beyond that always holds."""
    z_range, angle_range = kwargs.get("healthy_z_range", (0.7, inf)), kwargs.get("healthy_angle_range", (-0.2, 0.2))
    state_range, z = kwargs.get("healthy_state_range", (-100.0, 100.0)), int(sees_x(kwargs))
    return lambda o: inside(o[..., z], z_range) & inside(o[..., z + 1], angle_range) & inside(o[..., z + 1 :], state_range).all(-1)


def walker_healthy(kwargs: Kwargs) -> Callable[[Tensor], Tensor]:
    """Height and angle in their ranges."""
    z_range, angle_range = kwargs.get("healthy_z_range", (0.8, 2.0)), kwargs.get("healthy_angle_range", (-1.0, 1.0))
    z = int(sees_x(kwargs))
    return lambda o: inside(o[..., z], z_range) & inside(o[..., z + 1], angle_range)


def ant_healthy(kwargs: Kwargs) -> Callable[[Tensor], Tensor]:
    """Positions and velocities (13 + 14 without x and y) finite and the height in its closed range."""
    (low, high), z = kwargs.get("healthy_z_range", (0.2, 1.0)), 2 * sees_x(kwargs)
    return lambda o: o[..., : 27 + z].isfinite().all(-1) & (o[..., z] >= low) & (o[..., z] <= high)


def humanoid_healthy(kwargs: Kwargs) -> Callable[[Tensor], Tensor]:
    """Height in its range."""
    z_range, z = kwargs.get("healthy_z_range", (1.0, 2.0)), 2 * sees_x(kwargs)
    return lambda o: inside(o[..., z], z_range)


def pendulum_fell(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """InvertedPendulum: |angle| > 0.2 rad, or something not finite."""
    return ~(next_obs.isfinite().all(-1) & (next_obs[..., 1].abs() <= 0.2))


def double_tip(obs: Tensor) -> tuple[Tensor, Tensor]:
    """InvertedDoublePendulum: where (m) the tip of its two 0.6 m poles is, x and y, from obs [x, sin a, sin b, cos a, cos b, ...]."""
    x, sin_a, sin_b, cos_a, cos_b = obs[..., :5].unbind(-1)
    return x + 0.6 * (sin_a + sin_a * cos_b + cos_a * sin_b), 0.6 * (cos_a + cos_a * cos_b - sin_a * sin_b)


def double_fell(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """InvertedDoublePendulum: the tip at or below 1 m."""
    return double_tip(next_obs)[1] <= 1


def double_reward(kwargs: Kwargs) -> Reward:
    """10 [up] - 0.01 x^2 - (y - 2)^2 - 0.001 v1^2 - 0.005 v2^2, within 1e-4 while |v| < 10.

    The environment takes the tip from the last Runge-Kutta stage, a hair before the state it shows, and shows velocities clipped at 10.
    """
    bonus: float = kwargs.get("healthy_reward", 10.0)

    def reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        x, y = double_tip(next_obs)
        v1, v2 = next_obs[..., 6], next_obs[..., 7]
        return bonus * (y > 1) - 0.01 * x.square() - (y - 2).square() - 1e-3 * v1.square() - 5e-3 * v2.square()

    return reward


def reacher_reward(kwargs: Kwargs) -> Reward:
    """-|tip - target| - |a|^2."""
    near: float = kwargs.get("reward_dist_weight", 1.0)
    cost: float = kwargs.get("reward_control_weight", 1.0)
    return lambda obs, action, next_obs: -near * torch.linalg.vector_norm(next_obs[..., 8:10], dim=-1) - cost * squared(action)


def pusher_reward(kwargs: Kwargs) -> Reward:
    """-|object - goal| - 0.5 |object - tip| - 0.1 |a|^2."""
    near: float = kwargs.get("reward_near_weight", 0.5)
    far: float = kwargs.get("reward_dist_weight", 1.0)
    cost: float = kwargs.get("reward_control_weight", 0.1)

    def reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        tip, thing, goal = next_obs[..., 14:17], next_obs[..., 17:20], next_obs[..., 20:23]
        to_tip: Tensor = torch.linalg.vector_norm(thing - tip, dim=-1)
        to_goal: Tensor = torch.linalg.vector_norm(thing - goal, dim=-1)
        return -far * to_goal - cost * squared(action) - near * to_tip

    return reward


def swing_reward(kwargs: Kwargs) -> Reward:
    """Pendulum: -(angle^2 + 0.1 velocity^2 + 0.001 torque^2) of the state acted in, the angle in (-pi, pi] from upright."""

    def reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        angle = torch.atan2(obs[..., 1], obs[..., 0])
        return -(angle.square() + 0.1 * obs[..., 2].square() + 1e-3 * squared(action))

    return reward


def cartpole_fell(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """CartPole: |x| > 2.4 or |angle| > 12 degrees."""
    return (next_obs[..., 0].abs() > 2.4) | (next_obs[..., 2].abs() > 12 * pi / 180)


def cartpole_reward(kwargs: Kwargs) -> Reward:
    """1 each step, or in Sutton and Barto's version -1 on falling and 0 before."""
    if kwargs.get("sutton_barto_reward", False):
        return lambda obs, action, next_obs: -cartpole_fell(obs, action, next_obs).to(next_obs)
    return lambda obs, action, next_obs: torch.ones_like(next_obs[..., 0])


def uphill(goal: float) -> Callable[[Kwargs], TerminationFn]:
    """Mountain car: position and velocity at least the goal's."""

    def build(kwargs: Kwargs) -> TerminationFn:
        speed = kwargs.get("goal_velocity", 0)
        return lambda obs, action, next_obs: (next_obs[..., 0] >= goal) & (next_obs[..., 1] >= speed)

    return build


def mountain_reward(kwargs: Kwargs) -> Reward:
    """100 at the top - 0.1 |a|^2."""
    top = uphill(0.45)(kwargs)
    return lambda obs, action, next_obs: 100.0 * top(obs, action, next_obs) - 0.1 * squared(action)


def upright(kwargs: Kwargs) -> Reward:
    """InvertedPendulum: 1 unless it fell."""
    return lambda obs, action, next_obs: (~pendulum_fell(obs, action, next_obs)).to(next_obs)


CONTACT = "the reward has contact forces and stale body positions in it, which are not a function of (obs, action, next_obs)"

# name -> (what [-1, 1] is multiplied with to get the environment's own action, the task)
GYMNASIUM: dict[str, tuple[float, Known]] = {
    "InvertedPendulum-v5": (3.0, Known(upright, lambda kwargs: pendulum_fell)),
    "InvertedDoublePendulum-v5": (1.0, Known(double_reward, lambda kwargs: double_fell)),
    "Hopper-v5": (1.0, Known(forward(0.002, 4, 1e-3, hopper_healthy), lambda kwargs: unless_healthy(hopper_healthy(kwargs), kwargs))),
    "Walker2d-v5": (1.0, Known(forward(0.002, 4, 1e-3, walker_healthy), lambda kwargs: unless_healthy(walker_healthy(kwargs), kwargs))),
    "HalfCheetah-v5": (1.0, Known(forward(0.01, 5, 0.1))),
    "Swimmer-v5": (1.0, Known(forward(0.01, 4, 1e-4))),
    "Ant-v5": (1.0, Known(lambda kwargs: CONTACT, lambda kwargs: unless_healthy(ant_healthy(kwargs), kwargs))),
    "Humanoid-v5": (0.4, Known(lambda kwargs: CONTACT, lambda kwargs: unless_healthy(humanoid_healthy(kwargs), kwargs))),
    "Reacher-v5": (1.0, Known(reacher_reward)),
    "Pusher-v5": (2.0, Known(pusher_reward)),
    "Pendulum-v1": (2.0, Known(swing_reward)),
    "CartPole-v1": (1.0, Known(cartpole_reward, lambda kwargs: cartpole_fell)),
    "MountainCarContinuous-v0": (1.0, Known(mountain_reward, uphill(0.45))),
    "MountainCar-v0": (1.0, Known(lambda kwargs: lambda obs, action, next_obs: -torch.ones_like(next_obs[..., 0]), uphill(0.5))),
}
