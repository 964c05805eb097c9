"""Base class of the four tasks: a step whose observation and reward are pure functions of the physics state."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import mujoco
import numpy as np
import torch
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


class BenchmarkEnv(MujocoEnv):
    """A task on the MJCF file `path`, modified by `edit`; it never terminates.

    The observation is computed from joint positions and velocities, not from MuJoCo's body positions, which are one substep old; so the
    physics state determines the observation, and `observe` and `reward` apply to the environment's steps and to a batch of simulated ones.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"]}  # noqa: RUF012 as in Gymnasium
    path: ClassVar[str]  # absolute, or the name of one of Gymnasium's assets
    skip: ClassVar[int]  # physics steps per action
    obs_dim: ClassVar[int]

    def __init__(self, render_mode: str | None = None, camera_name: str | None = "view", **kwargs: Any) -> None:
        """`kwargs` (width, height, camera_id, ...) go to Gymnasium's MujocoEnv."""
        space = Box(-np.inf, np.inf, (self.obs_dim,), np.float64)
        super().__init__(self.path, self.skip, space, render_mode, camera_name=camera_name, **kwargs)
        self.metadata = {**self.metadata, "render_fps": round(1 / self.dt)}

    @staticmethod
    def edit(spec: mujoco.MjSpec) -> None:
        """Change the model of the file into that of the task, in place."""

    @staticmethod
    def observe(before: Tensor, qpos: Tensor, qvel: Tensor, dt: float) -> Tensor:
        """Observation [..., O] from positions before and after the action, both [..., Q], and velocities [..., V]; dt in seconds."""
        return torch.cat([qpos, qvel], -1)

    @staticmethod
    def reward(action: Tensor, next_obs: Tensor) -> Tensor:
        """The paper's cost, negated: [...] from actions [..., A] in the environment's units and observations after them [..., O]."""
        raise TypeError("a benchmark task defines its reward")

    def start(self) -> tuple[Array, Array]:
        """Positions and velocities of a new episode, drawn from `self.np_random`."""
        return self.init_qpos, self.init_qvel

    def step(self, action: NDArray[Any]) -> tuple[Array, np.float64, bool, bool, dict[str, np.float64]]:
        """Act with actions [A] in the environment's units -> observation [O], reward, False (terminated), False (truncated), empty info."""
        before = self.data.qpos.copy()
        self.do_simulation(action, self.frame_skip)
        obs = self._observe(before)
        reward = self.reward(torch.as_tensor(np.asarray(action, np.float64)), obs)
        if self.render_mode == "human":
            self.render()  # type: ignore[no-untyped-call]
        return obs.numpy(), np.float64(reward.item()), False, False, {}

    def reset_model(self) -> Array:
        """Begin an episode -> observation [O]."""
        self.set_state(*self.start())  # type: ignore[no-untyped-call]
        return self._observe(self.data.qpos).numpy()

    def _observe(self, before: Array) -> Tensor:
        qpos, qvel = torch.tensor(self.data.qpos), torch.tensor(self.data.qvel)
        return self.observe(torch.tensor(before), qpos, qvel, self.dt)

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        spec = mujoco.MjSpec.from_file(self.fullpath)
        self.edit(spec)
        mass, spec.compiler.settotalmass = spec.compiler.settotalmass, -1  # MuJoCo warns that it is deprecated: set below
        model = spec.compile()
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, self.width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, self.height)
        data = mujoco.MjData(model)
        if mass > 0:
            mujoco.mj_setTotalmass(model, mass)
            mujoco.mj_setConst(model, data)
            mujoco.mj_resetData(model, data)
        return model, data


@dataclass(frozen=True)
class Task:
    """A benchmark task: its environment, and the model inputs and targets of the paper."""

    env: type[BenchmarkEnv]
    horizon: int  # environment steps per episode
    action_high: float  # actions in [-1, 1] times this are the environment's
    preprocess: Callable[[Tensor], Tensor] | None = None  # obs [..., O] -> model input [..., I]
    absolute: tuple[int, ...] = ()  # observation dimensions whose next value is predicted, not its change
