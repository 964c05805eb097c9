"""What CQL and SAC+BC share of SAC (arXiv:1812.05905): a squashed Gaussian policy and the temperature of its entropy.

Letters: B batch, O observation, A action.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mbkit.agents.actor_critic.soft import log_temperature, temperature_loss
from mbkit.agents.offline.base import OfflineActorCritic
from mbkit.networks.heads import Critics
from mbkit.networks.policy import TanhGaussian
from mbkit.networks.values import unit_of
from mbkit.types import EnvSpec


class SquashedActorCritic(OfflineActorCritic):
    """A squashed Gaussian policy with critics, and the logarithm of its entropy's temperature, learned or fixed."""

    policy: TanhGaussian
    critics: Critics

    def add_policy(self, spec: EnvSpec, hidden: Sequence[int]) -> None:
        """The policy."""
        self.policy = TanhGaussian(spec.obs_dim, spec.action_dim, hidden)

    def add_temperature(self, spec: EnvSpec, fixed: float | None, initial: float, target_entropy: float | None) -> None:
        """The temperature, `fixed` or learned from `initial` on, and the policy's target entropy, nats; None: -A."""
        self.log_alpha = log_temperature(fixed, initial)
        self.target_entropy = -float(spec.action_dim) if target_entropy is None else target_entropy

    @property
    def alpha(self) -> Tensor:
        """The temperature in units of reward, 0-d; beside distributions it is learned in return scales."""
        return self.log_alpha.detach().exp() * unit_of(self.critics.outputs)

    def greedy(self, obs: Tensor) -> Tensor:
        """tanh of the mean, [B, A]."""
        return self.policy.mode(obs)

    @torch.no_grad()
    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> actions [B, A] of the policy."""
        return self.policy.rsample(obs)[0]

    def update_temperature(self, log_prob: Tensor) -> None:
        """One step on the temperature where it is learned, by log-probabilities [B] of the policy's actions."""
        if "alpha" in self.optimizers:
            self.optimizers["alpha"].descend([temperature_loss(self.log_alpha.detach().exp(), log_prob, self.target_entropy)])
