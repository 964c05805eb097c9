"""Deep Q-network (Mnih et al. 2015, "Human-level control through deep reinforcement learning", Nature 518): replay and a target network.

y = r + gamma d max_a Q_target(s', a), d = 0 where the task ended. One gradient step on each batch, where fitted Q-iteration solves a whole
regression (`fqi.py`). Letters: B batch, O observation, A actions.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mbkit.agents.critics import Architecture, CriticAgent
from mbkit.agents.value_based.base import EpsilonGreedy, ValueAgent, ValueConfig
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import Targets, Transition


@dataclass(frozen=True)
class DQNConfig(Architecture, ValueConfig):
    """Network and exploration. Paper: convolutions, RMSProp, target_every=10 000, final_epsilon=0.1 after 1e6 frames; here: small tasks."""

    loss: Literal["mse", "huber", "hl_gauss", "c51"] = "huber"  # type: ignore[assignment]  # regression loss; huber: linear beyond an
    # error of 1; hl_gauss, c51: cross-entropy of distributions


@torch.no_grad()
def greedy_target(batch: Transition, next_value: Tensor, gamma: float) -> Targets:
    """y = r + gamma d max_a Q_target(s', a), of next_value, that maximum, [B]: `one_step` for greedy actions of the target network."""
    return Targets(batch.obs, batch.action, torch.addcmul(batch.reward, batch.discount, next_value, value=gamma), batch.weight)


def targets_of(agent: EpsilonGreedy, batch: Transition) -> Targets:
    """`greedy_target` instead of `one_step`, which would run the target network twice, and any other target function as it is."""
    if agent.target is one_step and agent.backs_up_values:
        return greedy_target(batch, agent.value(batch.next_obs), agent.gamma)
    return CriticAgent.targets(agent, batch)


@agents.register("dqn", DQNConfig, defaults={"env": "CartPole-v1", "steps": 50_000, "loop": {"warmup_steps": 1000, "batch_size": 64}})
class DQN(ValueAgent):
    """Deep Q-network: epsilon-greedy replay, targets of a target network."""

    stackable = True
    name = "dqn"

    def targets(self, batch: Transition) -> Targets:
        """The targets of the regression, [B], by the target network."""
        return targets_of(self, batch)
