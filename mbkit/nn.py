"""Networks shared by critics and dynamics: many MLPs at once, a fast inference copy of them, a normaliser. Letters: E members, B batch."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["relu", "silu"]
ACTIVATION = {"relu": F.relu, "silu": F.silu}
FUSED_NAME = {"relu": "relu", "silu": "swish"}  # as oneDNN calls them
MANY_ROWS = 128  # per member: from here on one large product per member beats one batched product (CPU, float32)
PACKED_ROWS = 256  # per member: from here on oneDNN's packed weights are faster (at 128 rows 8 % slower)
MANY_ROWS_BFLOAT16 = 1024  # the same for bfloat16, whose batched product is better


class EnsembleMLP(nn.Module):
    """E networks at once: x [B, I] (the same rows for all) or [E, B, I] -> [E, B, out]; weights [E, in, out], biases [E, 1, out]."""

    def __init__(self, members: int, sizes: Sequence[int], activation: Activation = "relu") -> None:
        super().__init__()
        self.members, self.sizes, self.activation = members, tuple(sizes), activation
        self.weight = nn.ParameterList()
        self.bias = nn.ParameterList()
        for i, o in pairwise(sizes):
            bound = 1 / math.sqrt(i)
            self.weight.append(nn.Parameter(torch.empty(members, i, o).uniform_(-bound, bound)))
            self.bias.append(nn.Parameter(torch.empty(members, 1, o).uniform_(-bound, bound)))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs without an activation on the last layer; shapes as above."""
        if x.device.type == "cpu" and x.shape[-2] >= 2 * MANY_ROWS and not torch.is_grad_enabled():
            inputs = x.expand(self.members, *x.shape[-2:])
            return torch.stack([self._member(e, inputs[e]) for e in range(self.members)])
        act = ACTIVATION[self.activation]
        x = x.expand(self.members, *x.shape[-2:])
        for n, (w, b) in enumerate(zip(self.weight, self.bias, strict=True)):
            x = torch.baddbmm(b, x, w)
            x = x if n == len(self.weight) - 1 else act(x)
        return x

    def _member(self, e: int, x: Tensor) -> Tensor:
        act = ACTIVATION[self.activation]
        for n, (w, b) in enumerate(zip(self.weight, self.bias, strict=True)):
            x = torch.addmm(b[e], x, w[e])
            x = x if n == len(self.weight) - 1 else act(x, inplace=True)
        return x


@torch.no_grad()
def truncated_normal_init_(net: EnsembleMLP) -> EnsembleMLP:
    """PETS' initialisation: weights from a normal with sigma 1 / (2 sqrt(fan in)) cut at two sigmas, biases zero."""
    for w, b in zip(net.weight, net.bias, strict=True):
        sigma = 1 / (2 * math.sqrt(w.shape[1]))
        nn.init.trunc_normal_(w, std=sigma, a=-2 * sigma, b=2 * sigma)
        b.zero_()
    return net


class FrozenEnsemble:
    """Weights of E MLPs laid out for inference only, x [E, R, I] -> [E, R, out] without gradient.

    Float32 inputs and outputs; the products run in `dtype`. Tensors are allocated once and refilled in place by `copy_`, so that a captured
    CUDA graph keeps seeing the current weights.
    """

    def __init__(self, members: int, sizes: Sequence[int], activation: Activation, device: torch.device, dtype: torch.dtype) -> None:
        self.members, self.sizes, self.activation, self.dtype = members, tuple(sizes), activation, dtype
        shapes = list(pairwise(sizes))
        self.weight = [torch.zeros(members, i, o, device=device, dtype=dtype) for i, o in shapes]
        self.bias = [torch.zeros(members, 1, o, device=device, dtype=dtype) for _, o in shapes]
        self.transposed = [torch.zeros(members, o, i, device=device, dtype=dtype) for i, o in shapes]  # F.linear's own layout
        pairs = zip(self.transposed, self.bias, strict=True)
        self.by_member = list(zip(*[[(w[e], b[e, 0]) for e in range(members)] for w, b in pairs], strict=True))
        self.many = MANY_ROWS if dtype == torch.float32 else MANY_ROWS_BFLOAT16
        self.fused = device.type == "cpu" and _has_fused_linear()
        self.packed: list[list[tuple[Tensor, Tensor]]] = []  # as `by_member`, the weights in oneDNN's own opaque layout

    def copy_(self, weight: Sequence[Tensor], bias: Sequence[Tensor]) -> None:
        """Refill from weights [E, in, out] and biases [E, 1, out] of any dtype."""
        for mine, flipped, other in zip(self.weight, self.transposed, weight, strict=True):
            mine.copy_(other)
            flipped.copy_(other.mT)
        for mine, other in zip(self.bias, bias, strict=True):
            mine.copy_(other)
        if self.fused:
            self.packed = [[(torch.ops.mkldnn._reorder_linear_weight(w, PACKED_ROWS), b) for w, b in layers] for layers in self.by_member]

    def __deepcopy__(self, memo: dict[int, object]) -> "FrozenEnsemble":
        """A copy with tensors of its own; opaque layouts cannot be copied, so they are made anew."""
        twin = FrozenEnsemble(self.members, self.sizes, self.activation, self.bias[0].device, self.dtype)
        twin.copy_(self.weight, self.bias)
        return twin

    def __call__(self, x: Tensor) -> Tensor:
        """Shapes as above; the kernel is chosen by the rows per member."""
        x = x.to(self.dtype)
        if x.device.type != "cpu" or x.shape[1] < self.many:
            return self._batched(x).float()
        if self.packed and x.shape[1] >= PACKED_ROWS:
            return torch.stack([self._fused(x[e], layers) for e, layers in enumerate(self.packed)]).float()
        return torch.stack([self._linear(x[e], layers) for e, layers in enumerate(self.by_member)]).float()

    def _batched(self, x: Tensor) -> Tensor:
        act, last = ACTIVATION[self.activation], len(self.weight) - 1
        for n, (w, b) in enumerate(zip(self.weight, self.bias, strict=True)):
            x = torch.baddbmm(b, x, w)
            x = x if n == last else act(x, inplace=True)
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
    """Whether torch has oneDNN's product with the activation inside and packed weights, operators without a promise of stability."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    ops = torch.ops.mkldnn
    x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")  # elsewhere not measured
    return available and x86 and hasattr(ops, "_linear_pointwise") and hasattr(ops, "_reorder_linear_weight")


class Normalizer(nn.Module):
    """Per-column mean and standard deviation of a data set [N, I]; the identity until fitted. A constant column keeps its scale."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Statistics in float64; sigma < 1e-12 becomes 1. One row has no spread: its columns count as constant."""
        x = x.double()
        std = x.std(0) if len(x) > 1 else torch.zeros_like(x[0])
        self.mean.copy_(x.mean(0))
        self.std.copy_(torch.where(std < 1e-12, 1.0, std))

    def forward(self, x: Tensor) -> Tensor:
        """Columns of mean 0 and standard deviation 1."""
        return (x - self.mean) / self.std

    def inverse(self, x: Tensor) -> Tensor:
        """Back to raw units."""
        return x * self.std + self.mean


@torch.no_grad()
def polyak_(target: nn.Module, online: nn.Module, tau: float) -> None:
    """target <- (1 - tau) target + tau online, over all parameters."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), tau)


@torch.no_grad()
def restore_optimizer_(optimizer: torch.optim.Optimizer, state: dict[str, object]) -> None:
    """Load an optimizer's `state_dict`, writing into its existing tensors where it has them (a captured graph may hold them)."""
    held = {p: dict(slots) for p, slots in optimizer.state.items()}
    optimizer.load_state_dict(state)
    for p, slots in optimizer.state.items():
        for key, value in slots.items():
            old = held.get(p, {}).get(key)
            if isinstance(value, Tensor) and isinstance(old, Tensor):
                slots[key] = old.copy_(value)
