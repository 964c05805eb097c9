"""The boundary: whatever Gymnasium does inside, outside there are float32 tensors, [-1, 1] actions and true successors.

Letters: M environments, O observation, A action.
"""

import math
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from mbkit.envs import snapshot
from mbkit.envs.rows import Rows, SingleEnvs, VectorRows
from mbkit.envs.spaces import ActionMap, Array, ObservationMap
from mbkit.errors import UserError
from mbkit.types import EnvSpec, State


class NoRenderer(UserError):
    """No picture can be made here: the run goes on without video and says why."""


class EnvStep(NamedTuple):
    """One step of M environments. `obs` is the same tensor as `next_obs` where no episode ended: read it, don't write it."""

    obs: Tensor  # [M, O] what the policy sees next: already the reset observation where an episode ended
    reward: Tensor  # [M]
    next_obs: Tensor  # [M, O] the true successor
    terminated: Tensor  # bool [M]
    truncated: Tensor  # bool [M], False where terminated


class Environment:
    """M copies of one task, on the CPU; made by `make` and `wrap`.

    `seed` is for the first reset (environment i gets seed + i); `dt` is the seconds a step simulates, where the task says so.
    """

    def __init__(self, name: str, source: SingleEnvs | VectorRows, action: ActionMap, obs_dim: int, seed: int = 0) -> None:
        self.name, self.num_envs, self.envs, self.seed = name, source.num_envs, source.envs, seed
        self.spec = EnvSpec(obs_dim, action.dim, torch.device("cpu"), action.discrete)
        self.max_episode_steps: int | None = None
        self.dt: float | None = None
        self.obs: Tensor | None = None  # [M, O] what the policy sees now
        self.valid = torch.ones(self.num_envs, dtype=torch.bool)  # [M] False: the last step only reset it, drop the row
        self.steps = 0
        self._source, self._action, self._seeded = source, action, False
        self._action_shape = (self.num_envs, *action.row)

    def reset(self, seed: int | None = None) -> Tensor:
        """Begin new episodes everywhere -> obs [M, O]. Without a seed, the first call takes the environment's own and later calls none."""
        rows = self._source.reset(self.seed if seed is None and not self._seeded else seed)
        self._seeded = True
        if not np.isfinite(rows).all():
            self._not_finite("observation", rows, "on reset")
        self.valid = torch.ones(self.num_envs, dtype=torch.bool)
        self.obs = torch.from_numpy(rows)
        return self.obs

    def step(self, action: Tensor) -> EnvStep:
        """Act with [M, A] in [-1, 1], or int64 [M]; ended episodes begin anew. Numbers that are not finite raise UserError."""
        if action.shape != self._action_shape:
            raise UserError(f"action for {self.name}: expected shape {self._action_shape}, got {tuple(action.shape)}")
        rows = self._source.step(self._action(action))
        self.steps += 1
        self._check(rows)
        next_obs = torch.from_numpy(rows.next_obs)
        self.obs = next_obs if rows.obs is rows.next_obs else torch.from_numpy(rows.obs)
        self.valid = torch.from_numpy(rows.valid)
        return EnvStep(
            self.obs,
            torch.from_numpy(rows.reward.astype(np.float32)),
            next_obs,
            torch.from_numpy(rows.terminated),
            torch.from_numpy(rows.truncated & ~rows.terminated),
        )

    def native_action(self, action: Tensor) -> Array:
        """Actions [..., A] in [-1, 1] (or int64 [...]) -> exactly what a single environment's `step` would be given."""
        return self._action(action)

    def render(self) -> NDArray[np.uint8]:
        """A picture of environment 0, uint8 [height, width, 3]; NoRenderer where there is none to be had."""
        if self._source.render_mode is None:
            raise NoRenderer(f"{self.name} was made without pictures: expected render_mode='rgb_array', got None")
        try:
            frame = self._source.render()
        except _drawing_errors() as error:
            raise NoRenderer(f"{self.name} cannot be rendered on this machine: {type(error).__name__}: {error}") from error
        if not isinstance(frame, np.ndarray):
            raise NoRenderer(f"{self.name} gives no picture: expected render_mode='rgb_array', got {self._source.render_mode!r}")
        return frame

    def close(self) -> None:
        """Release what the environments hold."""
        self._source.close()

    @property
    def restart_reason(self) -> str | None:
        """Why a checkpoint cannot hold this environment, so that loading one begins new episodes; None where it can."""
        try:
            snapshot.capture(self._source)
        except snapshot.Unsavable as error:
            return f"{self.name} cannot be saved in mid-episode ({error}), so that going on from a checkpoint begins new episodes"
        return None

    def state_dict(self) -> State:
        """All the next step depends on: simulators, episode clocks, generators, the current observation."""
        try:
            inside: State | None = snapshot.capture(self._source)
        except snapshot.Unsavable:
            inside = None
        state: State = {"name": self.name, "num_envs": self.num_envs, "steps": self.steps, "seeded": self._seeded, "inside": inside}
        return state | {"obs": None if self.obs is None else self.obs.clone(), "valid": self.valid.clone()}

    def load_state_dict(self, state: State) -> None:
        """Go on where `state_dict` was taken, bit for bit; where `restart_reason` is given, with new episodes."""
        for key, here in (("name", self.name), ("num_envs", self.num_envs)):
            if state.get(key) != here:
                raise UserError(f"environment state does not fit: expected {key} {here!r}, got {state.get(key)!r}")
        self.steps = state["steps"]
        if state["inside"] is None:
            fresh = np.random.SeedSequence((self.seed, self.steps)).generate_state(1)[0]  # never the start of the run once more
            self.reset(seed=int(fresh) >> 1)
            return
        snapshot.restore(self._source, state["inside"])
        self._seeded, self.valid = state["seeded"], state["valid"].clone()
        self.obs = None if state["obs"] is None else state["obs"].clone()

    def _check(self, rows: Rows) -> None:
        for what, values in (("reward", rows.reward), ("observation", rows.next_obs)):
            if not np.isfinite(values).all():
                self._not_finite(what, values, f"at step {self.steps}")
        if rows.obs is not rows.next_obs and not np.isfinite(rows.obs).all():
            self._not_finite("observation", rows.obs, f"on the reset at step {self.steps}")

    def _not_finite(self, what: str, values: Array, when: str) -> NoReturn:
        culprit = int(np.flatnonzero(~np.isfinite(values).reshape(self.num_envs, -1).all(1))[0])
        raise UserError(f"{what} of {self.name} (environment {culprit}) {when}: expected finite numbers, got {values[culprit].tolist()}")


def _drawing_errors() -> tuple[type[Exception], ...]:
    """What Gymnasium, MuJoCo and OpenGL raise where they cannot draw; looked up only once something failed."""
    import mujoco

    broken_driver = (AttributeError, ImportError, OSError, RuntimeError)
    return (*broken_driver, gymnasium.error.Error, mujoco.FatalError, import_module("OpenGL.error").Error)


def single(name: str, envs: list[gymnasium.Env[Any, Any]], seed: int) -> Environment:
    """An Environment of M single environments of the same task."""
    first = envs[0]
    observation = ObservationMap(first.observation_space, name)
    for i, env in enumerate(envs):
        env.action_space.seed(seed + i)
        env.observation_space.seed(seed + i)
    environment = Environment(name, SingleEnvs(envs, observation), ActionMap(first.action_space, name), observation.dim, seed)
    environment.max_episode_steps = _limit(first)
    environment.dt = _seconds(first)
    return environment


def wrap(vector_env: VectorEnv[Any, Any, Any], seed: int = 0) -> Environment:
    """An Environment of a user's own vector environment, in NEXT_STEP, SAME_STEP or DISABLED mode: the rows are the same in each.

    Under NEXT_STEP a reset takes a step of its own: that row has `valid` False and belongs in no buffer.
    """
    if not isinstance(vector_env, VectorEnv):
        raise UserError(f"mbkit.envs.wrap: expected a gymnasium.vector.VectorEnv, got {type(vector_env).__name__}")
    spec = vector_env.spec
    name = type(vector_env.unwrapped).__name__ if spec is None else spec.id
    observation = ObservationMap(vector_env.single_observation_space, name)
    source = VectorRows(vector_env, observation, name)
    environment = Environment(name, source, ActionMap(vector_env.single_action_space, name), observation.dim, seed)
    first = source.envs[0] if source.envs else None
    environment.max_episode_steps = _limit(first or vector_env)
    environment.dt = _seconds(first or vector_env)
    return environment


def _limit(env: Any) -> int | None:
    """Steps after which an episode is cut: Gymnasium's time limit, or dm_control's own."""
    if env.spec is not None and env.spec.max_episode_steps is not None:
        return int(env.spec.max_episode_steps)
    own = getattr(getattr(env.unwrapped, "_env", None), "_step_limit", math.inf)
    return math.ceil(own) if math.isfinite(own) else None


def _seconds(env: Any) -> float | None:
    """Simulated seconds per step: MujocoEnv, Pendulum and Acrobot call it dt, CartPole tau."""
    dt = getattr(env.unwrapped, "dt", None) or getattr(env.unwrapped, "tau", None)
    return None if dt is None else float(dt)
