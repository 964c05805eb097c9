"""Distributions over actions, discrete and continuous: the output of policy-gradient learners and discrete actor-critics.

All have the methods sample, mode, log_prob, entropy and kl, so that an algorithm is written once for all kinds of actions.
Letters: B rows of any shape, A dimensions of an action or number of discrete actions, P discrete actions taken at once, of at most N
actions each.
"""

import math
from typing import NamedTuple, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
IMPOSSIBLE = -1e9  # the logit of an action that there is not: its probability is 0, and products with its logarithm stay finite
D = TypeVar("D", "Categorical", "Categoricals", "ClippedGaussian")


def log_volume(raw: Tensor) -> Tensor:
    """Log-derivative of tanh, elementwise: log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), without cancellation."""
    return 2 * (math.log(2) - raw - F.softplus(-2 * raw))


def unsquash(action: Tensor, edge: float) -> Tensor:
    """Inverse squashing: u of actions tanh(u), which are first clamped to +-`edge` < 1, since those of 1 would be infinite."""
    return action.clamp(-edge, edge).atanh()


def squashed_log_prob(mean: Tensor, log_std: Tensor, raw: Tensor) -> Tensor:
    """Log-density [...] of the action tanh(u), u = raw [..., A] ~ N(mean, std^2): log N(u) - sum log(1 - tanh(u)^2)."""
    normal = -0.5 * ((raw - mean) * (-log_std).exp()) ** 2 - log_std - LOG_SQRT_2PI
    return (normal - log_volume(raw)).sum(-1)


def gaussian_kl(mean: Tensor, log_std: Tensor, other: Tensor, other_log_std: Tensor) -> Tensor:
    """D_KL(N(mean, std^2) | N(other, other_std^2)), summed over dimensions, [...]; also of the squashed ones: tanh is one to one."""
    ratio = (2 * (log_std - other_log_std)).exp()  # of the variances
    return 0.5 * (ratio + ((mean - other) * (-other_log_std).exp()) ** 2 - 1 - 2 * (log_std - other_log_std)).sum(-1)


class Categorical(NamedTuple):
    """A distribution over A discrete actions, by unnormalised log-probabilities."""

    logits: Tensor  # [B, A]

    def log_probs(self) -> Tensor:
        """Log-probabilities of all actions, [B, A]."""
        return self.logits.log_softmax(-1)

    @torch.no_grad()
    def sample(self) -> Tensor:
        """int64 [B]: the largest of logits plus Gumbel noise."""
        return (self.logits - torch.empty_like(self.logits).exponential_().log()).argmax(-1)

    def mode(self) -> Tensor:
        """The most likely action, int64 [B]."""
        return self.logits.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probabilities [B] of actions int64 [B]."""
        return self.log_probs().gather(-1, action[..., None])[..., 0]

    def entropy(self) -> Tensor:
        """[B], nats."""
        log_p = self.log_probs()
        return -(log_p.exp() * log_p).sum(-1)

    def kl(self, other: Self) -> Tensor:
        """D_KL(self | other), [B]."""
        log_p = self.log_probs()
        return (log_p.exp() * (log_p - other.log_probs())).sum(-1)


class Categoricals(NamedTuple):
    """Independent distributions over P discrete actions taken at once: log_prob, entropy and kl are the sums over the parts."""

    logits: Tensor  # [B, P, N], IMPOSSIBLE where a part has fewer than N actions

    def log_probs(self) -> Tensor:
        """Log-probabilities of every part's actions, [B, P, N]."""
        return Categorical(self.logits).log_probs()

    def sample(self) -> Tensor:
        """int64 [B, P]."""
        return Categorical(self.logits).sample()

    def mode(self) -> Tensor:
        """The most likely action of every part, which together are the most likely of all, int64 [B, P]."""
        return Categorical(self.logits).mode()

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probabilities [B] of actions int64 [B, P], or [K, B] of [K, B, P]."""
        log_p = self.log_probs().expand(*action.shape, -1)
        return log_p.gather(-1, action[..., None])[..., 0].sum(-1)

    def entropy(self) -> Tensor:
        """[B], nats."""
        return Categorical(self.logits).entropy().sum(-1)

    def kl(self, other: Self) -> Tensor:
        """D_KL(self | other), [B]."""
        return Categorical(self.logits).kl(Categorical(other.logits)).sum(-1)


class ClippedGaussian(NamedTuple):
    """A normal distribution whose samples are clipped to the box [-1, 1]^A, so that each side has a probability (arXiv:1802.07564).

    The likelihood is that of the clipped action, which the environment receives: its gradient has the mean of the unclipped one's and less
    variance. Entropy and KL are those of the normal distribution, whose KL is at least the clipped one's.
    """

    mean: Tensor  # [B, A]
    log_std: Tensor  # [B, A]

    @torch.no_grad()
    def sample(self) -> Tensor:
        """[B, A] in [-1, 1]."""
        return torch.addcmul(self.mean, self.log_std.exp(), torch.randn_like(self.mean)).clamp_(-1, 1)

    def mode(self) -> Tensor:
        """The clipped mean, [B, A]."""
        return self.mean.clamp(-1, 1)

    def log_prob(self, action: Tensor) -> Tensor:
        """[B]: log-density inside the box, log-probability on its sides."""
        z = (action - self.mean) * (-self.log_std).exp()
        inside = -0.5 * z.square() - self.log_std - LOG_SQRT_2PI
        beyond = torch.special.log_ndtr(torch.where(action > 0, -z, z))
        return torch.where(action.abs() >= 1, beyond, inside).sum(-1)

    def log_prob_slopes(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of `log_prob` in mean and log_std, [B, A] each; on a side they are those of log Phi(y), y the distance to it."""
        inverse_std = (-self.log_std).exp()
        z = (action - self.mean) * inverse_std
        y = torch.where(action > 0, -z, z)
        ratio = (-0.5 * y.square() - LOG_SQRT_2PI - torch.special.log_ndtr(y)).exp()  # of the normal density at y to Phi(y)
        side = action.abs() >= 1
        in_mean = torch.where(side, ratio.copysign(action), z) * inverse_std
        return in_mean, torch.where(side, -ratio * y, z.square() - 1)

    def entropy(self) -> Tensor:
        """[B], nats, of the normal distribution."""
        return (self.log_std + 0.5 + LOG_SQRT_2PI).sum(-1)

    def kl(self, other: Self) -> Tensor:
        """D_KL(self | other) of the normal distributions, [B]."""
        ratio = (2 * (self.log_std - other.log_std)).exp()  # of the variances
        distance = (self.mean - other.mean).square() * (-2 * other.log_std).exp()
        return (0.5 * (ratio + distance - 1) - (self.log_std - other.log_std)).sum(-1)


Distribution = Categorical | Categoricals | ClippedGaussian


def detached(distribution: D) -> D:
    """The same distribution as a constant; a copy, since a field may be a parameter, which changes in place."""
    return type(distribution)(*(field.detach().clone() for field in distribution))
