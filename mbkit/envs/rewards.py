"""Rewards and terminations of Gymnasium's tasks as functions of (obs, action, next_obs), taken from each environment's definition.

Shapes: obs and next_obs [..., O], action [..., A] in the environment's units (int64 [...] if discrete) -> [...]. Weights and ranges follow
`env_kwargs`. Where the observation doesn't determine the reward, the reason stands instead of a function, and the reward has to be learned.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, pi
from typing import Any

import torch
from torch import Tensor

from mbkit.types import RewardFn, TerminationFn

Kwargs = Mapping[str, Any]
Healthy = Callable[[Kwargs], Callable[[Tensor], Tensor]]  # keyword arguments of the task -> (obs [..., O] -> bool [...])
Reward = RewardFn | str  # a function, or the reason why there is none


def never(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """The termination of a task that never terminates."""
    return next_obs.new_zeros(next_obs.shape[:-1], dtype=torch.bool)


@dataclass(frozen=True)
class TaskFunctions:
    """The functions of one task, each built from the keyword arguments of its environment."""

    reward: Callable[[Kwargs], Reward]
    termination: Callable[[Kwargs], TerminationFn] = lambda kwargs: never
    reward_part: Callable[[Kwargs], RewardFn | None] = lambda kwargs: None  # the known part of a reward that may be learned
    action_scale: float = 1.0  # actions in [-1, 1] times this are the environment's


def squared(action: Tensor) -> Tensor:
    """|a|^2, [..., A] -> [...]."""
    return action.square().sum(-1)


def inside(x: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Whether low < x < high; False for NaN."""
    return (x > bounds[0]) & (x < bounds[1])


def observes_x(kwargs: Kwargs) -> bool:
    """Whether the observation begins with the x position, whose change is the forward reward."""
    return not kwargs.get("exclude_current_positions_from_observation", True)


def when_unhealthy(healthy: Healthy) -> Callable[[Kwargs], TerminationFn]:
    """Terminated where the next observation is not healthy; never if the task has `terminate_when_unhealthy=False`."""

    def build(kwargs: Kwargs) -> TerminationFn:
        is_healthy = healthy(kwargs)
        return (lambda obs, action, next_obs: ~is_healthy(next_obs)) if kwargs.get("terminate_when_unhealthy", True) else never

    return build


def forward_reward(timestep: float, skip: int, ctrl: float, healthy: Healthy | None = None) -> Callable[[Kwargs], Reward]:
    """weight (x' - x) / dt + healthy_reward [healthy'] - ctrl |a|^2, dt = timestep * frame skip (s): exact if the observation has x."""

    def build(kwargs: Kwargs) -> Reward:
        if not observes_x(kwargs):
            return (
                "the forward reward is the change of the x position, which is not in the observation "
                "(env_kwargs.exclude_current_positions_from_observation=false adds it)"
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


def costs_and_health(ctrl: float, healthy: Healthy | None = None, bonus: float = 1.0) -> Callable[[Kwargs], RewardFn]:
    """healthy_reward [healthy'] - ctrl |a|^2: known of a locomotion reward without its forward speed; jumps where a body falls."""

    def build(kwargs: Kwargs) -> RewardFn:
        cost: float = kwargs.get("ctrl_cost_weight", ctrl)
        paid: float = kwargs.get("healthy_reward", bonus)
        alive = healthy and healthy(kwargs)

        def reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
            return paid * alive(next_obs) - cost * squared(action) if alive else -cost * squared(action)

        return reward

    return build


def hopper_healthy(kwargs: Kwargs) -> Callable[[Tensor], Tensor]:
    """Height, angle and all other coordinates in their ranges; observed velocities are clipped at 10, so a wider range always holds."""
    z_range, angle_range = kwargs.get("healthy_z_range", (0.7, inf)), kwargs.get("healthy_angle_range", (-0.2, 0.2))
    state_range, z = kwargs.get("healthy_state_range", (-100.0, 100.0)), int(observes_x(kwargs))
    return lambda o: inside(o[..., z], z_range) & inside(o[..., z + 1], angle_range) & inside(o[..., z + 1 :], state_range).all(-1)


def walker_healthy(kwargs: Kwargs) -> Callable[[Tensor], Tensor]:
    """Height and angle in their ranges."""
    z_range, angle_range = kwargs.get("healthy_z_range", (0.8, 2.0)), kwargs.get("healthy_angle_range", (-1.0, 1.0))
    z = int(observes_x(kwargs))
    return lambda o: inside(o[..., z], z_range) & inside(o[..., z + 1], angle_range)


def ant_healthy(kwargs: Kwargs) -> Callable[[Tensor], Tensor]:
    """Positions and velocities (13 + 14 without x and y) finite and the height in its closed range."""
    (low, high), z = kwargs.get("healthy_z_range", (0.2, 1.0)), 2 * observes_x(kwargs)
    return lambda o: o[..., : 27 + z].isfinite().all(-1) & (o[..., z] >= low) & (o[..., z] <= high)


def humanoid_healthy(kwargs: Kwargs) -> Callable[[Tensor], Tensor]:
    """Height in its range."""
    z_range, z = kwargs.get("healthy_z_range", (1.0, 2.0)), 2 * observes_x(kwargs)
    return lambda o: inside(o[..., z], z_range)


def inverted_pendulum_fell(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """InvertedPendulum: |angle| > 0.2 rad, or a coordinate that is not finite."""
    return ~(next_obs.isfinite().all(-1) & (next_obs[..., 1].abs() <= 0.2))


def double_pendulum_tip(obs: Tensor) -> tuple[Tensor, Tensor]:
    """InvertedDoublePendulum: x and y (m) of the tip of its two 0.6 m poles, from obs [x, sin a, sin b, cos a, cos b, ...]."""
    x, sin_a, sin_b, cos_a, cos_b = obs[..., :5].unbind(-1)
    return x + 0.6 * (sin_a + sin_a * cos_b + cos_a * sin_b), 0.6 * (cos_a + cos_a * cos_b - sin_a * sin_b)


def double_pendulum_fell(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """InvertedDoublePendulum: the tip at or below 1 m."""
    return double_pendulum_tip(next_obs)[1] <= 1


def double_pendulum_reward(kwargs: Kwargs) -> Reward:
    """10 [up] - 0.01 x^2 - (y - 2)^2 - 0.001 v1^2 - 0.005 v2^2, within 1e-4 while |v| < 10.

    The environment takes the tip from the last Runge-Kutta stage, just before the state that it returns, and clips velocities at 10.
    """
    bonus: float = kwargs.get("healthy_reward", 10.0)

    def reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        x, y = double_pendulum_tip(next_obs)
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


def pendulum_reward(kwargs: Kwargs) -> Reward:
    """Pendulum: -(angle^2 + 0.1 velocity^2 + 0.001 torque^2) of the state before the action, the angle in (-pi, pi] from upright."""

    def reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        angle = torch.atan2(obs[..., 1], obs[..., 0])
        return -(angle.square() + 0.1 * obs[..., 2].square() + 1e-3 * squared(action))

    return reward


def cartpole_fell(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """CartPole: |x| > 2.4 or |angle| > 12 degrees."""
    return (next_obs[..., 0].abs() > 2.4) | (next_obs[..., 2].abs() > 12 * pi / 180)


def cartpole_reward(kwargs: Kwargs) -> Reward:
    """1 per step, or in Sutton and Barto's version -1 where the pole falls and 0 elsewhere."""
    if kwargs.get("sutton_barto_reward", False):
        return lambda obs, action, next_obs: -cartpole_fell(obs, action, next_obs).to(next_obs)
    return lambda obs, action, next_obs: torch.ones_like(next_obs[..., 0])


def reached_goal(goal: float) -> Callable[[Kwargs], TerminationFn]:
    """Mountain car: position and velocity at least the goal's."""

    def build(kwargs: Kwargs) -> TerminationFn:
        speed = kwargs.get("goal_velocity", 0)
        return lambda obs, action, next_obs: (next_obs[..., 0] >= goal) & (next_obs[..., 1] >= speed)

    return build


def mountain_car_reward(kwargs: Kwargs) -> Reward:
    """100 [at the goal] - 0.1 |a|^2."""
    at_goal = reached_goal(0.45)(kwargs)
    return lambda obs, action, next_obs: 100.0 * at_goal(obs, action, next_obs) - 0.1 * squared(action)


def inverted_pendulum_reward(kwargs: Kwargs) -> Reward:
    """InvertedPendulum: 1 unless the pole fell."""
    return lambda obs, action, next_obs: (~inverted_pendulum_fell(obs, action, next_obs)).to(next_obs)


CONTACT = "the reward has contact forces and stale body positions in it, which are not a function of (obs, action, next_obs)"

GYMNASIUM: dict[str, TaskFunctions] = {
    "InvertedPendulum-v5": TaskFunctions(inverted_pendulum_reward, lambda kwargs: inverted_pendulum_fell, action_scale=3.0),
    "InvertedDoublePendulum-v5": TaskFunctions(double_pendulum_reward, lambda kwargs: double_pendulum_fell),
    "Hopper-v5": TaskFunctions(
        forward_reward(0.002, 4, 1e-3, hopper_healthy), when_unhealthy(hopper_healthy), costs_and_health(1e-3, hopper_healthy)
    ),
    "Walker2d-v5": TaskFunctions(
        forward_reward(0.002, 4, 1e-3, walker_healthy), when_unhealthy(walker_healthy), costs_and_health(1e-3, walker_healthy)
    ),
    "HalfCheetah-v5": TaskFunctions(forward_reward(0.01, 5, 0.1), reward_part=costs_and_health(0.1)),
    "Swimmer-v5": TaskFunctions(forward_reward(0.01, 4, 1e-4), reward_part=costs_and_health(1e-4)),
    "Ant-v5": TaskFunctions(lambda kwargs: CONTACT, when_unhealthy(ant_healthy), costs_and_health(0.5, ant_healthy)),
    "Humanoid-v5": TaskFunctions(
        lambda kwargs: CONTACT, when_unhealthy(humanoid_healthy), costs_and_health(0.1, humanoid_healthy, 5.0), action_scale=0.4
    ),
    "Reacher-v5": TaskFunctions(reacher_reward),
    "Pusher-v5": TaskFunctions(pusher_reward, action_scale=2.0),
    "Pendulum-v1": TaskFunctions(pendulum_reward, action_scale=2.0),
    "CartPole-v1": TaskFunctions(cartpole_reward, lambda kwargs: cartpole_fell),
    "MountainCarContinuous-v0": TaskFunctions(mountain_car_reward, reached_goal(0.45)),
    "MountainCar-v0": TaskFunctions(lambda kwargs: lambda obs, action, next_obs: -torch.ones_like(next_obs[..., 0]), reached_goal(0.5)),
}
