"""Small Gymnasium environments: one that counts its steps, and one that returns the observations it is made with."""

import gymnasium
import numpy as np
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
