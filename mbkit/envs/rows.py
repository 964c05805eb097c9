"""Steps of single environments, and of a user's vector environment in any autoreset mode, as rows of the same form.

Letters: M environments, O observation.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from mbkit.envs.checking import CRASHES, FLAGS, NUMBERS, Fault, column, flag, outline, reset_obs, reward_number, step_parts
from mbkit.envs.seeds import LIMIT, task_seed, task_seeds
from mbkit.envs.spaces import Array, Misfit, ObservationMap
from mbkit.errors import UserError

Mask = NDArray[np.bool_]


class RawStep(NamedTuple):
    """One step of M environments, unchecked."""

    obs: Array  # float32 [M, O] the policy's next input; the same array as next_obs where no episode ended
    reward: Array  # float64 [M]
    next_obs: Array  # float32 [M, O] the true successor
    terminated: Mask  # [M]
    truncated: Mask  # [M]
    valid: Mask  # [M] False where the environment was only reset


class SingleEnvs:
    """Single environments, stepped in turn; an environment is reset in the step that ends its episode."""

    def __init__(self, envs: list[gymnasium.Env[Any, Any]], observation: ObservationMap) -> None:
        self.envs, self.num_envs, self.observation = envs, len(envs), observation
        self.valid = np.ones(len(envs), np.bool_)
        self.render_mode = envs[0].render_mode

    def reset(self, seed: int | None) -> Array:
        """Begin new episodes everywhere -> obs [M, O]; environment i is seeded with seed + i, or not at all if `seed` is None."""
        obs = np.empty((self.num_envs, self.observation.dim), np.float32)
        for i, number in enumerate(task_seeds(seed, self.num_envs)):
            obs[i] = self._reset(i, number)
        return obs

    def _reset(self, i: int, seed: int | None = None) -> Array:
        try:
            result = self.envs[i].reset(seed=seed)
        except CRASHES as error:
            raise Fault(i, "reset") from error
        return self._row(i, reset_obs(result, i))

    def _row(self, i: int, raw: Any) -> Array:
        """The vector [O] of an observation of environment i."""
        try:
            return self.observation(raw)
        except Misfit as error:
            raise Fault(i, "observation", error.text) from error

    def step(self, action: Array) -> RawStep:
        """One step of every environment with its native action, [M, ...]."""
        m = self.num_envs
        next_obs = np.empty((m, self.observation.dim), np.float32)
        reward, terminated, truncated = np.empty(m), np.empty(m, np.bool_), np.empty(m, np.bool_)
        obs, ended = next_obs, []
        for i, env in enumerate(self.envs):
            try:
                result: Any = env.step(action[i])
            except CRASHES as error:
                raise Fault(i, "step") from error
            raw, paid, over, cut, _ = result if type(result) is tuple and len(result) == 5 else step_parts(result, i)
            if type(paid) not in NUMBERS:
                paid = reward_number(paid, i)
            if type(over) not in FLAGS or type(cut) not in FLAGS:
                over, cut = flag(over, "terminated", i), flag(cut, "truncated", i)
            try:
                next_obs[i], reward[i], terminated[i], truncated[i] = self.observation(raw), paid, over, cut
            except Misfit as error:
                raise Fault(i, "observation", error.text) from error
            except OverflowError as error:  # an integer of hundreds of digits
                raise Fault(i, "reward", f"expected a number, got {outline(paid)}") from error
            if over or cut:
                ended.append(i)
        if ended:
            obs = next_obs.copy()
        for i in ended:
            obs[i] = self._reset(i)
        return RawStep(obs, reward, next_obs, terminated, truncated, self.valid)

    def render(self) -> Any:
        """What environment 0 renders."""
        return self.envs[0].render()

    def close(self) -> None:
        """Close every environment, also behind one whose `close` raises an exception."""
        close_all(self.envs)


def close_all(envs: Sequence[gymnasium.Env[Any, Any]]) -> None:
    """Close every environment, also behind one whose `close` raises an exception."""
    raised: dict[int, BaseException] = {}
    for i, env in enumerate(envs):
        try:
            env.close()
        except CRASHES as error:
            raised[i] = error
    for i, exception in raised.items():
        raise Fault(i, "close") from exception


class VectorRows:
    """A user's vector environment in any autoreset mode; `name` is for messages."""

    def __init__(self, vector: VectorEnv[Any, Any, Any], observation: ObservationMap, name: str) -> None:
        self.vector, self.observation, self.name = vector, observation, name
        self.num_envs, self.render_mode = vector.num_envs, vector.render_mode
        self.mode = _autoreset_mode(vector, name)
        self.pending = np.zeros(self.num_envs, np.bool_)  # NEXT_STEP: the next step only resets these

    @property
    def envs(self) -> list[gymnasium.Env[Any, Any]]:
        """The single environments inside; empty if they run in other processes or as arrays."""
        return list(getattr(self.vector.unwrapped, "envs", ()))

    def reset(self, seed: int | None) -> Array:
        """Begin new episodes everywhere -> obs [M, O]; environment i is seeded with seed + i."""
        self.pending = np.zeros(self.num_envs, np.bool_)
        return self._reset(seed=vector_seed(seed, self.num_envs))

    def _reset(self, **arguments: Any) -> Array:
        try:
            result = self.vector.reset(**arguments)
        except CRASHES as error:
            raise Fault(None, "reset") from error
        return self._stack(reset_obs(result))

    def step(self, action: Array) -> RawStep:
        """One step of every environment with its native action, [M, ...]."""
        try:
            result = self.vector.step(action)
        except CRASHES as error:
            raise Fault(None, "step") from error
        raw, paid, over, cut, info = step_parts(result)
        obs = next_obs = self._stack(raw)
        reward = column(paid, "reward", self.num_envs, float)
        terminated, truncated = column(over, "terminated", self.num_envs, bool), column(cut, "truncated", self.num_envs, bool)
        ended, valid = terminated | truncated, ~self.pending
        if self.mode is AutoresetMode.NEXT_STEP:
            self.pending = ended
        elif ended.any() and self.mode is AutoresetMode.SAME_STEP:
            next_obs = self._final(obs, info, ended)
        elif ended.any():
            obs = np.where(ended[:, None], self._reset(options={"reset_mask": ended.copy()}), next_obs)
        return RawStep(obs, reward, next_obs, terminated, truncated, valid)

    def _stack(self, raw: Any) -> Array:
        try:
            return self.observation.stack(self.vector.observation_space, raw)
        except Misfit as error:
            raise Fault(None, "observation", error.text) from error

    def _final(self, obs: Array, info: dict[str, Any], ended: Mask) -> Array:
        """The true successors [M, O]; `obs` has reset observations where an episode ended."""
        if "final_obs" not in info:
            raise UserError(
                f"vector environment {self.name} in SAME_STEP mode ended an episode: expected info['final_obs'], got {sorted(info)}"
            )
        successors = obs.copy()
        for i in np.flatnonzero(ended):
            successors[i] = self.observation(info["final_obs"][i])
        return successors

    def render(self) -> Any:
        """What environment 0 renders."""
        frames: Sequence[Any] | None = self.vector.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Close the vector environment."""
        try:
            self.vector.close()
        except CRASHES as error:
            raise Fault(None, "close") from error


def vector_seed(seed: int | None, count: int) -> int | None:
    """What a vector environment is seeded with; it counts from there itself, up to the last seed that tasks take."""
    return None if seed is None else min(task_seed(seed), LIMIT - count)


def _autoreset_mode(vector: VectorEnv[Any, Any, Any], name: str) -> AutoresetMode:
    """The mode in the vector environment's metadata; UserError if there is none, since a wrong guess would corrupt rows silently."""
    published = vector.metadata.get("autoreset_mode")
    for mode in AutoresetMode:
        if published in (mode, mode.value, mode.name):
            return mode
    modes = ", ".join(f"AutoresetMode.{mode.name}" for mode in AutoresetMode)
    raise UserError(f"metadata['autoreset_mode'] of vector environment {name}: expected one of {modes}, got {published!r}")
