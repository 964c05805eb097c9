"""Policies: deterministic, squashed Gaussian, categorical, several categorical ones, Gaussian clipped to the box.

Letters: B batch, O observation, A dimensions of an action or number of discrete actions, S seeds. Deterministic and squashed Gaussian
policies may be those of S seeds, stacked: obs [S, B, O] -> [S, B, A].
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mbkit.networks.distributions import (
    IMPOSSIBLE,
    Categorical,
    Categoricals,
    ClippedGaussian,
    Distribution,
    squashed_log_prob,
    unsquash,
)
from mbkit.networks.heads import ActionValues
from mbkit.networks.mlp import EnsembleMLP, Nonlinearity, mlp, orthogonal_init_
from mbkit.networks.parts import as_table
from mbkit.networks.squashed import SquashedPass, squash, squashed_sample
from mbkit.networks.stacked import of_seeds
from mbkit.streams import normal_like
from mbkit.types import EnvSpec


class Deterministic(nn.Module):
    """Deterministic policy: obs [B, O] -> action [B, A] in [-1, 1] by tanh."""

    def __init__(self, obs_dim: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.net = EnsembleMLP(1, (obs_dim, *hidden, action_dim))
        self.inputs: nn.Module = nn.Identity()  # or the agent's normaliser of observations

    def forward(self, obs: Tensor) -> Tensor:
        """The action, [B, A]."""
        return of_seeds(self.net(self.inputs(obs)), obs).tanh()

    def mode(self, obs: Tensor) -> Tensor:
        """The action without exploration, [B, A]: the action itself."""
        return self.forward(obs)


class TanhGaussian(nn.Module):
    """Squashed Gaussian policy on [-1, 1]^A (SAC, arXiv:1801.01290, appendix C); log-probabilities include the tanh volume, stably."""

    def __init__(self, obs_dim: int, action_dim: int, hidden: Sequence[int], log_std: tuple[float, float] = (-5.0, 2.0)) -> None:
        super().__init__()
        self.net = EnsembleMLP(1, (obs_dim, *hidden, 2 * action_dim))
        self.inputs: nn.Module = nn.Identity()  # or the agent's normaliser of observations
        self.log_std = log_std  # range of the log standard deviation. Paper's code: -20, 2

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before the squashing, both [B, A]."""
        mean, log_std = of_seeds(self.net(self.inputs(obs)), obs).chunk(2, -1)
        return mean, log_std.clamp(*self.log_std)

    def mode(self, obs: Tensor) -> Tensor:
        """tanh of the mean, [B, A]: the action without exploration."""
        mean: Tensor = self(obs)[0]
        return mean.tanh()

    def rsample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Reparameterised action [B, A] and its log-density [B]: a = tanh(u), log pi = log N(u) - sum log(1 - a^2)."""
        if torch.is_grad_enabled():
            return squashed_sample(self.inputs(obs), self.net.layers, self.log_std)
        mean, log_std = self(obs)
        return squash(mean, log_std, normal_like(mean))[:2]

    def sampled(self, obs: Tensor, before: Tensor | None = None) -> SquashedPass:
        """`rsample` at obs [B, O], whose backward pass is called directly; and, in the same pass, at other observations `before` it."""
        rows, constant = (obs, 0) if before is None else (torch.cat((before, obs), -2), before.shape[-2])
        return SquashedPass(self.inputs(rows), self.net.layers, self.log_std, constant)

    def log_prob(self, obs: Tensor, action: Tensor, edge: float = 1 - 1e-6) -> Tensor:
        """Log-density [..., B] of actions [..., B, A] at obs [B, O]; where they lie on the sides of the box, as if at +-`edge`."""
        mean, log_std = self(obs)
        return squashed_log_prob(mean, log_std, unsquash(action, edge))


class Logits(nn.Module):
    """Policy of discrete actions by a ReLU network: obs [B, O] -> log-probabilities [B, A]."""

    def __init__(self, obs_dim: int, actions: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.net = ActionValues(1, obs_dim, actions, hidden)

    def forward(self, obs: Tensor) -> Tensor:
        """log pi of all actions, [B, A]."""
        logits: Tensor = self.net(obs)[0]
        return logits.log_softmax(-1)

    def mode(self, obs: Tensor) -> Tensor:
        """The most likely action, int64 [B]: the action without exploration."""
        return self.forward(obs).argmax(-1)


class StochasticPolicy(nn.Module):
    """obs [B, O] -> Categorical over A discrete actions, Categoricals over several taken at once, or ClippedGaussian on [-1, 1]^A.

    The standard deviation of continuous actions depends on no obs; `log_std_range`: bounds of its logarithm. `fused`: ReLU layers with the
    critics' fast gradient, which is differentiable once; else layers of torch, differentiable any number of times.
    """

    def __init__(
        self,
        spec: EnvSpec,
        hidden: Sequence[int],
        activation: Nonlinearity = "tanh",
        log_std: float = 0.0,
        log_std_range: tuple[float, float] | None = None,
        fused: bool = False,
    ) -> None:
        super().__init__()
        if fused and activation != "relu":
            raise ValueError(f"fused layers have the activation 'relu', not {activation!r}")
        sizes, gain = (spec.obs_dim, *hidden, spec.action_dim), 0.01  # nearly the same action everywhere
        self.net = orthogonal_init_(EnsembleMLP(1, sizes), gain) if fused else mlp(sizes, activation, gain)
        self.fused = fused
        self.inputs: nn.Module = nn.Identity()  # or the agent's normaliser of observations
        self.parts = spec.parts
        self.log_std = None if spec.discrete else nn.Parameter(torch.full((spec.action_dim,), log_std))
        self.log_std_range = log_std_range

    def forward(self, obs: Tensor) -> Distribution:
        """The distribution at obs [B, O]."""
        output: Tensor = self.net(self.inputs(obs))
        return self.distribution(output[0] if self.fused else output)

    def distribution(self, output: Tensor) -> Distribution:
        """That of the network's output, [B, A]."""
        if self.parts:
            return Categoricals(as_table(output, self.parts, IMPOSSIBLE))
        if self.log_std is None:
            return Categorical(output)
        log_std = self.log_std if self.log_std_range is None else self.log_std.clamp(*self.log_std_range)
        return ClippedGaussian(output, log_std.expand_as(output))

    def mode(self, obs: Tensor) -> Tensor:
        """The most likely action, int64 [B] or [B, P], or the clipped mean [B, A]: the action without exploration."""
        return self.forward(obs).mode()
