"""Reacher in three dimensions: move the fingertip of a seven-joint arm to a goal in the air, which differs between episodes.

Observation: joint angles (rad) and velocities, goal position (m). Action: torques in [-20, 20] Nm.
"""

from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from mbkit.envs.benchmarks import arm
from mbkit.envs.benchmarks.base import Array, BenchmarkEnv, Task

FINGERTIP = 0.1  # m in front of the wrist, in the middle of the fork
CENTRE = (0.5, -0.2, 0.1)  # m, mean position of goals


class Reacher(BenchmarkEnv):
    """Reaching, 0.02 s per action."""

    path: ClassVar[str] = arm.PATH
    skip: ClassVar[int] = 2
    obs_dim: ClassVar[int] = 17

    @staticmethod
    def edit(spec: mujoco.MjSpec) -> None:
        """Strengthen the motors, and replace object and goal by a goal on three slide joints, so that the physics state contains it."""
        arm.dress(spec)
        for body in ("object", "goal"):
            spec.delete(spec.body(body))
        for motor in spec.actuators:
            motor.ctrlrange = [-20, 20]
        goal = spec.worldbody.add_body(name="goal")
        goal.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.04, 0, 0], rgba=[0.20, 0.75, 0.42, 0.8], contype=0, conaffinity=0)
        for name, axis in (("goal_x", [1, 0, 0]), ("goal_y", [0, 1, 0]), ("goal_z", [0, 0, 1])):
            goal.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis, limited=mujoco.mjtLimited.mjLIMITED_FALSE)

    @staticmethod
    def observe(before: Tensor, qpos: Tensor, qvel: Tensor, dt: float) -> Tensor:
        """[..., 17]."""
        return torch.cat([qpos[..., :7], qvel[..., :7], qpos[..., 7:]], -1)

    @staticmethod
    def reward(action: Tensor, next_obs: Tensor) -> Tensor:
        """-|fingertip - goal|^2 - 0.01 |a|^2."""
        gap = arm.hand(next_obs, FINGERTIP) - next_obs[..., 14:]
        return -gap.square().sum(-1) - 0.01 * action.square().sum(-1)

    def start(self) -> tuple[Array, Array]:
        """Arm stretched out, nearly at rest; N(0, 0.1) is added to each coordinate of the goal, 0.1 the standard deviation."""
        qpos, qvel = self.init_qpos.copy(), self.init_qvel.copy()
        qpos[7:] = CENTRE + 0.1 * self.np_random.standard_normal(3)
        qvel[:7] = self.np_random.uniform(-0.005, 0.005, 7)
        return qpos, qvel


TASK = Task(Reacher, horizon=150, action_high=20.0)
