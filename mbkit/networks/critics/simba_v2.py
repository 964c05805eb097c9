"""Critics on the unit sphere: SimbaV2 (Lee et al. 2025, arXiv:2502.15280). Letters: E members, B rows, W width, L blocks.

Weights and features have norm 1; learned scales stand where norms were, and a block interpolates between its input and its output.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mbkit.networks.critics.simba import WIDER, blocks_of
from mbkit.networks.form import CriticForm
from mbkit.networks.kernels import affine
from mbkit.networks.members import Members, Use, constant, orthogonal, unit_columns_
from mbkit.registry import critics
from mbkit.types import NoOptions

SHIFT = 3.0  # a constant beside the inputs, so that their length survives the projection to the sphere (c_shift)


def scaled(members: int, size: int, first: float, pace: float) -> nn.ParameterList:
    """A vector of scales that begins at `first` and is learned as if in units of `pace` (eq. 8): s = theta first / pace, theta = pace."""
    return nn.ParameterList([constant(members, size, pace), nn.Parameter(torch.full((members, 1, 1), first / pace), requires_grad=False)])


@critics.register("simba_v2", NoOptions)
class SimbaV2(Members):
    """Residual blocks on the unit sphere, weights of unit norm, of normalised observations."""

    normalizes_obs = True

    def __init__(self, members: int, sizes: Sequence[int], form: CriticForm) -> None:
        super().__init__()
        self.members = members
        width, blocks = blocks_of("simba_v2", sizes)
        near, wide = math.sqrt(2 / width), math.sqrt(2 / (WIDER * width))
        self.weight = nn.ParameterList([orthogonal(members, sizes[0] + 1, width)])
        self.scale = nn.ModuleList([scaled(members, width, near, near)])
        self.blend = nn.ModuleList(scaled(members, width, 1 / (blocks + 1), 1 / math.sqrt(width)) for _ in range(blocks))
        for _ in range(blocks):
            self.weight.extend([orthogonal(members, width, WIDER * width), orthogonal(members, WIDER * width, width)])
            self.scale.append(scaled(members, WIDER * width, wide, wide))
        self.weight.extend([orthogonal(members, width, width), orthogonal(members, width, sizes[-1])])
        self.scale.append(scaled(members, width, 1.0, 1 / math.sqrt(width)))
        self.bias = constant(members, sizes[-1], 0.0)
        self.free = form.loss not in ("hl_gauss", "c51")  # a value that is a number needs a last layer of any size
        self.project_()

    def network(self, x: Tensor, use: Use) -> Tensor:
        """Onto the sphere, then norm((1 - b) x + b norm(W_2 relu(s W_1 x))) for every block, then W_2 (s W_1 x) + bias."""

        def times(s: nn.Module, x: Tensor) -> Tensor:
            return x * (use(s[0]) * use(s[1]))  # type: ignore[index]

        def linear(n: int, x: Tensor) -> Tensor:
            return torch.bmm(x, use(self.weight[n]))

        x = F.normalize(torch.cat((x, x.new_full((*x.shape[:-1], 1), SHIFT)), -1), dim=-1)
        x = F.normalize(times(self.scale[0], linear(0, x)), dim=-1)
        for n, blend in enumerate(self.blend):
            h = F.normalize(linear(2 * n + 2, times(self.scale[n + 1], linear(2 * n + 1, x)).relu()), dim=-1)
            x = F.normalize(x + times(blend, h - x), dim=-1)
        return affine(use(self.bias), times(self.scale[-1], linear(-2, x)), use(self.weight[-1]))

    def project_(self) -> None:
        """Every output's weights have norm 1 again."""
        for weight in self.weight[:-1] if self.free else self.weight:
            unit_columns_(weight.data)
