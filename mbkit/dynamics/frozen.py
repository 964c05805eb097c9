"""Fast paths of an ensemble's rollouts, which nobody has to read to follow the algorithm: weights and rows laid out for batched products.

Letters: K elites, B rows, R rows per elite, I input, D prediction, F outputs.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mbkit.accelerate import fused
from mbkit.dynamics.network import EnsembleNetwork, Gaussian
from mbkit.networks.frozen import FrozenEnsemble
from mbkit.types import ObsProcess


class FrozenElites:
    """The elites' raw outputs [K, R, F] for `inputs` [K, R, I], as constants; normalisers are folded into first and last layer.

    A raw log-variance comes less its upper bound, so that a sigmoid makes a variance of it (`bounded_std`). Tensors are refilled in place
    by `refresh`, so that a captured CUDA graph keeps seeing the current weights.
    """

    def __init__(self, network: EnsembleNetwork) -> None:
        self.network, self.count = network, network.cfg.elites
        self.folds_inputs = network.cfg.precision == "float32"
        dtype = torch.float32 if network.cfg.precision == "float32" else torch.bfloat16
        self.layers = FrozenEnsemble(self.count, network.net.sizes, "silu", network.spec.device, dtype)
        self.var_bounds = torch.zeros(2, network.output_dim, device=network.spec.device)
        self.observed = network.input_dim - network.spec.action_dim  # columns of the inputs that come from the observation
        self.entered, self.sampled = fused(entered, network.spec.device), fused(bounded_sample, network.spec.device)
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
            bias[-1][..., d : 2 * d] -= network.logvar_bounds[1].double()
        self.layers.copy_(weight, bias)
        self.var_bounds.copy_((network.logvar_bounds.double() + network.log_scale()).exp())

    def inputs(self, obs: Tensor, action: Tensor) -> Tensor:
        """What the layers see of raw observations [..., O] and encoded actions [..., A]: [..., I]."""
        normalizer, o, preprocess = self.network.inputs, self.observed, self.network.task.preprocess
        moments = () if self.folds_inputs else (normalizer.mean, normalizer.std)
        enter = entered if torch.is_grad_enabled() else self.entered  # a compiled kernel has no gradient
        return enter(obs, action, preprocess, normalizer.low[:o], normalizer.high[:o], *moments)

    def __call__(self, x: Tensor) -> Tensor:
        """Shapes as above."""
        return self.layers(x)

    def gaussian(self, outputs: Tensor) -> Gaussian:
        """Raw outputs [..., F] as distributions in raw units; means are changes where changes are predicted."""
        mean, raw, logit = self.network.split(outputs)
        return Gaussian(mean, None if raw is None else bounded_std(raw, *self.var_bounds), logit)

    def sample(self, outputs: Tensor, noise: Tensor | None) -> Tensor:
        """An outcome [B, D] of each row, from raw outputs [B, F] and standard normal noise [B, D]; the mean where nothing is random."""
        mean, raw, _ = self.network.split(outputs)
        sampled = bounded_sample if torch.is_grad_enabled() else self.sampled
        return mean if raw is None or noise is None else sampled(mean, raw, noise, *self.var_bounds)


def entered(obs: Tensor, action: Tensor, preprocess: ObsProcess | None, low: Tensor, high: Tensor, *moments: Tensor) -> Tensor:
    """Observations as networks see them, within their bounds, beside the encoded actions.

    `moments`, where the first layer does not hold them: the mean and the deviation to normalise with, for layers in bfloat16.
    """
    x = torch.cat(((obs if preprocess is None else preprocess(obs)).clamp(low, high), action), -1)
    return ((x - moments[0]) / moments[1]).bfloat16() if moments else x


def bounded_std(raw: Tensor, var_low: Tensor, var_high: Tensor) -> Tensor:
    """The square root of exp(`soft_bounded_logvar`): the variance is var_low + var_high sigmoid(raw), of raw less its upper bound."""
    # on a CPU operators on slices of narrow rows are slow, and a copy is fast
    rate = raw.clone(memory_format=torch.contiguous_format).sigmoid_() if raw.device.type == "cpu" else raw.sigmoid()
    return torch.addcmul(var_low, var_high, rate).sqrt_()


def bounded_sample(mean: Tensor, raw: Tensor, noise: Tensor, var_low: Tensor, var_high: Tensor) -> Tensor:
    """mean + std noise, with `bounded_std`."""
    return torch.addcmul(mean, bounded_std(raw, var_low, var_high), noise)


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
