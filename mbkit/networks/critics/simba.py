"""Critics of residual blocks with layer normalisation: Simba (Lee et al. 2025, arXiv:2410.09754). Letters: E members, B rows, W width."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mbkit.errors import UserError
from mbkit.networks.form import CriticForm
from mbkit.networks.kernels import affine
from mbkit.networks.members import Members, Use, constant, he_normal, orthogonal
from mbkit.registry import critics
from mbkit.types import NoOptions

WIDER = 4  # a block's hidden layer, in widths


def blocks_of(name: str, sizes: Sequence[int]) -> tuple[int, int]:
    """Width and number of the residual blocks, one for each hidden layer; UserError where widths differ."""
    hidden = sizes[1:-1]
    if not hidden or len(set(hidden)) > 1:
        raise UserError(f"agent.critic={name} has one residual block for each of agent.hidden; expected equal widths, got {list(hidden)}")
    return hidden[0], len(hidden)


@critics.register("simba", NoOptions)
class Simba(Members):
    """Residual blocks, each with layer normalisation before it, of normalised observations."""

    normalizes_obs = True

    def __init__(self, members: int, sizes: Sequence[int], form: CriticForm) -> None:
        super().__init__()
        self.members = members
        width, blocks = blocks_of("simba", sizes)
        self.enter = nn.ParameterList([orthogonal(members, sizes[0], width), constant(members, width, 0.0)])
        self.up = nn.ParameterList(he_normal(members, width, WIDER * width) for _ in range(blocks))
        self.up_bias = nn.ParameterList(constant(members, WIDER * width, 0.0) for _ in range(blocks))
        self.down = nn.ParameterList(he_normal(members, WIDER * width, width) for _ in range(blocks))
        self.down_bias = nn.ParameterList(constant(members, width, 0.0) for _ in range(blocks))
        self.gain = nn.ParameterList(constant(members, width, 1.0) for _ in range(blocks + 1))
        self.shift = nn.ParameterList(constant(members, width, 0.0) for _ in range(blocks + 1))
        self.leave = nn.ParameterList([orthogonal(members, width, sizes[-1]), constant(members, sizes[-1], 0.0)])

    def network(self, x: Tensor, use: Use) -> Tensor:
        """linear, then x + W_2 relu(W_1 norm(x)) for every block, then norm and linear."""

        def norm(n: int, x: Tensor) -> Tensor:
            return torch.addcmul(use(self.shift[n]), F.layer_norm(x, x.shape[-1:]), use(self.gain[n]))

        x = affine(use(self.enter[1]), x, use(self.enter[0]))
        for n in range(len(self.up)):
            h = affine(use(self.up_bias[n]), norm(n, x), use(self.up[n])).relu()
            x = x + affine(use(self.down_bias[n]), h, use(self.down[n]))
        return affine(use(self.leave[1]), norm(len(self.up), x), use(self.leave[0]))
