"""Fast paths of the networks; every algorithm can be understood without them.

Letters: E members, K critics, R rows of each member, N rows, I inputs, A actions.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Activation = Literal["relu", "silu"]
Layer = tuple[Tensor, Tensor]  # weights [E, in, out], biases [E, 1, out]
ACTIVATION = {"relu": F.relu, "silu": F.silu}
MANY_ROWS = 128  # per member: from here on one large product per member is faster than one batched product (CPU, float32)
NARROW, FEW_ROWS = 10, 64  # up to so many outputs, of so many rows or more, a product is faster with its factors exchanged (CPU, float32)
FEW_INPUTS = 24  # up to so many inputs, of FEW_ROWS rows or more, their gradient is faster with its factors exchanged (CPU, float32)
CHUNK_ROWS = 2048  # rows that go through all layers together, so that the values between two layers stay in the cache (CPU, no gradient)
EVERY = slice(None)
EPSILON = 1e-5  # added to the variance in layer normalisation; torch's default
FEW_DROPPED = 0.1  # dropout probability up to which the gaps between zeros are drawn instead of all factors


def narrow(x: Tensor, width: int) -> bool:
    """Whether a product of rows x [..., R, I] with this number of outputs is faster with its factors exchanged."""
    return width <= NARROW and x.shape[-2] >= FEW_ROWS and x.device.type == "cpu"


def affine(b: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """x w + b: x [E, R, I], w [E, I, O], b [E, 1, O] -> [E, R, O], or all without E; narrow outputs as (w^T x^T + b^T)^T."""
    product = torch.addmm if x.dim() == 2 else torch.baddbmm
    if narrow(x, w.shape[-1]):
        return product(b.mT, w.mT.contiguous(), x.mT).mT.contiguous()
    return product(b, x, w)


def weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """x^T g of inputs x [E, R, I] and the product's gradient [E, R, O], [E, I, O]; of narrow outputs as (g^T x)^T."""
    return torch.bmm(grad.mT, x).mT.contiguous() if narrow(x, grad.shape[-1]) else torch.bmm(x.mT, grad)


def input_gradient(grad: Tensor, w: Tensor) -> Tensor:
    """g w^T of the product's gradient [E, R, O] and weights [E, I, O], [E, R, I]; of few inputs as (w g^T)^T."""
    if grad.shape[-1] == 1:
        return grad * w.mT
    few = w.shape[-2] <= FEW_INPUTS and grad.shape[-2] >= FEW_ROWS and grad.device.type == "cpu"
    return torch.bmm(w, grad.mT).mT if few else torch.bmm(grad, w.mT)


def relu_layers(x: Tensor, layers: Sequence[Layer]) -> list[Tensor]:
    """The input of every ReLU layer and the output, x [E, B, I] -> [E, B, ...] each.

    ReLU works in place on the product just computed, since a fresh tensor of each layer's size would cost as much memory traffic again.
    """
    inputs = [x]
    for n, (w, b) in enumerate(layers):
        x = affine(b, x, w)
        inputs.append(x.relu_() if n < len(layers) - 1 else x)
    return inputs


def relu_gradients(
    grad: Tensor, inputs: Sequence[Tensor], weight: Sequence[Tensor], needed: Sequence[bool]
) -> tuple[Tensor | None, list[Tensor | None]]:
    """dW = x^T g, db = sum g, g <- (g W^T) [x > 0], layer by layer from the last, of the output's gradient [E, B, out].

    Returns the gradients of the input and of weights and biases in turn; only those `needed`, of the input and of these, are computed.
    """
    reversed_grads: list[Tensor | None] = []
    for n in reversed(range(len(weight))):
        reversed_grads.append(grad.sum(1, keepdim=True) if needed[2 + 2 * n] else None)
        reversed_grads.append(weight_gradient(inputs[n], grad) if needed[1 + 2 * n] else None)
        if n == 0 and not needed[0]:
            return None, reversed_grads[::-1]
        grad = input_gradient(grad, weight[n])
        if n:
            torch.ops.aten.threshold_backward.grad_input(grad, inputs[n], 0, grad_input=grad)
    return grad, reversed_grads[::-1]


class ReluMLP(torch.autograd.Function):
    """E networks of ReLU layers with a hand-written backward pass: autograd's arithmetic in fewer tensors.

    x [B, I] or [E, B, I], then weights [E, in, out] and biases [E, 1, out] in turn -> [E, B, out].
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *params: Tensor) -> Tensor:  # type: ignore[override]
        """The outputs; the input of every layer is saved for the backward pass."""
        weight, bias = params[::2], params[1::2]
        ctx.shared = x.dim() == 2
        *inputs, out = relu_layers(x.expand(len(weight[0]), *x.shape[-2:]), list(zip(weight, bias, strict=True)))
        ctx.save_for_backward(*inputs, *weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """See `relu_gradients`."""
        saved = ctx.saved_tensors
        layers = len(saved) // 2
        x_grad, grads = relu_gradients(grad, saved[:layers], saved[layers:], ctx.needs_input_grad)
        return x_grad.sum(0) if x_grad is not None and ctx.shared else x_grad, *grads


def relu_mlp(x: Tensor, layers: Sequence[Layer], members: slice = EVERY, fixed: bool = False) -> Tensor:
    """`ReluMLP` of some of the members, x [B, I] or [members, B, I]; `fixed`: the parameters are constants."""
    params = [p if members is EVERY else p[members] for layer in layers for p in layer]
    out: Tensor = ReluMLP.apply(x, *(p.detach() for p in params) if fixed else params)  # type: ignore[no-untyped-call]
    return out


class NormedReluLayer(torch.autograd.Function):
    """A hidden layer of E networks with dropout, layer normalisation or both before its ReLU, and a hand-written backward pass.

    x [E, B, I], weights [E, I, W], biases, gains and shifts [E, 1, W] (gain None: no normalisation), a dropout probability -> [E, B, W].
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, w: Tensor, b: Tensor, gain: Tensor | None, shift: Tensor | None, dropout: float
    ) -> Tensor:
        """relu(norm(drop(x w + b))); dropout and ReLU work in place on the product just computed."""
        y = torch.baddbmm(b, x, w)
        factors = dropout_factors(y, dropout) if dropout else None
        if factors is not None:
            y.mul_(factors)
        moments: tuple[Tensor | None, ...] = (None,) * 4
        if gain is not None and shift is not None:
            ones = y.new_ones(y.shape[-1])  # torch normalises faster with a gain than without
            normal, mean, rstd = torch.native_layer_norm(y, y.shape[-1:], ones, None, EPSILON)
            moments = y, normal, mean, rstd
            y = torch.addcmul(shift, normal, gain)
        y.relu_()
        ctx.save_for_backward(x, w, gain, y, factors, *moments)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Backwards through ReLU, normalisation, dropout and product; only the gradients that are needed."""
        x, w, gain, y, factors, product, normal, mean, rstd = ctx.saved_tensors
        need_x, need_w, need_b, need_gain, need_shift, _ = ctx.needs_input_grad
        grad = torch.ops.aten.threshold_backward(grad, y, 0)
        d_gain = (grad * normal).sum(1, keepdim=True) if need_gain else None
        d_shift = grad.sum(1, keepdim=True) if need_shift else None
        if gain is not None:
            through = torch.ops.aten.native_layer_norm_backward
            grad = through(grad.mul_(gain), product, product.shape[-1:], mean, rstd, None, None, (True, False, False))[0]
        if factors is not None:
            grad = grad.mul_(factors)
        return (
            torch.bmm(grad, w.mT) if need_x else None,
            torch.bmm(x.mT, grad) if need_w else None,
            grad.sum(1, keepdim=True) if need_b else None,
            d_gain,
            d_shift,
            None,
        )


def normed_relu_mlp(
    x: Tensor, layers: Sequence[Layer], norms: Sequence[Layer], dropout: float, members: slice = EVERY, fixed: bool = False
) -> Tensor:
    """`relu_mlp` with dropout, and with layer normalisation by gains and shifts `norms` (none: without) in every hidden layer."""

    def used(p: Tensor) -> Tensor:
        p = p if members is EVERY else p[members]
        return p.detach() if fixed else p

    x = x.expand(len(used(layers[0][0])), *x.shape[-2:])
    for n, (w, b) in enumerate(layers[:-1]):
        gain, shift = (used(norms[n][0]), used(norms[n][1])) if norms else (None, None)
        x = NormedReluLayer.apply(x, used(w), used(b), gain, shift, dropout)  # type: ignore[no-untyped-call]
    return relu_mlp(x, layers[-1:], members, fixed)


def dropout_factors(x: Tensor, p: float) -> Tensor:
    """Factors of the shape of x: each is 0 with probability p, else 1 / (1 - p).

    On a CPU, where p is small, the gaps between zeros are drawn, which are geometric: a few numbers instead of one for each element.
    """
    if x.device.type != "cpu" or p > FEW_DROPPED:
        return torch.empty_like(x).bernoulli_(1 - p).div_(1 - p)
    n, expected = x.numel(), x.numel() * p
    most = math.ceil(expected + 8 * math.sqrt(expected) + 16)  # more zeros are as good as impossible
    positions = torch.empty(most, dtype=torch.float64).geometric_(p).cumsum(0).long() - 1
    factors = x.new_full((n + 1,), 1 / (1 - p)).index_fill_(0, positions.clamp(max=n), 0)  # the last one is for zeros beyond x
    return factors[:n].view(x.shape)


def member_by_member(x: Tensor, width: int, network: Callable[[int, Tensor], Tensor]) -> Tensor:
    """network(e, rows) for every member e of x [E, R, I] -> float32 [E, R, width], a chunk of rows at a time through all layers."""
    out = torch.empty(*x.shape[:-1], width, device=x.device)
    for e in range(len(x)):
        for first in range(0, x.shape[1], CHUNK_ROWS):
            rows = slice(first, first + CHUNK_ROWS)
            out[e, rows] = network(e, x[e, rows])
    return out


def many_rows_mlp(x: Tensor, layers: Sequence[Layer], activation: Activation) -> Tensor:
    """E networks of x [E, R, I] -> [E, R, out], one member after the other, without gradient: fastest for many rows on a CPU."""
    act, last = ACTIVATION[activation], len(layers) - 1

    def network(e: int, rows: Tensor) -> Tensor:
        for n, (w, b) in enumerate(layers):
            rows = affine(b[e], rows, w[e])
            rows = rows if n == last else act(rows, inplace=True)
        return rows

    return member_by_member(x, layers[-1][0].shape[-1], network)


def gradients(outputs: Sequence[Tensor], slopes: Sequence[Tensor | None], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """`torch.autograd.grad(outputs, params, slopes)`, of 0-d outputs where a slope is None: 1; torch's would import its compiler."""
    seeds = tuple(torch.ones_like(y) if slope is None else slope for y, slope in zip(outputs, slopes, strict=True))
    engine = torch.autograd.Variable._execution_engine
    grads: tuple[Tensor, ...] = engine.run_backward(tuple(outputs), seeds, False, False, tuple(params), accumulate_grad=False)
    return grads
