"""Small Gymnasium environments: one that counts its steps, and one that returns the observations it is made with."""

import gymnasium
import numpy as np
import torch
from gymnasium import spaces


class StepCounter(gymnasium.Env):
    """Observes episode, step and action. Terminates at step `length`, one later in odd episodes, and is truncated at step `cut`."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)

    def __init__(self, index: int = 0, length: int = 3, cut: int = 4, dictionary: bool = False) -> None:
        self.index, self.length, self.cut, self.episode, self.count = index, length, cut, 0, 0
        self.action_space = spaces.Box(-1, 1, (1,))
        self.dictionary = dictionary
        if dictionary:
            self.observation_space = spaces.Dict({"who": spaces.Discrete(4), "what": StepCounter.observation_space})

    def _obs(self, action: float) -> object:
        what = np.array([self.episode, self.count, action])
        return {"who": self.index, "what": what} if self.dictionary else what

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.episode, self.count = self.episode + 1, 0
        return self._obs(self.np_random.random()), {}

    def step(self, action: np.ndarray) -> tuple:
        self.count += 1
        terminated, truncated = self.count == self.length + self.episode % 2, self.count == self.cut
        return self._obs(action[0]), 10 * self.episode + self.count, terminated, truncated, {}


class ScriptedEnv(gymnasium.Env):
    """Takes no argument, not even a render mode; observes `script`, its first entry on reset, then one per step."""

    observation_space = spaces.Box(-1, 1, (3,))
    action_space = spaces.Box(-1, 1, (1,))
    script: tuple = (np.zeros(3),)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.remaining = iter(self.script)
        return next(self.remaining), {}

    def step(self, action: np.ndarray) -> tuple:
        return next(self.remaining, self.script[-1]), 0.0, False, False, {}


class Steering(gymnasium.Env):
    """A point in the plane, steered by two discrete actions at once: left, nothing or right, and down or up; rewards are higher near 0.

    Twelve steps of length 0.25. The actions are a MultiDiscrete, or with `box` a Box of the same whole numbers.
    """

    observation_space = spaces.Box(-5, 5, (2,))

    def __init__(self, box: bool = False) -> None:
        whole = spaces.Box(np.array([-1, 0]), np.array([1, 1]), dtype=np.int64)
        self.action_space = whole if box else spaces.MultiDiscrete([3, 2], start=[-1, 0])

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.point, self.count = self.np_random.uniform(-1, 1, 2), 0
        return self.point.astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple:
        assert self.action_space.contains(action)
        self.point = self.point + 0.25 * np.array([action[0], 2 * action[1] - 1])
        self.count += 1
        return self.point.astype(np.float32), -float(np.square(self.point).sum()), False, self.count == 12, {}


gymnasium.register("Steering-v0", entry_point=Steering)
gymnasium.register("SteeringBox-v0", entry_point=Steering, kwargs={"box": True})


def steering_reward(obs: torch.Tensor, action: torch.Tensor, next_obs: torch.Tensor) -> torch.Tensor:
    """The reward of `Steering`, for models that need not learn it."""
    return -next_obs.square().sum(-1)
