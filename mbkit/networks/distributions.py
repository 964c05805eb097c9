"""Distributions of actions, discrete and continuous: what policy-gradient learners and discrete actor-critics sample from.

All distributions offer the same five methods, so an algorithm need not know the kind of action. Letters: B rows of any shape, N rows,
A dimensions of an action or number of discrete actions.
"""

import math
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class Distribution(Protocol):
    """Of one action for each of B rows; a tuple of tensors, so rows are taken with `rows_of`."""

    def sample(self) -> Tensor: ...  # noqa: D102 - [B, A], or int64 [B]; without gradient
    def mode(self) -> Tensor: ...  # noqa: D102 - the likeliest action, the same shape
    def log_prob(self, action: Tensor) -> Tensor: ...  # noqa: D102 - [B]
    def entropy(self) -> Tensor: ...  # noqa: D102 - [B], nats
    def kl(self, other: Self) -> Tensor: ...  # noqa: D102 - D_KL(self | other), [B]


class Categorical(NamedTuple):
    """A choice among A, by unnormalised log-probabilities."""

    logits: Tensor  # [B, A]

    def log_probs(self) -> Tensor:
        """Of every choice, [B, A]."""
        return self.logits.log_softmax(-1)

    @torch.no_grad()
    def sample(self) -> Tensor:
        """int64 [B]: the largest of logits plus Gumbel noise."""
        return (self.logits - torch.empty_like(self.logits).exponential_().log()).argmax(-1)

    def mode(self) -> Tensor:
        """The likeliest choice, int64 [B]."""
        return self.logits.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Of int64 actions [B]."""
        return self.log_probs().gather(-1, action[..., None])[..., 0]

    def entropy(self) -> Tensor:
        """[B], nats."""
        log_p = self.log_probs()
        return -(log_p.exp() * log_p).sum(-1)

    def kl(self, other: Self) -> Tensor:
        """D_KL(self | other), [B]."""
        log_p = self.log_probs()
        return (log_p.exp() * (log_p - other.log_probs())).sum(-1)


class ClippedGaussian(NamedTuple):
    """A normal sample clipped to the box: what lies beyond a side is the probability of that side (arXiv:1802.07564).

    The likelihood is that of the clipped action, which is what the environment sees: its gradient has the mean of the unclipped one's and
    less variance. Entropy and KL are those of the normal distribution, whose KL is at least the clipped one's.
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

    def entropy(self) -> Tensor:
        """Of the normal distribution, [B], nats."""
        return (self.log_std + 0.5 + LOG_SQRT_2PI).sum(-1)

    def kl(self, other: Self) -> Tensor:
        """D_KL(self | other) of the normal distributions, [B]."""
        ratio = (2 * (self.log_std - other.log_std)).exp()  # of the variances
        distance = (self.mean - other.mean).square() * (-2 * other.log_std).exp()
        return (0.5 * (ratio + distance - 1) - (self.log_std - other.log_std)).sum(-1)


def rows_of(distribution: Any, rows: Tensor) -> Any:
    """The same distribution of some rows [N] only."""
    return type(distribution)(*(field[rows] for field in distribution))


def detached(distribution: Any) -> Any:
    """The same distribution as a constant; a copy, for a field may be a parameter itself, which changes in place."""
    return type(distribution)(*(field.detach().clone() for field in distribution))
