"""Half-cheetah: run to the right as fast as possible.

Observation: the mean forward speed of the last step (m/s), height z, pitch and six joint angles, then the velocities of x and of
these. Action: [-1, 1], one per joint. The body is Gymnasium's `half_cheetah.xml`.
"""

from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from mbkit.envs.benchmarks.base import Array, BenchmarkEnv, Task


def preprocess(obs: Tensor) -> Tensor:
    """[..., 18] -> [z, sin pitch, cos pitch, joints, velocities], [..., 18]; the last step's speed does not affect the next step."""
    pitch = obs[..., 2:3]
    return torch.cat([obs[..., 1:2], pitch.sin(), pitch.cos(), obs[..., 3:]], -1)


class HalfCheetah(BenchmarkEnv):
    """Running, 0.05 s per action."""

    path: ClassVar[str] = "half_cheetah.xml"
    skip: ClassVar[int] = 5
    obs_dim: ClassVar[int] = 18

    @staticmethod
    def edit(spec: mujoco.MjSpec) -> None:
        """Set bright colours, and a camera that follows."""
        camera = spec.camera("track")
        camera.name, camera.pos = "view", [0.3, -3.4, 0.1]
        spec.texture("texplane").rgb1, spec.texture("texplane").rgb2 = [0.42, 0.48, 0.55], [0.36, 0.42, 0.49]
        for texture in spec.textures:
            if texture.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX:
                texture.rgb1, texture.rgb2 = [0.86, 0.91, 0.96], [0.53, 0.66, 0.80]

    @staticmethod
    def observe(before: Tensor, qpos: Tensor, qvel: Tensor, dt: float) -> Tensor:
        """[..., 18]."""
        speed = (qpos[..., :1] - before[..., :1]) / dt
        return torch.cat([speed, qpos[..., 1:], qvel], -1)

    @staticmethod
    def reward(action: Tensor, next_obs: Tensor) -> Tensor:
        """Forward speed over the step - 0.1 |a|^2."""
        return next_obs[..., 0] - 0.1 * action.square().sum(-1)

    def start(self) -> tuple[Array, Array]:
        """Standing; U(-0.1, 0.1) is added to every position and N(0, 0.1) to every velocity, 0.1 the standard deviation."""
        qpos = self.init_qpos + self.np_random.uniform(-0.1, 0.1, self.model.nq)
        return qpos, self.init_qvel + 0.1 * self.np_random.standard_normal(self.model.nv)


TASK = Task(HalfCheetah, horizon=1000, action_high=1.0, preprocess=preprocess, absolute=(0,))
