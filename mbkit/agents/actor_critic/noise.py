"""Exploration noise round a deterministic policy: white, or correlated in time. M environments, B batch, A action.

Uhlenbeck & Ornstein 1930; as in DDPG (Lillicrap et al. 2016, arXiv:1509.02971, section 7).
"""

from typing import Protocol

import torch
from torch import Tensor

from mbkit.types import State


class Noise(Protocol):
    """Noise that is added to a policy's actions; it may depend on each environment's past noise."""

    def __call__(self, like: Tensor) -> Tensor: ...  # noqa: D102
    def reset(self, mask: Tensor) -> None: ...  # noqa: D102
    def state_dict(self) -> State: ...  # noqa: D102
    def load_state_dict(self, state: State) -> None: ...  # noqa: D102


class GaussianNoise:
    """Independent noise in every step: N(0, scale^2)."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, like: Tensor) -> Tensor:
        """Noise of the shape [M, A] of `like`."""
        return self.scale * torch.randn_like(like)

    def reset(self, mask: Tensor) -> None:
        """Does nothing: the noise has no state."""

    def state_dict(self) -> State:
        """An empty state."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Does nothing: the noise has no state."""


class OrnsteinUhlenbeck:
    """n <- (1 - theta) n + scale N(0, 1), zero when an episode begins; its stationary variance is scale^2 / (1 - (1 - theta)^2)."""

    def __init__(self, scale: float, theta: float) -> None:
        self.scale, self.theta = scale, theta
        self.state = torch.zeros(0, 0)  # [M, A] once the number of environments is known

    def __call__(self, like: Tensor) -> Tensor:
        """The next noise of M environments, of the shape [M, A] of `like`; it begins at zero whenever that shape changes."""
        if self.state.shape != like.shape:
            self.state = torch.zeros_like(like)
        self.state = (1 - self.theta) * self.state.to(like) + self.scale * torch.randn_like(like)
        return self.state.clone()

    def reset(self, mask: Tensor) -> None:
        """Environments bool [M] begin a new episode: their noise is zero again."""
        if len(self.state) == len(mask):
            self.state = self.state.masked_fill(mask.to(self.state.device)[:, None], 0)

    def state_dict(self) -> State:
        """The noise of every environment."""
        return {"state": self.state.clone()}

    def load_state_dict(self, state: State) -> None:
        """Continues from a saved noise; no captured graph holds the tensor, so it may be replaced."""
        self.state = state["state"].clone()
