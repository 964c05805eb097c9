"""Rewards to plan with where the task's own says too little: `dynamics.reward=mbkit.envs.shaping:upright`.

A bonus for being alive is the same for every plan until a fall comes into sight, and by then a cart near the end of its rail is lost. The
score of a run is always the task's own return.
"""

import torch
from torch import Tensor


def upright(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """InvertedPendulum: 1 - x^2 - 5 theta^2 - 0.3 x'^2 - 0.05 theta'^2 while |theta| <= 0.2 rad, else 0; m, rad, s; [B, 4] -> [B]."""
    x, theta, speed, spin = next_obs.unbind(-1)
    cost = x.square() + 5 * theta.square() + 0.3 * speed.square() + 0.05 * spin.square()
    return torch.where(theta.abs() <= 0.2, 1 - cost, 0)
