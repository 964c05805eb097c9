"""Stochastic policies of policy-gradient learners: what they say of states, as distributions, and the networks behind them.

Both distributions offer the same five methods, so an algorithm need not know whether actions are numbers or choices. Letters: B rows of any
shape, N rows, O observation, A dimensions of an action or number of choices.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Protocol, Self, cast

import torch
from torch import Tensor, nn

from mbkit.nn import Normalizer
from mbkit.types import EnvSpec

Nonlinearity = Literal["tanh", "relu", "silu"]
LAYER = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}
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


class CategoricalPolicy(nn.Module):
    """obs [B, O] -> Categorical over A choices; nearly uniform at the beginning."""

    def __init__(self, obs_dim: int, actions: int, hidden: Sequence[int], activation: Nonlinearity = "tanh") -> None:
        super().__init__()
        self.net = mlp((obs_dim, *hidden, actions), activation, last_gain=0.01)

    def forward(self, obs: Tensor) -> Categorical:
        """The distribution at obs [B, O]."""
        return Categorical(self.net(obs))


class GaussianPolicy(nn.Module):
    """obs [B, O] -> ClippedGaussian on [-1, 1]^A; its standard deviation is a parameter, the same everywhere."""

    def __init__(
        self, obs_dim: int, action_dim: int, hidden: Sequence[int], activation: Nonlinearity = "tanh", log_std: float = 0.0
    ) -> None:
        super().__init__()
        self.net = mlp((obs_dim, *hidden, action_dim), activation, last_gain=0.01)
        self.log_std = nn.Parameter(torch.full((action_dim,), log_std))

    def forward(self, obs: Tensor) -> ClippedGaussian:
        """The distribution at obs [B, O]."""
        mean = self.net(obs)
        return ClippedGaussian(mean, self.log_std.expand_as(mean))


def make_policy(spec: EnvSpec, hidden: Sequence[int], activation: Nonlinearity = "tanh", log_std: float = 0.0) -> nn.Module:
    """The policy for an environment's kind of actions."""
    if spec.discrete:
        return CategoricalPolicy(spec.obs_dim, spec.action_dim, hidden, activation)
    return GaussianPolicy(spec.obs_dim, spec.action_dim, hidden, activation, log_std)


class RunningNormalizer(Normalizer):
    """A normaliser whose statistics are those of all rows that `update` ever saw; before, it only clips."""

    count: Tensor
    total_mean: Tensor
    squares: Tensor

    def __init__(self, size: int, clip: float = 10.0) -> None:
        super().__init__(size)
        self.clip = clip  # of the normalised numbers
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("total_mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(size, dtype=torch.float64))  # sum of squared deviations from the mean

    @torch.no_grad()
    def update(self, x: Tensor, weight: Tensor | None = None) -> None:
        """Take in rows [N, I], each as often as `weight` [N] says: means and squared deviations of two sets are merged.

        Chan, Golub and LeVeque 1983, eq. 2.1.
        """
        x = x.double()
        w = torch.ones_like(x[:, :1]) if weight is None else weight.double()[:, None]
        n = w.sum()
        mean = (w * x).sum(0) / n.clamp(min=1)
        gap, total = mean - self.total_mean, (self.count + n).clamp(min=1)
        self.squares += (w * (x - mean).square()).sum(0) + gap.square() * self.count * n / total
        self.total_mean += gap * n / total
        self.count += n
        std = (self.squares / total).sqrt()
        self.mean.copy_(self.total_mean)
        self.std.copy_(torch.where(std < 1e-6, 1.0, std))

    def forward(self, x: Tensor) -> Tensor:
        """Columns of mean 0 and standard deviation 1, within +-`clip`."""
        return super().forward(x).clamp(-self.clip, self.clip)


class ValueNetwork(nn.Module):
    """obs [B, O] -> value [B] in raw units; what the network itself says is normalised by the statistics of its past targets."""

    mean: Tensor
    std: Tensor

    def __init__(self, obs_dim: int, hidden: Sequence[int], activation: Nonlinearity = "tanh") -> None:
        super().__init__()
        self.net = mlp((obs_dim, *hidden, 1), activation)
        self.targets = RunningNormalizer(1)

    def normalized(self, obs: Tensor) -> Tensor:
        """The value in standard deviations of the targets, [B]: what is regressed."""
        value: Tensor = self.net(obs)
        return value.squeeze(-1)

    def forward(self, obs: Tensor) -> Tensor:
        """The value, [B]."""
        return self.in_raw_units(self.normalized(obs))

    def in_raw_units(self, value: Tensor) -> Tensor:
        """What `normalized` says [B], in the units of rewards."""
        return value * self.targets.std + self.targets.mean

    def in_units(self, target: Tensor) -> Tensor:
        """Targets [B] in the units of `normalized`."""
        return (target - self.targets.mean) / self.targets.std

    @torch.no_grad()
    def rescale(self, targets: Tensor, weight: Tensor | None = None) -> None:
        """Take in targets [B], weighted [B]; the last layer is changed so that no value is (PopArt, arXiv:1602.07714, eq. 9)."""
        old_mean, old_std = self.targets.mean.clone(), self.targets.std.clone()
        self.targets.update(targets.reshape(-1, 1), weight)
        last = cast("nn.Linear", self.net[-1])
        last.weight.mul_(old_std / self.targets.std)
        last.bias.mul_(old_std).add_(old_mean - self.targets.mean).div_(self.targets.std)
