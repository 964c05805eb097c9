"""How the outputs of critics stand for values: a number, or a distribution over a fixed support of returns.

A distribution is a softmax over Z atoms; its mean, in units of reward, is the value that every other part of mbkit sees.
Letters: K critics, N rows of targets, Z atoms, S seeds: values of S seeds are [K, S, N].
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mbkit.networks.form import CriticForm
from mbkit.types import Targets

BOUND, ATOMS = 5.0, 101  # the support, in return scales: [-5, 5] by 101 atoms. XQC, SimbaV2: the same
SIGMA = 0.75  # standard deviation of `hl_gauss`, in distances of atoms (Farebrother et al. 2024, arXiv:2403.03950, section 3.1)


def regression_loss(q: Tensor, y: Targets) -> Tensor:
    """Half the squared error of K critics, q [K, N] against targets [N]: weighted mean over rows, summed over critics. [K, S, N]: [S].

    Because of the sum, a critic's gradient does not depend on the number of critics.
    """
    square = (q - y.target).square()
    return 0.5 * (square if y.weight is None else y.weight * square).mean(-1).sum(0)


@torch.no_grad()
def regression_slope(q: Tensor, y: Targets) -> Tensor:
    """The gradient of `regression_loss` in q, [K, N]: weight (q - y) / N."""
    share = 1 / q.shape[-1]
    return (q - y.target).mul_(share if y.weight is None else y.weight * share)


class Squared:
    """One output, which is the value, with half the squared error as its loss, or Huber's, which is linear beyond an error of 1."""

    width = 1

    def __init__(self, huber: bool = False) -> None:
        self.huber = huber

    def values(self, out: Tensor) -> Tensor:
        """Outputs [K, N, 1] -> values [K, N]."""
        return out.squeeze(-1)

    def slopes(self, out: Tensor, slope: Tensor) -> Tensor:
        """The gradient in the outputs [K, N, 1], from that in the values [K, N]."""
        return slope.unsqueeze(-1)

    def loss(self, out: Tensor, y: Targets) -> Tensor:
        """`regression_loss`, 0-d, or Huber's: weighted mean over rows, summed over critics."""
        q = self.values(out)
        if not self.huber:
            return regression_loss(q, y)
        error = F.huber_loss(q, y.target.expand_as(q), reduction="none")
        return (error if y.weight is None else y.weight * error).mean(-1).sum(0)

    def loss_slopes(self, out: Tensor, y: Targets) -> Tensor:
        """The gradient of the loss in the outputs, [K, N, 1]: mean over rows, sum over critics."""
        q = self.values(out)
        if not self.huber:
            return regression_slope(q, y).unsqueeze(-1)
        share = 1 / q.shape[-1]
        return (q - y.target).clamp_(-1, 1).mul_(share if y.weight is None else y.weight * share).unsqueeze(-1)


class Distributional(nn.Module):
    """Z logits of returns z_1 .. z_Z times the return scale; the loss is the cross-entropy beside the distribution of the target.

    That is the next state's distribution, moved (`c51`, Bellemare et al. 2017, arXiv:1707.06887, algorithm 1), or for a target that is a
    number a normal distribution round it (`hl_gauss`, arXiv:2403.03950, section 3.1). Targets beyond the support count as its end.
    """

    width = ATOMS
    support: Tensor  # [Z] z, in return scales
    scale: Tensor  # 0-d, the return scale in units of reward

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("support", torch.linspace(-BOUND, BOUND, ATOMS), persistent=False)
        self.register_buffer("scale", torch.ones(()))
        self.step = 2 * BOUND / (ATOMS - 1)  # distance of two atoms

    def values(self, out: Tensor) -> Tensor:
        """Outputs [K, N, Z] -> their means in units of reward, [K, N]."""
        mean: Tensor = out.softmax(-1) @ self.support
        return mean * self.scale

    def slopes(self, out: Tensor, slope: Tensor) -> Tensor:
        """The gradient in the outputs [K, N, Z] from that in the values [K, N]: scale p_i (z_i - mean)."""
        p = out.softmax(-1)
        mean = p @ self.support
        return p.mul_(self.support - mean[..., None]).mul_((slope * self.scale)[..., None])

    def loss(self, out: Tensor, y: Targets) -> Tensor:
        """The cross-entropy, 0-d: weighted mean over rows, summed over critics."""
        error = -(self.wanted(y) * out.log_softmax(-1)).sum(-1)
        return (error if y.weight is None else y.weight * error).mean(-1).sum(0)

    @torch.no_grad()
    def loss_slopes(self, out: Tensor, y: Targets) -> Tensor:
        """The gradient of the loss in the outputs [K, N, Z]: weight (p - wanted) / N."""
        share = 1 / out.shape[-2]
        return (out.softmax(-1) - self.wanted(y)).mul_(share if y.weight is None else (y.weight * share)[:, None])

    def wanted(self, y: Targets) -> Tensor:
        """The distributions of the targets, [N, Z]."""
        return self.around(y.target) if y.probs is None else y.probs

    def around(self, target: Tensor) -> Tensor:
        """The mass of N(y, SIGMA) within half a step of every atom, y the target [N]; sums to 1 over the support, [N, Z]."""
        centre = (target / self.scale).clamp(-BOUND, BOUND)[:, None]
        edges = torch.cat((self.support - self.step / 2, self.support[-1:] + self.step / 2))
        below = torch.special.erf((edges - centre) / (math.sqrt(2) * SIGMA * self.step))
        mass: Tensor = below.diff(dim=-1)
        whole: Tensor = below[:, -1:] - below[:, :1]
        return mass / whole

    def projected(self, probs: Tensor, shift: Tensor, factor: Tensor) -> Tensor:
        """The distribution of shift + factor R, [N, Z], of returns R with `probs` [N, Z]; shift [N] in units of reward, factor [N].

        Every atom's mass is shared by the two atoms that it comes to lie between.
        """
        place = (shift / self.scale)[:, None] + factor[:, None] * self.support
        place = ((place.clamp(-BOUND, BOUND) + BOUND) / self.step).clamp(0, ATOMS - 1)
        low = place.floor().nan_to_num(0).clamp(max=ATOMS - 2)  # of what is no number, no place outside; its mass is no number
        part, low = probs * (place - low), low.long()
        return torch.zeros_like(probs).scatter_add_(1, low, probs - part).scatter_add_(1, low + 1, part)

    def outside(self, y: Targets) -> Tensor:
        """The share of targets that lie beyond the support, 0-d."""
        beyond: Tensor = (y.target / self.scale).abs() > BOUND
        return beyond.float().mean()


Outputs = Squared | Distributional


def unit_of(outputs: Outputs) -> Tensor | float:
    """What their values are learned in units of, in units of reward: the return scale, 0-d, or 1."""
    return outputs.scale if isinstance(outputs, Distributional) else 1.0


def outputs_of(form: CriticForm) -> Outputs:
    """How critics of this form stand for values."""
    return Squared(form.loss == "huber") if form.loss in ("mse", "huber") else Distributional()
