"""A squashed Gaussian policy's sample and its log-density, with a hand-written backward pass through sample and network.

A fast path of `TanhGaussian.rsample`: it can be understood without this file.
Letters: B rows, O observation, A dimensions of an action. Of S seeds, stacked, every tensor of rows has one dimension more, [S, B, ...],
and parameters are [S, in, out].
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mbkit.networks.kernels import Layer, relu_gradients, relu_layers
from mbkit.networks.stacked import of_seeds, with_seeds
from mbkit.streams import normal_like

Sample = tuple[Tensor, Tensor]  # actions [B, A] and their log-densities [B]


def squash(mean: Tensor, log_std: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """a = tanh(u), u = mean + std eps, its log-density, and std: log pi = log N(u) - sum log(1 - a^2); mean, log_std, eps [B, A]."""
    std = log_std.exp()
    u = torch.addcmul(mean, std, eps)
    normal = torch.addcmul(log_std, eps, eps, value=0.5)  # -log N(u) without its constant
    half_volume = torch.sub(u, F.softplus(u, beta=-2), alpha=2)  # u + softplus(-2u); log(1 - tanh(u)^2) = 2 (log 2 - half_volume)
    constant = mean.shape[-1] * (0.5 * math.log(2 * math.pi) + 2 * math.log(2))
    return u.tanh(), -constant - torch.sub(normal, half_volume, alpha=2).sum(-1), std


class SquashedSample(torch.autograd.Function):
    """`squash` of a ReLU network's output: obs [B, O], noise [B, A], the number of leading rows that are constants, the range of log std,
    then weights [1, in, out] and biases [1, 1, out] in turn -> actions and log-densities of the constant rows, and of the others.

    The gradient in u of log pi is 2 tanh(u) = 2 a, that in log std is -1 beside the way through u.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, obs: Tensor, eps: Tensor, constant: int, low: float, high: float, *params: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Actions and log-densities, [constant, A] and [constant], then [B - constant, A] and [B - constant]."""
        weight, bias = params[::2], params[1::2]
        *inputs, out = relu_layers(with_seeds(obs), list(zip(weight, bias, strict=True)))
        mean, raw = of_seeds(out, obs).chunk(2, -1)
        action, log_prob, std = squash(mean, raw.clamp(low, high), eps)
        ctx.constant, ctx.range = constant, (low, high)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(action, eps, std, raw, *(x[:, constant:] for x in inputs), *weight)
        first = action[..., :constant, :], log_prob[..., :constant]
        ctx.mark_non_differentiable(*first)
        return *first, action[..., constant:, :], log_prob[..., constant:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: None, __: None, action_grad: Tensor | None, log_prob_grad: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of obs and of the parameters, from the rows that are not constants."""
        (action, eps, std, raw), saved = (x[..., ctx.constant :, :] for x in ctx.saved_tensors[:4]), ctx.saved_tensors[4:]
        action_grad = torch.zeros_like(action) if action_grad is None else action_grad
        by_row = action.new_zeros(*action.shape[:-1], 1) if log_prob_grad is None else log_prob_grad[..., None]
        layers = len(saved) // 2
        grad = torch.empty(*action.shape[:-1], 2 * action.shape[-1], dtype=action.dtype, device=action.device)
        mean_grad, raw_grad = grad.chunk(2, -1)
        torch.addcmul(torch.ops.aten.tanh_backward(action_grad, action), action, by_row, value=2, out=mean_grad)
        log_std_grad = (mean_grad * std).mul_(eps).sub_(by_row)
        torch.ops.aten.hardtanh_backward.grad_input(log_std_grad, raw, *ctx.range, grad_input=raw_grad)  # 0 where log std is clamped
        needed = ctx.needs_input_grad[0], *ctx.needs_input_grad[5:]
        x_grad, grads = relu_gradients(with_seeds(grad), saved[:layers], saved[layers:], needed)
        if x_grad is not None:
            x_grad = of_seeds(torch.cat((x_grad.new_zeros(len(x_grad), ctx.constant, x_grad.shape[2]), x_grad), 1), action)
        return x_grad, None, None, None, None, *grads


def squashed_sample(obs: Tensor, layers: Sequence[Layer], log_std: tuple[float, float], constant: int = 0) -> tuple[Sample, Sample]:
    """Samples at obs [B, O] of the policy whose ReLU network has these layers: of the first rows as constants, and of the others."""
    eps = normal_like(obs.new_empty(*obs.shape[:-1], layers[-1][0].shape[-1] // 2))
    params = [p for layer in layers for p in layer]
    action, log_prob, *others = SquashedSample.apply(obs, eps, constant, *log_std, *params)  # type: ignore[no-untyped-call]
    return (action, log_prob), (others[0], others[1])
