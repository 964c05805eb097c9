"""Fast paths of an ensemble's rollouts, which nobody has to read to follow the algorithm: weights and rows laid out for batched products.

Letters: K elites, B rows, R rows per elite, I input, D prediction, F outputs.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mbkit.dynamics.network import EnsembleNetwork, Gaussian
from mbkit.networks.frozen import FrozenEnsemble


class FrozenElites:
    """The elites' raw outputs [K, R, F] for raw inputs [K, R, I], without gradient; normalisers are folded into first and last layer.

    Tensors are refilled in place by `refresh`, so that a captured CUDA graph keeps seeing the current weights.
    """

    def __init__(self, network: EnsembleNetwork) -> None:
        self.network, self.count = network, network.cfg.elites
        self.folds_inputs = network.cfg.precision == "float32"
        dtype = torch.float32 if network.cfg.precision == "float32" else torch.bfloat16
        self.layers = FrozenEnsemble(self.count, network.net.sizes, "silu", network.spec.device, dtype)
        self.var_bounds = torch.zeros(2, network.output_dim, device=network.spec.device)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the elites' weights, in float64: x -> ((x - m) / s) W + b becomes W / s, b - (m / s) W, and y -> t y + u W t, b + u."""
        network = self.network
        weight = [w[network.elites].double() for w in network.net.weight]
        bias = [b[network.elites].double() for b in network.net.bias]
        if self.folds_inputs:  # bfloat16 could not hold an observation far from zero: there the rows are normalised instead
            weight[0] = weight[0] / network.inputs.std.double()[:, None]
            bias[0] = bias[0] - (network.inputs.mean.double() @ weight[0])[:, None]
        d, scale = network.output_dim, network.targets.std.double()
        weight[-1][..., :d] *= scale
        bias[-1][..., :d] = bias[-1][..., :d] * scale + network.targets.mean.double()
        if network.cfg.probabilistic:
            bias[-1][..., d : 2 * d] += network.log_scale()
        self.layers.copy_(weight, bias)
        self.var_bounds.copy_((network.logvar_bounds.double() + network.log_scale()).exp())

    def __call__(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        return self.layers(self.network.inputs.bound(x) if self.folds_inputs else self.network.inputs(x))

    def gaussian(self, outputs: Tensor) -> Gaussian:
        """Raw outputs [..., F] as distributions in raw units; means are changes where changes are predicted."""
        mean, raw, logit = self.network.split(outputs)
        return Gaussian(mean, None if raw is None else soft_bounded_std(raw, *self.var_bounds), logit)


def soft_bounded_std(raw: Tensor, var_low: Tensor, var_high: Tensor) -> Tensor:
    """The square root of exp(`soft_bounded_logvar`) in closed form: the variance is var_low + 1 / (1 / var_high + exp(-raw))."""
    return raw.neg().exp_().add_(var_high.reciprocal()).reciprocal_().add_(var_low).sqrt_()


class Blocks(NamedTuple):
    """B rows in K contiguous blocks whose sizes differ by at most one, padded to R = ceil(B / K) rows each."""

    source: Tensor  # [K R] index of the row at each place; padding repeats a neighbour
    place: Tensor  # [B] place of each row


def blocks(rows: int, members: int, device: torch.device) -> Blocks | None:
    """The places of B rows, row r with member floor(r K / B); None where K divides B and nothing needs to move."""
    if rows % members == 0:
        return None
    size = -(-rows // members)
    first = -(-torch.arange(members, device=device) * rows // members)  # ceil(k B / K), the first row of each block
    source = (first[:, None] + torch.arange(size, device=device)).clamp(max=rows - 1).flatten()
    row = torch.arange(rows, device=device)
    member = row * members // rows
    return Blocks(source, member * size + row - first[member])


def deal(rows: int, members: int, device: torch.device) -> Blocks:
    """`blocks` of a random order of the rows, from torch's global generator: equal shares."""
    # sorting random numbers can be captured in a CUDA graph; randperm is 4 times faster on a CPU
    order = torch.rand(rows, device=device).argsort() if device.type == "cuda" else torch.randperm(rows, device=device)
    place = torch.empty_like(order)
    fixed = blocks(rows, members, device)
    if fixed is None:
        return Blocks(order, place.index_copy_(0, order, torch.arange(rows, device=device)))
    return Blocks(order[fixed.source], place.index_copy_(0, order, fixed.place))
