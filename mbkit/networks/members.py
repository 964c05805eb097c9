"""E networks of any architecture at once, of which some may be asked, or all as constants.

Letters: E members, B rows, I inputs, O outputs.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mbkit.networks.kernels import EVERY

Use = Callable[[Tensor], Tensor]  # a parameter [E, ...] -> that of the members that are asked, a constant where all are


class Members(nn.Module):
    """E networks whose parameters all have the members as first dimension; a subclass writes `network`."""

    members: int  # E

    def forward(self, x: Tensor, fixed: bool = False, members: slice = EVERY) -> Tensor:
        """As `EnsembleMLP.forward`: x [B, I] or [E, B, I] -> [E, B, O]; `fixed`: the parameters are constants; `members`: some of them."""

        def use(p: Tensor) -> Tensor:
            p = p if members is EVERY else p[members]
            return p.detach() if fixed else p

        count = len(range(*members.indices(self.members)))
        return self.network(x.expand(count, *x.shape[-2:]), use)

    def network(self, x: Tensor, use: Use) -> Tensor:
        """x [E, B, I] -> [E, B, O], with parameters by `use`."""
        raise TypeError(f"{type(self).__name__} has no network")


def orthogonal(members: int, inputs: int, outputs: int, gain: float = 1.0) -> nn.Parameter:
    """Orthogonal weights [E, inputs, outputs] times `gain`."""
    weight = torch.empty(members, inputs, outputs)
    for w in weight:
        nn.init.orthogonal_(w, gain)
    return nn.Parameter(weight)


def he_normal(members: int, inputs: int, outputs: int) -> nn.Parameter:
    """Weights [E, inputs, outputs] of standard deviation sqrt(2 / inputs), for a ReLU after them."""
    return nn.Parameter(torch.randn(members, inputs, outputs) * math.sqrt(2 / inputs))


def constant(members: int, size: int, value: float) -> nn.Parameter:
    """A parameter [E, 1, size] that begins at `value`."""
    return nn.Parameter(torch.full((members, 1, size), value))


@torch.no_grad()
def unit_columns_(weight: Tensor) -> None:
    """Weights [E, I, O]: those of every output are divided by their norm, in place."""
    weight.div_(weight.square().sum(1, keepdim=True).sqrt().clamp(min=1e-8))  # six times faster than vector_norm over columns
