"""Cart-pole swing-up: the pole hangs at first; the goal is its tip at rest 0.6 m above the middle of the rail.

Observation: cart position x (m), pole angle theta (rad, 0 hanging, unbounded), and their velocities. Action: [-3, 3], 8 N each.
"""

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from mbkit.envs.benchmarks.base import Array, BenchmarkEnv, Task

POLE = 0.6  # m, also the height of the target


def tip(obs: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical position (m) of the pole's tip, both [...], from obs [..., 4]; the rail is at height 0."""
    x, theta = obs[..., 0], obs[..., 1]
    return x - POLE * theta.sin(), -POLE * theta.cos()


def preprocess(obs: Tensor) -> Tensor:
    """[..., 4] -> [sin theta, cos theta, x, velocities], [..., 5], since the angle is unbounded."""
    theta = obs[..., 1:2]
    return torch.cat([theta.sin(), theta.cos(), obs[..., :1], obs[..., 2:]], -1)


class Cartpole(BenchmarkEnv):
    """Swing-up, 0.04 s per action."""

    path: ClassVar[str] = str(Path(__file__).with_name("cartpole.xml"))
    skip: ClassVar[int] = 2
    obs_dim: ClassVar[int] = 4

    @staticmethod
    def reward(action: Tensor, next_obs: Tensor) -> Tensor:
        """exp(-|tip - target|^2 / 0.6^2) - 0.01 |a|^2, at most 1 per step."""
        x, z = tip(next_obs)
        return (-(x.square() + (z - POLE).square()) / POLE**2).exp() - 0.01 * action.square().sum(-1)

    def start(self) -> tuple[Array, Array]:
        """Hanging at the middle of the rail; N(0, 0.1) is added to every coordinate, 0.1 the standard deviation."""
        return self.init_qpos + 0.1 * self.np_random.standard_normal(2), self.init_qvel + 0.1 * self.np_random.standard_normal(2)


TASK = Task(Cartpole, horizon=200, action_high=3.0, preprocess=preprocess)
