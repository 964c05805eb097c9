"""Fast paths of the networks, which nobody has to read to follow an algorithm: backward passes of their own, layouts for many rows.

Letters: E members, K critics, N rows, A actions.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Activation = Literal["relu", "silu"]
ACTIVATION = {"relu": F.relu, "silu": F.silu}
MANY_ROWS = 128  # per member: from here on one large product per member beats one batched product (CPU, float32)
CHUNK_ROWS = 2048  # that go through all layers together, so that what lies between two layers stays in the cache (CPU, no gradient)
EVERY = slice(None)


class ReluMLP(torch.autograd.Function):
    """E networks of ReLU layers with a backward pass of their own: what autograd does, with fewer and warmer tensors.

    x [B, I] or [E, B, I], then weights [E, in, out] and biases [E, 1, out] in turn -> [E, B, out]. ReLU and its mask are done in place, on
    what has just been computed: a fresh tensor of each layer's size costs as much again as its product's share of memory traffic.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *params: Tensor) -> Tensor:  # type: ignore[override]
        """Keeps every layer's input."""
        weight, bias = params[::2], params[1::2]
        ctx.shared = x.dim() == 2
        x = x.expand(len(weight[0]), *x.shape[-2:])
        inputs = []
        for n, (w, b) in enumerate(zip(weight, bias, strict=True)):
            inputs.append(x)
            x = torch.baddbmm(b, x, w)
            if n < len(weight) - 1:
                x.relu_()
        ctx.save_for_backward(*inputs, *weight)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """dW = x^T g, db = sum g, g <- (g W^T) [x > 0], layer by layer from the last; only what is asked for."""
        layers = len(ctx.saved_tensors) // 2
        inputs, weight = ctx.saved_tensors[:layers], ctx.saved_tensors[layers:]
        wanted, found = ctx.needs_input_grad, []
        for n in reversed(range(layers)):
            found.append(grad.sum(1, keepdim=True) if wanted[2 + 2 * n] else None)
            found.append(torch.bmm(inputs[n].mT, grad) if wanted[1 + 2 * n] else None)
            if n == 0 and not wanted[0]:
                return None, *reversed(found)
            grad = torch.bmm(grad, weight[n].mT)
            if n:
                torch.ops.aten.threshold_backward.grad_input(grad, inputs[n], 0, grad_input=grad)
        return grad.sum(0) if ctx.shared else grad, *reversed(found)


def member_by_member(x: Tensor, width: int, network: Callable[[int, Tensor], Tensor]) -> Tensor:
    """network(e, rows) for every member e of x [E, R, I] -> float32 [E, R, width], a chunk of rows at a time through all layers."""
    out = torch.empty(*x.shape[:-1], width, device=x.device)
    for e in range(len(x)):
        for first in range(0, x.shape[1], CHUNK_ROWS):
            rows = slice(first, first + CHUNK_ROWS)
            out[e, rows] = network(e, x[e, rows])
    return out


class TakenRegression(torch.autograd.Function):
    """`regression` of `taken` values with a backward pass of its own: autograd's would be a dozen small operators.

    Half the squared error and Huber's are both (d - c/2) c of the error d with slope c: c = d, or d clipped to [-1, 1].
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, values: Tensor, action: Tensor, target: Tensor, weight: Tensor, huber: bool
    ) -> tuple[Tensor, Tensor]:
        """The loss, and the values of the taken actions [K, N], as numbers."""
        index = action.expand(values.shape[:-1])[..., None]
        q = values.gather(-1, index)[..., 0]
        d = q - target
        slope = d.clamp(-1, 1) if huber else d
        gradient = slope * (weight / len(target))
        ctx.save_for_backward(index, gradient)
        ctx.shape = values.shape
        ctx.mark_non_differentiable(q)
        return torch.add(d, slope, alpha=-0.5).mul_(gradient).sum(), q

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """The slope where an action was taken, zero elsewhere, [K, N, A]."""
        index, gradient = ctx.saved_tensors
        return gradient.new_zeros(ctx.shape).scatter_(-1, index, (gradient * grad)[..., None]), None, None, None, None
