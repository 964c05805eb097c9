"""Environments as agents use them: float32 tensors, actions in [-1, 1] and true successors, whatever Gymnasium's interface does.

Letters: M environments, O observation, A action.
"""

import logging
import math
from copy import deepcopy
from importlib import import_module
from numbers import Real
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, Self

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from mbkit.envs import snapshot, statistics
from mbkit.envs.checking import CRASHES, FLOAT32_MAX, Fault
from mbkit.envs.dimensions import dimension_names
from mbkit.envs.rows import RawStep, SingleEnvs, VectorRows
from mbkit.envs.seeds import task_seed
from mbkit.envs.spaces import ActionMap, Array, ObservationMap
from mbkit.errors import UserError, crashed
from mbkit.types import EnvSpec, State

log = logging.getLogger("mbkit")


class NoRenderer(UserError):
    """No image can be rendered here; the run continues without video and reports the reason."""


class EnvStep(NamedTuple):
    """One step of M environments. Where no episode ended `obs` and `next_obs` are the same tensor, so don't write into it."""

    obs: Tensor  # [M, O] the policy's next input: the reset observation where an episode ended
    reward: Tensor  # [M]
    next_obs: Tensor  # [M, O] the true successor
    terminated: Tensor  # bool [M]
    truncated: Tensor  # bool [M], False where terminated


class Environment:
    """M copies of one task, on the CPU; made by `make` and `wrap`.

    The first reset seeds environment i with `seed` + i; `dt` is the simulated time of a step in seconds, None if the task has none.
    """

    def __init__(self, name: str, source: SingleEnvs | VectorRows, action: ActionMap, obs_dim: int, seed: int = 0) -> None:
        self.name, self.num_envs, self.envs, self.seed = name, source.num_envs, source.envs, seed
        self.spec = EnvSpec(obs_dim, action.dim, torch.device("cpu"), action.discrete, action.parts)
        self.max_episode_steps: int | None = None
        self.dt: float | None = None
        self.obs: Tensor | None = None  # [M, O] the current observation
        self.valid = torch.ones(self.num_envs, dtype=torch.bool)  # [M] False where the last step was only a reset: its row is to be dropped
        self.steps = 0
        self._source, self._action, self._seeded = source, action, False
        self._closed = False
        self._restarted: str | None = None  # why the last `load_state_dict` began new episodes
        self._action_shape = (self.num_envs, *action.row)

    def reset(self, seed: int | None = None) -> Tensor:
        """Begin new episodes everywhere -> obs [M, O]. Without an argument the first call uses `self.seed`, and later calls no seed."""
        try:
            rows = self._source.reset(self.seed if seed is None and not self._seeded else seed)
        except Fault as fault:
            raise fault.named(self.name, "on reset") from fault.__cause__
        self._seeded = True
        if not np.isfinite(rows).all():
            self._not_finite("observation", rows, "on reset")
        self.valid = torch.ones(self.num_envs, dtype=torch.bool)
        self.obs = torch.from_numpy(rows)
        return self.obs

    def step(self, action: Tensor) -> EnvStep:
        """Act with [M, A] in [-1, 1], or int64 [M]; ended episodes are reset. Numbers that are not finite raise UserError."""
        if action.shape != self._action_shape:
            raise UserError(f"action for {self.name}: expected shape {self._action_shape}, got {tuple(action.shape)}")
        native = self._action(action)
        try:
            rows = self._source.step(native)
        except Fault as fault:
            raise fault.named(self.name, f"at step {self.steps + 1}") from fault.__cause__
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

    @property
    def dimension_names(self) -> list[str]:
        """What the numbers of an observation are called, O of them."""
        return dimension_names(self.name, self.envs[0].observation_space)

    def native_action(self, action: Tensor) -> Array:
        """Actions [..., A] in [-1, 1] (or int64 [...]) -> the same in the units and type of Gymnasium's `step`."""
        return self._action(action)

    def render(self) -> NDArray[np.uint8]:
        """An image of environment 0, uint8 [height, width, 3]; NoRenderer where none can be rendered."""
        if self._source.render_mode is None:
            raise NoRenderer(f"{self.name} was made without a renderer: expected render_mode='rgb_array', got None")
        try:
            frame = self._source.render()
        except _rendering_errors() as error:
            raise NoRenderer(f"{self.name} cannot be rendered on this machine: {type(error).__name__}: {error}") from error
        except CRASHES as error:
            raise crashed(f"render of {self.name}", error) from error
        if not isinstance(frame, np.ndarray):
            raise NoRenderer(f"{self.name} renders no image: expected render_mode='rgb_array', got {self._source.render_mode!r}")
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise NoRenderer(f"{self.name} renders no image: expected uint8 [height, width, 3], got {frame.dtype} {list(frame.shape)}")
        return frame

    def close(self) -> None:
        """Close the environments; a second call does nothing. UserCodeError where the task's own `close` raises an exception."""
        if self._closed:
            return
        self._closed = True
        try:
            self._source.close()
        except Fault as fault:
            raise fault.named(self.name) from fault.__cause__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the environments; an exception of the task's own `close` is logged, so that no result is lost to it."""
        try:
            self.close()
        except UserError as failed:
            log.warning("%s", failed, exc_info=failed.__cause__)

    @property
    def vector(self) -> VectorEnv[Any, Any, Any] | None:
        """The user's vector environment, where this was made by `wrap`."""
        return getattr(self._source, "vector", None)

    @property
    def restart_reason(self) -> str | None:
        """Why loading a checkpoint begins new episodes: this environment cannot be saved, or the last state not be restored; or None."""
        return self._restarted or self._capture()[1]

    def state_dict(self) -> State:
        """Everything that the next step depends on: simulator states, elapsed steps, random generators, the current observation."""
        inside, reason = self._capture()
        state: State = {"name": self.name, "num_envs": self.num_envs, "steps": self.steps, "seeded": self._seeded, "inside": inside}
        state |= {"reason": reason, "statistics": self.statistics()}
        return state | {"obs": None if self.obs is None else self.obs.clone(), "valid": self.valid.clone()}

    def _capture(self) -> tuple[State | None, str | None]:
        """The state inside, or why there is none."""
        try:
            return snapshot.capture(self._source), None
        except snapshot.Unsavable as error:
            return None, f"{self.name} cannot be saved in mid-episode ({error}), so that resuming from a checkpoint begins new episodes"

    def load_state_dict(self, state: State) -> None:
        """Continue bit for bit from where `state_dict` was called; with new episodes if there is a `restart_reason`."""
        for key, expected in (("name", self.name), ("num_envs", self.num_envs)):
            if state.get(key) != expected:
                raise UserError(f"environment state does not fit: expected {key} {expected!r}, got {state.get(key)!r}")
        self.steps, self._restarted = state["steps"], state["reason"]
        if state["inside"] is not None:
            try:
                snapshot.restore(self._source, state["inside"])
            except snapshot.Unsavable as error:
                self._restarted = f"{self.name} cannot be restored in mid-episode ({error}), so that new episodes began"
        if self._restarted is not None:
            self.set_statistics(state["statistics"], frozen=False)
            seed = np.random.SeedSequence((self.seed, self.steps)).generate_state(1)[0]  # other episodes than at the start of the run
            self.reset(seed=int(seed) >> 1)
            return
        self._seeded, self.valid = state["seeded"], state["valid"].clone()
        self.obs = None if state["obs"] is None else state["obs"].clone()

    def statistics(self) -> State:
        """Running means and variances of wrappers such as Gymnasium's NormalizeObservation and NormalizeReward, for `set_statistics`."""
        return statistics.collect(self._source)

    def set_statistics(self, state: State, frozen: bool = True) -> None:
        """Normalise as the environment whose `statistics` these are; environment i takes those of environment i modulo their number.

        Args:
            state: of `statistics` of an environment of the same task.
            frozen: they do not change any more, as in evaluation, where Gymnasium's wrapper can do so.

        Raises:
            UserError: the wrappers of the two environments differ.
        """
        statistics.assign(self._source, state, frozen, self.name)

    def _check(self, rows: RawStep) -> None:
        if not (np.abs(rows.reward) <= FLOAT32_MAX).all():  # False for NaN
            self._not_finite("reward", rows.reward, f"at step {self.steps}")
        if not np.isfinite(rows.next_obs).all():
            self._not_finite("observation", rows.next_obs, f"at step {self.steps}")
        if rows.obs is not rows.next_obs and not np.isfinite(rows.obs).all():
            self._not_finite("observation", rows.obs, f"on the reset at step {self.steps}")

    def _not_finite(self, what: str, values: Array, when: str) -> NoReturn:
        culprit = int(np.flatnonzero(~(np.abs(values) <= FLOAT32_MAX).reshape(self.num_envs, -1).all(1))[0])
        expected = "expected finite numbers" if not np.isfinite(values[culprit]).all() else "expected numbers within float32"
        raise UserError(f"{what} of {self.name} (environment {culprit}) {when}: {expected}, got {values[culprit].tolist()}")


def _rendering_errors() -> tuple[type[Exception], ...]:
    """The exceptions of Gymnasium, MuJoCo and OpenGL where they cannot render; called only once one was raised."""
    import mujoco

    broken_driver = (AttributeError, ImportError, OSError, RuntimeError)
    return (*broken_driver, gymnasium.error.Error, mujoco.FatalError, import_module("OpenGL.error").Error)


def single(name: str, envs: list[gymnasium.Env[Any, Any]], seed: int) -> Environment:
    """An Environment of M single environments of the same task."""
    first = envs[0]
    observation = ObservationMap(getattr(first, "observation_space", None), name)
    action = ActionMap(getattr(first, "action_space", None), name)
    for i, env in enumerate(envs):
        separate_spaces(env.unwrapped)
        env.action_space.seed(task_seed(seed + i))
        env.observation_space.seed(task_seed(seed + i))
    environment = Environment(name, SingleEnvs(envs, observation), action, observation.dim, seed)
    environment.max_episode_steps = _limit(first)
    environment.dt = _seconds(first)
    return environment


def separate_spaces(task: Any) -> None:
    """Give a task copies of spaces that are attributes of its class, so that seeding them does not touch those of other environments."""
    for name in ("action_space", "observation_space"):
        shared = next((vars(cls)[name] for cls in type(task).__mro__ if name in vars(cls)), None)
        if name not in vars(task) and isinstance(shared, gymnasium.Space):
            setattr(task, name, deepcopy(shared))


def wrap(vector_env: VectorEnv[Any, Any, Any], seed: int = 0) -> Environment:
    """An Environment of a user's vector environment; in each autoreset mode (NEXT_STEP, SAME_STEP, DISABLED) its steps are the same.

    In NEXT_STEP mode a reset takes a step of its own: its row has `valid` False and must not be stored in a buffer.
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
    """Steps after which an episode is truncated: Gymnasium's time limit, or dm_control's."""
    if env.spec is not None and env.spec.max_episode_steps is not None:
        return int(env.spec.max_episode_steps)
    limit = getattr(getattr(env.unwrapped, "_env", None), "_step_limit", math.inf)
    return math.ceil(limit) if math.isfinite(limit) else None


def _seconds(env: Any) -> float | None:
    """Simulated seconds per step: MujocoEnv, Pendulum and Acrobot call it dt, CartPole tau; None where that is no positive number."""
    for name in ("dt", "tau"):
        try:
            seconds = getattr(env.unwrapped, name, None)
        except Exception:  # a property of the task's, which means something else by the name
            continue
        if isinstance(seconds, Real) and 0 < float(seconds) < math.inf:
            return float(seconds)
    return None
