"""Critics of many actions of each state, reduced to one number for each critic, with a hand-written backward pass.

The observation passes the first layer once for each state instead of once for each action. Gradients are computed right after the values of
a chunk of states, while what lies between the layers is in the cache. A fast path: it can be understood without this file.
Letters: K critics, B states, M actions of each, A dimensions of an action, I numbers of an observation, W width of a layer.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mbkit.networks.mlp import EnsembleMLP

CHUNK_ROWS = 1024  # state-action pairs that pass all layers together (CPU)
Layers = Sequence[tuple[Tensor, Tensor]]  # weights [in, out] and biases [out] of one critic


def action_level(
    net: EnsembleMLP,
    obs: Tensor,
    action: Tensor,
    log_density: Tensor | None,
    dtype: torch.dtype | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean over states of log sum_m exp(Q_k(s, a_m) - log_density), or without a density of mean_m Q_k(s, a_m), [K].

    Args:
        net: the critics, ReLU networks of [obs, action] without layer normalisation and dropout.
        obs: inputs [B, I], constants.
        action: actions [B, M, A], constants.
        log_density: of each action under what drew it, [B, M], or None.
        dtype: of the products between hidden layers; None: that of the weights.
        weight: of each state, [B], with sum 1; None: all alike.
    """
    if net.norms or net.dropout or net.activation != "relu" or len(net.layers) < 2:
        raise ValueError("expected ReLU networks with a hidden layer, without layer normalisation and dropout")
    params = [p if torch.is_grad_enabled() else p.detach() for layer in net.layers for p in layer]
    out: Tensor = ActionLevel.apply(obs, action, log_density, dtype or params[0].dtype, weight, *params)  # type: ignore[no-untyped-call]
    return out


def levels_of(q: Tensor, log_density: Tensor | None, weight: Tensor | None = None) -> Tensor:
    """`action_level` of values [K, B, M] that are known, by autograd: [K]."""
    level = q.mean(-1) if log_density is None else (q - log_density).logsumexp(-1)
    return level.mean(-1) if weight is None else level @ weight


class ActionLevel(torch.autograd.Function):
    """The levels [K]; their gradients in the parameters are made in the forward pass and scaled in the backward pass."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, obs: Tensor, action: Tensor, log_density: Tensor | None, dtype: torch.dtype, weight: Tensor | None, *params: Tensor
    ) -> Tensor:
        """The levels, with gradients where they will be needed."""
        grads = [torch.zeros_like(p) for p in params] if any(ctx.needs_input_grad) else None
        level = obs.new_zeros(len(params[0]))
        for k in range(len(level)):
            layers = [(w[k], b[k, 0]) for w, b in zip(params[::2], params[1::2], strict=True)]
            slopes = None if grads is None else [(w[k], b[k, 0]) for w, b in zip(grads[::2], grads[1::2], strict=True)]
            level[k] = critic_level(layers, slopes, obs, action, log_density, dtype, weight)
        if grads is not None:
            ctx.save_for_backward(*grads)
        return level

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the parameters; observations and actions are constants."""
        return None, None, None, None, None, *(slope * grad[:, None, None] for slope in ctx.saved_tensors)


def critic_level(
    layers: Layers,
    slopes: Layers | None,
    obs: Tensor,
    action: Tensor,
    log_density: Tensor | None,
    dtype: torch.dtype,
    weight: Tensor | None = None,
) -> Tensor:
    """The level of one critic, 0-d; its gradient is added to `slopes`, which are zero before."""
    (w, b), inner, (w_last, b_last) = layers[0], [(w.to(dtype), b.to(dtype)) for w, b in layers[1:-1]], layers[-1]
    (count, many, _), inputs = action.shape, obs.shape[1]
    size = count if obs.is_cuda else max(1, CHUNK_ROWS // many)
    per_state, level = torch.addmm(b, obs, w[:inputs]), obs.new_zeros(())
    state_slope = torch.empty_like(per_state)
    for first in range(0, count, size):
        rows = slice(first, first + size)
        flat = action[rows].flatten(0, 1)
        x = torch.mm(flat, w[inputs:])
        x.view(-1, many, x.shape[1]).add_(per_state[rows, None])
        values = [x.relu_().to(dtype)]  # of every hidden layer
        for v, c in inner:
            values.append(torch.addmm(c, values[-1], v).relu_())
        top = values[-1].to(obs.dtype)
        q = torch.addmv(b_last, top, w_last[:, 0]).view(-1, many)
        reduced, slope = reduction(q, None if log_density is None else log_density[rows])
        level += reduced.sum() / count if weight is None else reduced @ weight[rows]
        if slopes is not None:
            slope = slope.view(-1, 1) / count if weight is None else (slope * weight[rows, None]).view(-1, 1)
            slopes[-1][0].addmm_(top.T, slope)
            slopes[-1][1].add_(slope.sum())
            g = inner_slopes(slope * w_last[:, 0], values, inner, slopes[1:-1]).to(obs.dtype)
            slopes[0][0][inputs:].addmm_(flat.T, g)
            torch.sum(g.view(-1, many, g.shape[1]), 1, out=state_slope[rows])
    if slopes is not None:
        slopes[0][0][:inputs].addmm_(obs.T, state_slope)
        slopes[0][1].add_(state_slope.sum(0))
    return level


def reduction(q: Tensor, log_density: Tensor | None) -> tuple[Tensor, Tensor]:
    """log sum exp(q - log_density) of values [B, M], or their mean, [B], and its gradient [B, M]."""
    if log_density is None:
        return q.mean(-1), torch.full_like(q, 1 / q.shape[-1])
    x = q - log_density
    level = x.logsumexp(-1)
    return level, (x - level[:, None]).exp_()


def inner_slopes(g: Tensor, values: Sequence[Tensor], inner: Layers, slopes: Layers) -> Tensor:
    """Backwards from the gradient of the last hidden layer's values to that of the first one's product, both [rows, W]."""
    for n in reversed(range(len(inner))):
        g = through_relu(g.to(values[0].dtype), values[n + 1])
        w_slope, b_slope = slopes[n]
        if g.dtype == w_slope.dtype:
            w_slope.addmm_(values[n].T, g)
        else:
            w_slope.add_(torch.mm(values[n].T, g))  # summed over chunks in the precision of the weights
        b_slope.add_(g.sum(0, dtype=b_slope.dtype))
        g = torch.mm(g, inner[n][0].T)
    return through_relu(g.to(values[0].dtype), values[0])


def through_relu(g: Tensor, value: Tensor) -> Tensor:
    """The gradient g where the activation's value is positive, in place."""
    out: Tensor = torch.ops.aten.threshold_backward.grad_input(g, value, 0, grad_input=g)
    return out
