"""Copies of networks in torch's own layers, as exporters need them: without fast paths, whose choice depends on the number of rows.

Letters: E members, B batch, I inputs, O observation.
"""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from mbkit.networks.kernels import EPSILON, EVERY
from mbkit.networks.mlp import LAYER, EnsembleMLP
from mbkit.networks.normalizer import RunningNormalizer


class GreedyRule(nn.Module):
    """A rule for acting without exploration as a module: obs [B, O] -> rule(obs, **parts), actions [B, A], int64 [B] or [B, P].

    An agent whose `act(obs, explore=False)` is not the `mode` of one network returns this from `greedy_module`. The rule takes modules and
    tensors as arguments, since it is called with copies of them; besides it may refer to numbers.
    """

    def __init__(self, rule: Callable[..., Tensor], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.rule = rule
        networks = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
        tensors = {name: nn.Parameter(part.detach(), requires_grad=False) for name, part in parts.items() if isinstance(part, Tensor)}
        self.names = (*networks, *tensors)  # lists below, since torch's dicts have no part called `values`
        self.networks, self.tensors = nn.ModuleList(networks.values()), nn.ParameterList(tensors.values())

    def forward(self, obs: Tensor) -> Tensor:
        """The actions."""
        return self.rule(obs, **dict(zip(self.names, (*self.networks, *self.tensors), strict=True)))


def of_mode(network: nn.Module) -> GreedyRule:
    """obs [B, O] -> network.mode(obs), as a module."""
    return GreedyRule(lambda obs, network: network.mode(obs), network=network)


class Layers(nn.Module):
    """The members of an `EnsembleMLP` as `nn.Linear`, `nn.LayerNorm` and activations; without dropout, as in evaluation."""

    def __init__(self, net: EnsembleMLP) -> None:
        super().__init__()
        self.members = nn.ModuleList(member(net, e) for e in range(net.members))

    def forward(self, x: Tensor, fixed: bool = False, members: slice = EVERY) -> Tensor:
        """x [B, I] or [E, B, I] -> [E, B, out], as `EnsembleMLP.forward`."""
        chosen = self.members[members]
        return torch.stack([layers(rows) for layers, rows in zip(chosen, x.expand(len(chosen), *x.shape[-2:]), strict=True)])


def member(net: EnsembleMLP, e: int) -> nn.Sequential:
    """Network number `e` of an ensemble."""
    layers: list[nn.Module] = []
    for n, (weight, bias) in enumerate(net.layers):
        if n:
            layers.append(LAYER[net.activation]())
        linear = nn.Linear(weight.shape[1], weight.shape[2], device="meta")  # no memory, and no random numbers of the run
        layers.append(with_parameters(linear, weight[e].T, bias[e, 0]))
        if n < len(net.norms):
            gain, shift = net.norms[n]
            layers.append(with_parameters(nn.LayerNorm(gain.shape[-1], eps=EPSILON, device="meta"), gain[e, 0], shift[e, 0]))
    return nn.Sequential(*layers)


def with_parameters(layer: nn.Module, weight: Tensor, bias: Tensor) -> nn.Module:
    """The layer with copies of these as its constant parameters."""
    for name, value in (("weight", weight), ("bias", bias)):
        setattr(layer, name, nn.Parameter(value.detach().clone(memory_format=torch.contiguous_format), requires_grad=False))
    return layer


class Standardized(nn.Module):
    """A `RunningNormalizer` as it is at this moment, without what it would need to go on: (x - mean) / std within +-clip."""

    mean: Tensor
    std: Tensor

    def __init__(self, normalizer: RunningNormalizer) -> None:
        super().__init__()
        self.register_buffer("mean", normalizer.mean.clone())
        self.register_buffer("std", normalizer.std.clone())
        self.clip = normalizer.clip

    def forward(self, x: Tensor) -> Tensor:
        """Columns of mean 0 and standard deviation 1."""
        return ((x - self.mean) / self.std).clamp(-self.clip, self.clip)


PLAIN: dict[type[nn.Module], Callable[..., nn.Module]] = {EnsembleMLP: Layers, RunningNormalizer: Standardized}


def plain(module: nn.Module) -> nn.Module:
    """A copy of the module on the CPU, without gradient and in evaluation mode, all of whose networks are torch's own layers."""
    root = nn.ModuleDict({"module": deepcopy(module)}).cpu().eval().requires_grad_(False)
    twins: dict[nn.Module, nn.Module] = {}  # a network that stands in two places is one in the copy, too
    for parent in list(root.modules()):
        for name, child in list(parent.named_children()):
            make = PLAIN.get(type(child))
            if make is not None:
                setattr(parent, name, twins.setdefault(child, make(child)))
    return root["module"]
