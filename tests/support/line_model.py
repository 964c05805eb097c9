"""A dynamics model small enough to check by hand: obs' = obs + 0.1 action; reward and termination are functions of it."""

from typing import NamedTuple

import torch
from torch import Tensor

from mbkit.types import Rollout, Step


class Line(NamedTuple):
    """A point on a line (O = A = 1) whose reward is highest at `target` and which terminates beyond `edge`."""

    target: float = 0.5
    edge: float = float("inf")
    noise: float = 0.0

    def init(self, obs: Tensor) -> Tensor:
        return obs

    def step(self, carry: Tensor, action: Tensor, predict: bool = False) -> Step:
        obs = carry + 0.1 * action + self.noise * torch.randn_like(carry)
        return Step(obs, obs, -(obs[:, 0] - self.target).square(), obs[:, 0].abs() > self.edge)

    def rollout(self, carry: Tensor, actions: Tensor) -> Rollout:
        steps = []
        for t in range(actions.shape[1]):
            steps.append(self.step(carry, actions[:, t]))
            carry = steps[-1].obs
        return Rollout(*(torch.stack([getattr(s, name) for s in steps], 1) for name in ("obs", "reward", "terminated")))
