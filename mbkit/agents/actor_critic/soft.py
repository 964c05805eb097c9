"""What soft actor-critics share: the value of a policy with its entropy, and the temperature (Haarnoja et al. 2018, arXiv:1812.05905).

Letters: B batch, K critics. Of S seeds, stacked: q [K, S, B], log pi [S, B], alpha [S].
"""

import torch
from torch import Tensor, nn

from mbkit.agents.critics import CriticAgent
from mbkit.networks.values import unit_of


class TemperedAgent(CriticAgent):
    """A soft actor-critic with the logarithm of its temperature, learned or fixed."""

    log_alpha: nn.Parameter  # 0-d, of S seeds [S]; beside distributions in return scales, as if rewards were divided by the scale

    @property
    def alpha(self) -> Tensor:
        """The temperature in units of reward, 0-d, of S seeds [S]."""
        return self.log_alpha.detach().exp() * unit_of(self.bootstrap.outputs)


def soft_value(q: Tensor, log_prob: Tensor, alpha: Tensor, mean: bool = False) -> Tensor:
    """Eq. 3: V(s) = min_k Q_k(s, a) - alpha log pi(a|s), [B], of a ~ pi(.|s): q [K, B], log pi [B]."""
    return torch.addcmul(q.mean(0) if mean else q.amin(0), alpha[..., None], log_prob, value=-1)


@torch.no_grad()
def policy_slopes(q: Tensor, alpha: Tensor, mean: bool = False) -> tuple[Tensor, Tensor]:
    """The gradients of eq. 7's loss, -E V(s), in q [K, B] and in log pi [B]."""
    share = 1 / q.shape[-1]
    slope = torch.full_like(q, -share / len(q)) if mean else torch.zeros_like(q).scatter_(0, q.argmin(0, keepdim=True), -share)
    return slope, (alpha * share)[..., None].expand(q.shape[1:])


def log_temperature(fixed: float | None, initial: float) -> nn.Parameter:
    """log alpha: a constant where alpha is fixed, else a parameter that begins at the initial alpha."""
    return nn.Parameter(torch.tensor(initial if fixed is None else fixed).log(), requires_grad=fixed is None)


@torch.no_grad()
def temperature_loss(alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Eq. 18: raises alpha while the entropy is below its target. It is its own gradient in log alpha."""
    return alpha * (-target_entropy - log_prob.mean(-1))
