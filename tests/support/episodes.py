"""Episodes of known lengths and returns, and an actor that stands still in them."""

import gymnasium
import numpy as np
import torch
from torch import Tensor

COUNTING = "tests/Counting-v0"


class Counting(gymnasium.Env):
    """Observes the step and rewards with it: 1, 2, 3, ...; terminates after `seed % 3 + 2` steps, or is truncated after 3."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.length = (seed or 0) % 3 + 2
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple:
        self.t += 1
        return np.full(1, self.t, np.float32), float(self.t), self.t >= self.length, self.t >= 3, {}


gymnasium.register(COUNTING, Counting)


class Still:
    """Takes the action 0, and lists the resets it was told of."""

    def __init__(self, discrete: bool = False) -> None:
        self.discrete = discrete
        self.resets: list[list[bool]] = []

    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        return torch.zeros(len(obs), dtype=torch.int64) if self.discrete else torch.zeros(len(obs), 1)

    def reset(self, mask: Tensor) -> None:
        self.resets.append(mask.tolist())
