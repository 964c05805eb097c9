"""A squashed Gaussian policy's sample and its log-density, with a hand-written backward pass through sample and network.

A fast path of `TanhGaussian.rsample`: it can be understood without this file. Letters: B rows, O observation, A dimensions of an action, S
seeds, whose policies may be stacked: then rows are [S, B, ...] and parameters [S, in, out].
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


class SquashedPass:
    """One pass of a policy and `squash` at obs [B, O]: actions [B, A] and log-densities [B], and the gradients of any loss of these.

    The gradient in u of log pi is 2 tanh(u) = 2 a, that in log std is -1 beside the way through u.

    Args:
        obs: inputs of the network.
        layers: weights [1, in, out] and biases [1, 1, out] of a ReLU network.
        log_std: range of the log standard deviation.
        constant: leading rows that no loss depends on.
    """

    def __init__(self, obs: Tensor, layers: Sequence[Layer], log_std: tuple[float, float], constant: int = 0) -> None:
        self.range, self.constant, self.weight = log_std, constant, [w for w, _ in layers]
        with torch.no_grad():
            *self.inputs, out = relu_layers(with_seeds(obs), layers)
            mean, self.raw = of_seeds(out, obs).chunk(2, -1)
            self.eps = normal_like(mean)
            self.action, self.log_prob, self.std = squash(mean, self.raw.clamp(*log_std), self.eps)

    @property
    def first(self) -> Sample:
        """Actions and log-densities of the constant rows."""
        return self.action[..., : self.constant, :], self.log_prob[..., : self.constant]

    @property
    def second(self) -> Sample:
        """Actions and log-densities of the other rows."""
        return self.action[..., self.constant :, :], self.log_prob[..., self.constant :]

    def gradients(self, action_slope: Tensor, log_prob_slope: Tensor) -> Sequence[Tensor]:
        """Of the network's parameters, all weights before all biases, from the gradients in `second`."""
        _, grads = self.backward(action_slope, log_prob_slope, [False] + [True] * (2 * len(self.weight)))
        return [grad for grad in (*grads[::2], *grads[1::2]) if grad is not None]

    @torch.no_grad()
    def backward(self, action_slope: Tensor, log_prob_slope: Tensor, needed: Sequence[bool]) -> tuple[Tensor | None, list[Tensor | None]]:
        """Of obs, without the constant rows, and of weights and biases in turn, those that are needed."""
        action, eps, std, raw = (x[..., self.constant :, :] for x in (self.action, self.eps, self.std, self.raw))
        by_row, grad = log_prob_slope[..., None], action.new_empty(*action.shape[:-1], 2 * action.shape[-1])
        mean_grad, raw_grad = grad.chunk(2, -1)
        torch.addcmul(torch.ops.aten.tanh_backward(action_slope, action), action, by_row, value=2, out=mean_grad)
        log_std_grad = (mean_grad * std).mul_(eps).sub_(by_row)
        torch.ops.aten.hardtanh_backward.grad_input(log_std_grad, raw, *self.range, grad_input=raw_grad)  # 0 where log std is clamped
        return relu_gradients(with_seeds(grad), [x[:, self.constant :] for x in self.inputs], self.weight, needed)


class SquashedSample(torch.autograd.Function):
    """`SquashedPass` for autograd: obs [B, O], the range of log std, then weights and biases in turn -> actions and log-densities."""

    @staticmethod
    def forward(ctx: Any, obs: Tensor, log_std: tuple[float, float], *params: Tensor) -> Sample:  # type: ignore[override]
        """[B, A] and [B]."""
        ctx.forward_pass = SquashedPass(obs, list(zip(params[::2], params[1::2], strict=True)), log_std)
        sample: Sample = ctx.forward_pass.second
        return sample

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, action_slope: Tensor, log_prob_slope: Tensor) -> tuple[Tensor | None, ...]:
        """See `SquashedPass.backward`."""
        needed = (ctx.needs_input_grad[0], *ctx.needs_input_grad[2:])
        x_grad, grads = ctx.forward_pass.backward(action_slope, log_prob_slope, needed)
        return None if x_grad is None else x_grad[0], None, *grads


def squashed_sample(obs: Tensor, layers: Sequence[Layer], log_std: tuple[float, float]) -> Sample:
    """A sample at obs [B, O] of the policy whose ReLU network has these layers."""
    action, log_prob = SquashedSample.apply(obs, log_std, *(p for layer in layers for p in layer))  # type: ignore[no-untyped-call]
    return action, log_prob
