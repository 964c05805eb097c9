"""Pusher: push a cylinder on a table to a goal with a seven-joint arm.

Observation: joint angles (rad) and velocities, position of the wrist and of the object (m). Action: torques in [-2, 2] Nm.
"""

from typing import ClassVar

import mujoco
import numpy as np
import torch
from torch import Tensor

from mbkit.envs.benchmarks import arm
from mbkit.envs.benchmarks.base import Array, BenchmarkEnv, Task

GOAL = (0.45, -0.05, -0.323)  # m, goal position on the table
OBJECT_Z = -0.275  # m, height of the object


class Pusher(BenchmarkEnv):
    """Pushing, 0.04 s per action."""

    path: ClassVar[str] = arm.PATH
    skip: ClassVar[int] = 4
    obs_dim: ClassVar[int] = 20

    @staticmethod
    def edit(spec: mujoco.MjSpec) -> None:
        """Fix the goal to the table, at the paper's position."""
        arm.dress(spec)
        for joint in list(spec.body("goal").joints):
            spec.delete(joint)

    @staticmethod
    def observe(before: Tensor, qpos: Tensor, qvel: Tensor, dt: float) -> Tensor:
        """[..., 20]."""
        slide_y, slide_x = qpos[..., 7], qpos[..., 8]
        thing = torch.stack([slide_x + GOAL[0], slide_y + GOAL[1], torch.full_like(slide_x, OBJECT_Z)], -1)
        return torch.cat([qpos[..., :7], qvel[..., :7], arm.hand(qpos), thing], -1)

    @staticmethod
    def reward(action: Tensor, next_obs: Tensor) -> Tensor:
        """-0.5 |wrist - object|_1 - 1.25 |goal - object|_1 - 0.1 |a|^2."""
        wrist, thing = next_obs[..., 14:17], next_obs[..., 17:]
        goal = torch.stack([thing.new_full(thing.shape[:-1], g) for g in GOAL], -1)
        return -0.5 * (wrist - thing).abs().sum(-1) - 1.25 * (goal - thing).abs().sum(-1) - 0.1 * action.square().sum(-1)

    def start(self) -> tuple[Array, Array]:
        """Arm stretched out, nearly at rest; the object 0.17 m or more from the goal, up to 0.3 m nearer to the arm."""
        qpos, qvel = self.init_qpos.copy(), self.init_qvel.copy()
        while True:
            place = self.np_random.uniform([-0.3, -0.2], [0.0, 0.2])  # y and x of the object relative to the goal
            if np.linalg.norm(place) > 0.17:
                break
        qpos[7:] = place
        qvel[:7] = self.np_random.uniform(-0.005, 0.005, 7)
        return qpos, qvel


TASK = Task(Pusher, horizon=150, action_high=2.0)
