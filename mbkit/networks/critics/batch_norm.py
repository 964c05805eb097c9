"""Critics with batch normalisation: CrossQ (Bhatt et al. 2024, arXiv:1902.05605), XQC (Palenicek et al. 2025, arXiv:2509.25174).

Pairs (s, a) and (s', a') are normalised by the statistics of both together, in one batch; elsewhere by running statistics, which are
parameters without gradient, so that target networks follow them. Every output's weights have norm 1 (XQC), those of the last layer only
where values are distributions; behind a normalisation a weight's size sets nothing but how fast it turns.
Letters: E members, B rows, W width.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mbkit.networks.form import CriticForm
from mbkit.networks.kernels import EVERY, ReluMLP
from mbkit.networks.members import Members, Use, constant, orthogonal, unit_columns_
from mbkit.registry import critics
from mbkit.types import NoOptions

MOMENTUM, EPSILON = 0.01, 1e-3  # share of a batch in the running statistics, and what is added to a variance. CrossQ: the same


@critics.register("batch_norm", NoOptions)
class BatchNorm(Members):
    """Batch normalisation of the inputs and before every ReLU, weights of unit norm."""

    def __init__(self, members: int, sizes: Sequence[int], form: CriticForm) -> None:
        super().__init__()
        self.members = members
        self.weight = nn.ParameterList(orthogonal(members, i, o) for i, o in pairwise(sizes))
        self.gain = nn.ParameterList(constant(members, width, 1.0) for width in sizes[1:-1])
        self.shift = nn.ParameterList(constant(members, width, 0.0) for width in sizes[1:-1])
        self.bias = constant(members, sizes[-1], 0.0)
        self.mean = nn.ParameterList(constant(members, width, 0.0) for width in sizes[:-1]).requires_grad_(False)
        self.var = nn.ParameterList(constant(members, width, 1.0) for width in sizes[:-1]).requires_grad_(False)
        self.projected = list(self.weight if form.loss in ("hl_gauss", "c51") else self.weight[:-1])
        self.project_()

    def network(self, x: Tensor, use: Use) -> Tensor:
        """By the running statistics, where a normalisation is a part of the next linear layer: ReLU layers with other weights."""
        scale = [(use(var) + EPSILON).rsqrt() for var in self.var]
        shift = [-use(mean) * s for mean, s in zip(self.mean, scale, strict=True)]
        weight = [use(w) for w in self.weight]
        bias = torch.bmm(shift[0], weight[0]) * scale[1] + shift[1]
        weight[0] = scale[0].mT * weight[0]
        layers: list[Tensor] = []
        for n, (gain, begin) in enumerate(zip(self.gain, self.shift, strict=True), 1):
            bias = bias if n == 1 else shift[n]
            layers += [weight[n - 1] * (scale[n] * use(gain)), torch.addcmul(use(begin), bias, use(gain))]
        out: Tensor = ReluMLP.apply(x, *layers, weight[-1], use(self.bias))  # type: ignore[no-untyped-call]
        return out

    def joint(self, x: Tensor, learn: bool, wanted: slice = EVERY) -> Tensor:
        """x [B, I] -> [E, B, out] by the statistics of these rows, of the wanted ones; `learn`: the running ones move towards them."""
        return torch.stack([self.member(x, e, learn, wanted) for e in range(self.members)])

    def member(self, x: Tensor, e: int, learn: bool, wanted: slice = EVERY) -> Tensor:
        """One network: normalised, then linear, normalised, ReLU for every hidden layer, then linear; [B, I] -> [B, out]."""
        x = self.normalized(x, e, 0, None, None, learn)
        for n, (gain, shift) in enumerate(zip(self.gain, self.shift, strict=True), 1):
            x = self.normalized(torch.mm(x, self.weight[n - 1][e]), e, n, gain[e, 0], shift[e, 0], learn).relu()
        return torch.addmm(self.bias[e], x[wanted], self.weight[-1][e])

    def normalized(self, x: Tensor, e: int, n: int, gain: Tensor | None, shift: Tensor | None, learn: bool) -> Tensor:
        """Rows [B, W] by their own statistics, times gain plus shift [W], before the n-th linear layer of network e."""
        out, mean, factor = torch.native_batch_norm(x, gain, shift, None, None, True, 0.0, EPSILON)
        if learn:
            with torch.no_grad():
                self.mean[n][e, 0].lerp_(mean, MOMENTUM)
                self.var[n][e, 0].lerp_(factor.pow(-2) - EPSILON, MOMENTUM)
        return out

    def project_(self) -> None:
        """Every output's weights have norm 1 again."""
        for weight in self.projected:
            unit_columns_(weight.data)
