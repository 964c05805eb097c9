"""Small systems whose truth is known."""

import torch

from mbkit.types import EnvSpec, Transition

CPU = torch.device("cpu")
SPEC = EnvSpec(3, 2, CPU)
A = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.8, 0.1], [0.1, 0.0, 0.7]])
B = torch.tensor([[0.1, 0.0, 0.2], [0.0, 0.3, 0.1]])
NOISE = torch.tensor([0.05, 0.1, 0.2])


def linear_gaussian(rows: int, noise: torch.Tensor = NOISE) -> Transition:
    """x' = x A + a B + noise; the reward is the sum of x'; terminated where x'_0 > 1."""
    obs, action = torch.randn(rows, 3), torch.rand(rows, 2) * 2 - 1
    following = obs @ A + action @ B + noise * torch.randn(rows, 3)
    return Transition(obs, action, following.sum(1), following, (following[:, 0] <= 1).float())
