"""Regression of the values of taken actions, with a bounded gradient. Letters: K critics, N rows of targets, A actions, S seeds."""

import torch
from torch import Tensor

from mbkit.agents.base import clipped, excess
from mbkit.networks.heads import ActionValues
from mbkit.networks.optimizers import FusedAdam
from mbkit.networks.passes import q_pass, values_pass
from mbkit.networks.values import Squared
from mbkit.types import Targets


def regression(q: Tensor, y: Targets, loss: str) -> Tensor:
    """Half the squared error, or Huber's with delta 1, of q [K, N] against targets [N]: weighted mean over rows, summed over critics."""
    return Squared(loss == "huber").loss(q[..., None], y)


@torch.no_grad()
def taken_slope(values: Tensor, y: Targets, loss: str) -> tuple[Tensor, Tensor]:
    """The gradient of `regression(taken(values, y.action), y, loss)` in values [K, N, A], and the taken values q, [K, N].

    The slope of half the squared error is the error q - y, that of Huber's loss the error clipped to [-1, 1]; at actions not taken it is 0.
    """
    index = y.action.expand(values.shape[:-1])[..., None]
    q = values.gather(-1, index)[..., 0]
    return torch.zeros_like(values).scatter_(-1, index, Squared(loss == "huber").loss_slopes(q[..., None], y)), q


def regress_taken(optimizer: FusedAdam, values: ActionValues, y: Targets, loss: str, max_norm: float) -> Tensor:
    """One step of regression of the values of the taken actions; these before it, [K, N], without gradient."""
    if loss in ("mse", "huber") and not hasattr(values.net, "joint"):
        forward = values_pass(values, y.obs)
        slope, q = taken_slope(values.by_critic(forward.out), y, loss)
        grads = forward.gradients(values.by_network(slope))
    else:
        taken_pass = q_pass(values, y)
        q, grads = taken_pass.q, taken_pass.regression(y)
    if values.seeds:
        optimizer.descend(clipped(grads, max_norm, values.seeds))
    else:
        optimizer.descend(grads, excess(grads, max_norm))
    return q
