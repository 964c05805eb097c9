"""Munchausen DQN (Vieillard, Pietquin and Geist 2020, arXiv:2007.14430): the reward is augmented by the agent's own log-policy.

y = r + alpha [tau log pi(a|s)]_{l0}^0 + gamma sum_a' pi(a'|s') (Q(s', a') - tau log pi(a'|s')), pi = softmax(Q / tau), of the target
network. The log-policy is an implicit KL penalty towards the previous policy: errors average out instead of adding up. With alpha = 0 it is
soft Q-learning with entropy in place of the divergence from a prior. Letters: B batch, A actions, O observation.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.agents.value_based.base import ValueAgent, ValueConfig
from mbkit.agents.value_based.soft_q import soft_policy, soft_value
from mbkit.fields import at_most, between, positive
from mbkit.networks.heads import taken
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, TargetFn, Targets, Transition


@dataclass(frozen=True)
class MunchausenConfig(ValueConfig):
    """Network, regression, exploration, target network and regularisation. Paper: these alpha, tau and l0, on Atari's clipped rewards."""

    alpha: float = between(0.9, 0, 1)  # Munchausen coefficient alpha: KL has the weight alpha tau, entropy (1 - alpha) tau. Paper: 0.9
    temperature: float = positive(0.03)  # entropy temperature tau, in units of reward. Paper: 0.03
    log_floor: float = at_most(-1.0, 0, when="alpha!=0")  # lower bound l0 of the scaled log-policy tau log pi. Paper: -1


def log_policy_bonus(log_pi: Tensor, alpha: float, tau: float, floor: float) -> Tensor:
    """alpha [tau log pi(a|s)]_{l0}^0, [B]."""
    return alpha * (tau * log_pi).clamp(floor, 0)


@agents.register(
    "munchausen_dqn", MunchausenConfig, defaults={"env": "CartPole-v1", "steps": 100_000, "loop": {"warmup_steps": 1000, "batch_size": 64}}
)
class MunchausenDQN(ValueAgent):
    """Munchausen DQN: soft targets, and the scaled log-policy added to the reward."""

    name = "munchausen_dqn"
    cfg: MunchausenConfig

    def __init__(self, spec: EnvSpec, cfg: MunchausenConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        super().__init__(spec, cfg, gamma, target)
        self.tau = cfg.temperature
        self.largest_bonus = cfg.alpha * abs(cfg.log_floor) + cfg.temperature * math.log(spec.action_dim)  # |bonus| and entropy of a step
        self.measure = torch.zeros(spec.action_dim, device=spec.device)  # log of the counting measure: entropy, not KL

    def target_terms(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q [B, A], log pi [B, A], and the soft value V = sum pi (Q - tau log pi), [B], of the target network."""
        q: Tensor = self.target_q(obs)[0]
        return q, soft_policy(q, self.measure, self.tau), soft_value(q, self.measure, self.tau)

    @torch.no_grad()
    def log_probs(self, obs: Tensor) -> Tensor:
        """log pi of all actions, [B, A]."""
        q: Tensor = self.q(obs)[0]
        return soft_policy(q, self.measure, self.tau)

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """The soft value of the target network, [B]."""
        return self.target_terms(obs)[2]

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """a' = argmax pi(.|s'), int64 [B], and V(s') - Q(s', a'), [B], so that the backup is V(s')."""
        q, _, value = self.target_terms(obs)
        action = q.argmax(-1)
        return action, value - taken(q, action)

    @torch.no_grad()
    def bonus(self, obs: Tensor, action: Tensor) -> Tensor:
        """The term that is added to the reward of (s, a), [B]."""
        return log_policy_bonus(taken(self.target_terms(obs)[1], action), self.cfg.alpha, self.tau, self.cfg.log_floor)

    @torch.no_grad()
    def path_bonus(self, obs: Tensor, action: Tensor) -> Tensor:
        """The term that an n-step backup adds to the reward of a later step: `bonus` and tau times the entropy of its state, [B]."""
        log_pi = self.target_terms(obs)[1]
        return self.bonus(obs, action) - self.tau * (log_pi.exp() * log_pi).sum(-1)

    def targets(self, batch: Transition) -> Targets:
        """The targets of the regression, with the augmented reward."""
        return self.target(self, batch._replace(reward=batch.reward + self.bonus(batch.obs, batch.action)), self.gamma)
