"""A copy of an ensemble's weights for fast inference, laid out for the kernel that suits the number of rows.

Letters: E members, R rows of each, I inputs.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from mbkit.accelerate import fused
from mbkit.networks.kernels import ACTIVATION, MANY_ROWS, Activation, member_by_member

FUSED_NAME = {"relu": "relu", "silu": "swish"}  # oneDNN's names
PACKED_ROWS = 256  # per member: from here on oneDNN's packed weights are faster (at 128 rows 8 % slower)
MANY_ROWS_BFLOAT16 = 1024  # `MANY_ROWS` of bfloat16, whose batched product is faster


def relu_with_bias(x: Tensor, bias: Tensor) -> Tensor:
    """relu(x + bias)."""
    return F.relu(x + bias)


def silu_with_bias(x: Tensor, bias: Tensor) -> Tensor:
    """silu(x + bias)."""
    return F.silu(x + bias)


ACTIVATED = {"relu": relu_with_bias, "silu": silu_with_bias}


class FrozenEnsemble:
    """E MLPs whose weights are constants: x [E, R, I] -> [E, R, out], with a gradient in x where x has one.

    Float32 inputs and outputs; the products run in `dtype`. Tensors are allocated once and refilled in place by `copy_`, so that a captured
    CUDA graph always reads the current weights.
    """

    def __init__(self, members: int, sizes: Sequence[int], activation: Activation, device: torch.device, dtype: torch.dtype) -> None:
        self.members, self.sizes, self.activation, self.dtype = members, tuple(sizes), activation, dtype
        shapes = list(pairwise(sizes))
        self.weight = [torch.zeros(members, i, o, device=device, dtype=dtype) for i, o in shapes]
        self.bias = [torch.zeros(members, 1, o, device=device, dtype=dtype) for _, o in shapes]
        self.transposed = [torch.zeros(members, o, i, device=device, dtype=dtype) for i, o in shapes]  # F.linear's layout
        pairs = zip(self.transposed, self.bias, strict=True)
        self.by_member = list(zip(*[[(w[e], b[e, 0]) for e in range(members)] for w, b in pairs], strict=True))
        self.many = MANY_ROWS if dtype == torch.float32 else MANY_ROWS_BFLOAT16
        self.fused = device.type == "cpu" and _has_fused_linear()
        self.activated = fused(ACTIVATED[activation], device)
        self.compiled = self.activated is not ACTIVATED[activation]
        self.packed: list[list[tuple[Tensor, Tensor]]] = []  # as `by_member`, the weights in oneDNN's opaque layout

    def copy_(self, weight: Sequence[Tensor], bias: Sequence[Tensor]) -> None:
        """Refill from weights [E, in, out] and biases [E, 1, out] of any dtype."""
        for target, transposed, source in zip(self.weight, self.transposed, weight, strict=True):
            target.copy_(source)
            transposed.copy_(source.mT)
        for target, source in zip(self.bias, bias, strict=True):
            target.copy_(source)
        if self.fused:
            self.packed = [[(torch.ops.mkldnn._reorder_linear_weight(w, PACKED_ROWS), b) for w, b in layers] for layers in self.by_member]

    def __deepcopy__(self, memo: dict[int, object]) -> "FrozenEnsemble":
        """A copy in new tensors; opaque layouts cannot be copied, so they are computed again."""
        twin = FrozenEnsemble(self.members, self.sizes, self.activation, self.bias[0].device, self.dtype)
        twin.copy_(self.weight, self.bias)
        return twin

    def __call__(self, x: Tensor) -> Tensor:
        """The outputs, by the kernel that suits the number of rows; shapes as above."""
        x = x.to(self.dtype)
        if x.requires_grad and torch.is_grad_enabled():
            return self._differentiable(x).float()
        if x.device.type != "cpu" or x.shape[1] < self.many:
            return self._batched(x).float()
        if self.packed and x.shape[1] >= PACKED_ROWS:
            return member_by_member(x, self.sizes[-1], lambda e, rows: self._fused(rows, self.packed[e]))
        return member_by_member(x, self.sizes[-1], lambda e, rows: self._linear(rows, self.by_member[e]))

    def _batched(self, x: Tensor) -> Tensor:
        act, last = ACTIVATION[self.activation], len(self.weight) - 1
        for n, (w, b) in enumerate(zip(self.weight, self.bias, strict=True)):
            if self.compiled and n < last:
                x = self.activated(torch.bmm(x, w), b)  # bias and activation in one kernel
                continue
            x = torch.baddbmm(b, x, w)
            x = x if n == last else act(x, inplace=True)
        return x

    def _differentiable(self, x: Tensor) -> Tensor:
        for n, (w, b) in enumerate(zip(self.weight, self.bias, strict=True)):
            x = torch.baddbmm(b, x, w)
            x = ACTIVATION[self.activation](x) if n < len(self.weight) - 1 else x
        return x

    def _linear(self, x: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        act = ACTIVATION[self.activation]
        for w, b in layers[:-1]:
            x = act(F.linear(x, w, b), inplace=True)
        return F.linear(x, *layers[-1])

    def _fused(self, x: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        for w, b in layers[:-1]:
            x = torch.ops.mkldnn._linear_pointwise(x, w, b, FUSED_NAME[self.activation], [], "")
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, *layers[-1], "none", [], "")
        return out


def _has_fused_linear() -> bool:
    """Whether torch has oneDNN's fused linear layer with packed weights, operators that torch does not promise to keep."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    ops = torch.ops.mkldnn
    x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")  # not measured on other processors
    return available and x86 and hasattr(ops, "_linear_pointwise") and hasattr(ops, "_reorder_linear_weight")
