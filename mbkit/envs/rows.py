"""Steps of single environments, and of a user's vector environment in any autoreset mode, as rows of the same form.

Letters: M environments, O observation.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from mbkit.envs.spaces import Array, ObservationMap
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
        for i, env in enumerate(self.envs):
            obs[i] = self.observation(env.reset(seed=None if seed is None else seed + i)[0])
        return obs

    def step(self, action: Array) -> RawStep:
        """One step of every environment with its native action, [M, ...]."""
        m = self.num_envs
        next_obs = np.empty((m, self.observation.dim), np.float32)
        reward, terminated, truncated = np.empty(m), np.empty(m, np.bool_), np.empty(m, np.bool_)
        obs, ended = next_obs, []
        for i, env in enumerate(self.envs):
            raw, reward[i], over, cut, _ = env.step(action[i])
            next_obs[i], terminated[i], truncated[i] = self.observation(raw), over, cut
            if over or cut:
                ended.append(i)
        if ended:
            obs = next_obs.copy()
        for i in ended:
            obs[i] = self.observation(self.envs[i].reset()[0])
        return RawStep(obs, reward, next_obs, terminated, truncated, self.valid)

    def render(self) -> Any:
        """What environment 0 renders."""
        return self.envs[0].render()

    def close(self) -> None:
        """Close every environment."""
        close_all(self.envs)


def close_all(envs: Sequence[gymnasium.Env[Any, Any]]) -> None:
    """Close every environment, also where one of them fails to."""
    with ExitStack() as opened:
        for env in envs:
            opened.callback(env.close)


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
        return self._stack(self.vector.reset(seed=seed)[0])

    def step(self, action: Array) -> RawStep:
        """One step of every environment with its native action, [M, ...]."""
        raw, reward, terminated, truncated, info = self.vector.step(action)
        obs = next_obs = self._stack(raw)
        terminated, truncated = np.array(terminated, np.bool_), np.array(truncated, np.bool_)
        ended, valid = terminated | truncated, ~self.pending
        if self.mode is AutoresetMode.NEXT_STEP:
            self.pending = ended
        elif ended.any() and self.mode is AutoresetMode.SAME_STEP:
            next_obs = self._final(obs, info, ended)
        elif ended.any():
            obs = np.where(ended[:, None], self._stack(self.vector.reset(options={"reset_mask": ended.copy()})[0]), next_obs)
        return RawStep(obs, np.array(reward, np.float64), next_obs, terminated, truncated, valid)

    def _stack(self, raw: Any) -> Array:
        return self.observation.stack(self.vector.observation_space, raw)

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
        self.vector.close()


def _autoreset_mode(vector: VectorEnv[Any, Any, Any], name: str) -> AutoresetMode:
    """The mode in the vector environment's metadata; UserError if there is none, since a wrong guess would corrupt rows silently."""
    published = vector.metadata.get("autoreset_mode")
    for mode in AutoresetMode:
        if published in (mode, mode.value, mode.name):
            return mode
    modes = ", ".join(f"AutoresetMode.{mode.name}" for mode in AutoresetMode)
    raise UserError(f"metadata['autoreset_mode'] of vector environment {name}: expected one of {modes}, got {published!r}")
