"""Networks of fully connected layers: many at once, for critics and ensembles, and one alone, differentiable as often as is wanted.

Letters: E members, B batch.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mbkit.networks.kernels import ACTIVATION, EVERY, MANY_ROWS, Activation, ReluMLP, member_by_member

Nonlinearity = Literal["tanh", "relu", "silu"]
LAYER = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}


class EnsembleMLP(nn.Module):
    """E networks at once: x [B, I] (the same rows for all) or [E, B, I] -> [E, B, out]; weights [E, in, out], biases [E, 1, out].

    Each hidden layer is: linear, dropout (if any), layer normalisation (if wanted), activation, the order of DroQ (arXiv:2110.02034).
    """

    def __init__(
        self, members: int, sizes: Sequence[int], activation: Activation = "relu", layer_norm: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.members, self.sizes, self.activation, self.dropout = members, tuple(sizes), activation, dropout
        self.weight = nn.ParameterList()
        self.bias = nn.ParameterList()
        self.gain, self.shift = nn.ParameterList(), nn.ParameterList()  # of the layer normalisation, [E, 1, out]
        for i, o in pairwise(sizes):
            bound = 1 / math.sqrt(i)
            self.weight.append(nn.Parameter(torch.empty(members, i, o).uniform_(-bound, bound)))
            self.bias.append(nn.Parameter(torch.empty(members, 1, o).uniform_(-bound, bound)))
        for width in sizes[1:-1] if layer_norm else ():
            self.gain.append(nn.Parameter(torch.ones(members, 1, width)))
            self.shift.append(nn.Parameter(torch.zeros(members, 1, width)))
        self.layers = list(zip(self.weight, self.bias, strict=True))  # the same parameters: a ParameterList is slow to walk

    def forward(self, x: Tensor, fixed: bool = False) -> Tensor:
        """Outputs without an activation on the last layer; shapes as above. Dropout is on in training mode, as in torch.

        `fixed` takes the parameters as constants: a gradient reaches x alone.
        """
        if self.gain or self.dropout:
            return self._regularised(x)
        if x.device.type == "cpu" and x.shape[-2] >= 2 * MANY_ROWS and not torch.is_grad_enabled():
            inputs = x.expand(self.members, *x.shape[-2:])
            return member_by_member(inputs, self.sizes[-1], self.member)
        if self.activation == "relu" and torch.is_grad_enabled():
            return self.relu(x, fixed=fixed)
        act, last, inplace = ACTIVATION[self.activation], len(self.layers) - 1, not torch.is_grad_enabled()
        x = x.expand(self.members, *x.shape[-2:])
        for n, (w, b) in enumerate(self.layers):
            x = torch.baddbmm(b, x, w)
            x = x if n == last else act(x, inplace=inplace)
        return x

    def relu(self, x: Tensor, members: slice = EVERY, fixed: bool = False) -> Tensor:
        """Some of the members, with the backward pass of `ReluMLP`; shapes as above."""
        params = [p if members is EVERY else p[members] for pair in self.layers for p in pair]
        out: Tensor = ReluMLP.apply(x, *(p.detach() for p in params) if fixed else params)  # type: ignore[no-untyped-call]
        return out

    def _regularised(self, x: Tensor) -> Tensor:
        act = ACTIVATION[self.activation]
        x = x.expand(self.members, *x.shape[-2:])
        for n, (w, b) in enumerate(zip(self.weight, self.bias, strict=True)):
            x = torch.baddbmm(b, x, w)
            if n == len(self.weight) - 1:
                return x
            x = F.dropout(x, self.dropout, self.training) if self.dropout else x
            x = F.layer_norm(x, x.shape[-1:]) * self.gain[n] + self.shift[n] if self.gain else x
            x = act(x)
        return x

    def member(self, e: int, x: Tensor) -> Tensor:
        """One network without dropout and normalisation, x [B, I] -> [B, out], no gradient; on a CPU the fastest way for many rows."""
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


def mlp(sizes: Sequence[int], activation: Nonlinearity = "tanh", last_gain: float = 1.0) -> nn.Sequential:
    """Layers with orthogonal weights (gain sqrt 2; the last layer `last_gain`) and zero biases; differentiable as often as is wanted."""
    layers: list[nn.Module] = []
    for i, o in pairwise(sizes):
        layers += [nn.Linear(i, o), LAYER[activation]()]
    layers.pop()
    for n, layer in enumerate(layers):
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, last_gain if n == len(layers) - 1 else math.sqrt(2))
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)
