"""Rewards for planning where the reward of the task is not informative enough: `dynamics.reward=mbkit.envs.shaping:upright`.

A bonus for staying alive is the same for every plan until a fall lies within the horizon, and then a cart near the end of its rail cannot
prevent it. Evaluation returns are always those of the task's reward.
"""

import torch
from torch import Tensor


def upright(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """InvertedPendulum: 1 - x^2 - 5 theta^2 - 0.3 x'^2 - 0.05 theta'^2 while |theta| <= 0.2 rad, else 0; m, rad, s; [B, 4] -> [B]."""
    x, theta, speed, spin = next_obs.unbind(-1)
    cost = x.square() + 5 * theta.square() + 0.3 * speed.square() + 0.05 * spin.square()
    return torch.where(theta.abs() <= 0.2, 1 - cost, 0)
