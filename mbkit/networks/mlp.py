"""Fully connected networks: many at once, for critics and ensembles, and a single one, differentiable any number of times.

Letters: E members, B batch, I inputs.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from mbkit.networks.kernels import ACTIVATION, EVERY, MANY_ROWS, Activation, affine, many_rows_mlp, normed_relu_mlp, relu_mlp

Nonlinearity = Literal["tanh", "relu", "silu"]
LAYER = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}


class EnsembleMLP(nn.Module):
    """E networks at once: x [B, I] (the same rows for all) or [E, B, I] -> [E, B, out]; weights [E, in, out], biases [E, 1, out].

    Each hidden layer is: linear, dropout (optional), layer normalisation (optional), activation, in the order of DroQ (arXiv:2110.02034).
    """

    def __init__(
        self, members: int, sizes: Sequence[int], activation: Activation = "relu", layer_norm: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if activation != "relu" and (layer_norm or dropout):
            raise ValueError(f"layer normalisation and dropout stand before a ReLU, not before {activation!r}")
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
        self.norms = list(zip(self.gain, self.shift, strict=True))

    def forward(self, x: Tensor, fixed: bool = False, members: slice = EVERY) -> Tensor:
        """Outputs without an activation on the last layer; shapes as above. Dropout is on in training mode, as in torch.

        `fixed`: the parameters may be taken as constants, so that a gradient reaches x alone. `members`: some of them, x [B, I] or
        [members, B, I].
        """
        gradient = torch.is_grad_enabled()
        if self.norms or self.dropout:
            return normed_relu_mlp(x, self.layers, self.norms, self.dropout if self.training else 0.0, members, fixed)
        if gradient and self.activation == "relu":
            return relu_mlp(x, self.layers, members, fixed)
        layers = self.layers if members is EVERY else [(w[members], b[members]) for w, b in self.layers]
        x = x.expand(len(layers[0][0]), *x.shape[-2:])
        if not gradient and x.device.type == "cpu" and x.shape[1] > 2 * MANY_ROWS:
            return many_rows_mlp(x, layers, self.activation)
        for n, (w, b) in enumerate(layers):
            x = affine(b, x, w)
            x = ACTIVATION[self.activation](x, inplace=not gradient) if n < len(layers) - 1 else x
        return x


@torch.no_grad()
def truncated_normal_init_(net: EnsembleMLP) -> EnsembleMLP:
    """PETS' initialisation: weights from a normal distribution with sigma 1 / (2 sqrt(fan in)) cut at two sigmas, biases zero."""
    for w, b in zip(net.weight, net.bias, strict=True):
        sigma = 1 / (2 * math.sqrt(w.shape[1]))
        nn.init.trunc_normal_(w, std=sigma, a=-2 * sigma, b=2 * sigma)
        b.zero_()
    return net


@torch.no_grad()
def orthogonal_init_(net: EnsembleMLP, last_gain: float = 1.0) -> EnsembleMLP:
    """The initialisation of `mlp`, of every member: orthogonal weights (gain sqrt 2; the last layer `last_gain`) and zero biases."""
    for n, (w, b) in enumerate(net.layers):
        for member in w:
            nn.init.orthogonal_(member, last_gain if n == len(net.layers) - 1 else math.sqrt(2))
        b.zero_()
    return net


def mlp(sizes: Sequence[int], activation: Nonlinearity = "tanh", last_gain: float = 1.0) -> nn.Sequential:
    """One network with orthogonal weights (gain sqrt 2; the last layer `last_gain`) and zero biases."""
    linear = [nn.Linear(i, o) for i, o in pairwise(sizes)]
    for layer in linear:
        nn.init.orthogonal_(layer.weight, last_gain if layer is linear[-1] else math.sqrt(2))
        nn.init.zeros_(layer.bias)
    hidden = [module for layer in linear[:-1] for module in (layer, LAYER[activation]())]
    return nn.Sequential(*hidden, linear[-1])
