"""Deep Q-network (Mnih et al. 2015, "Human-level control through deep reinforcement learning", Nature 518): replay and a slow network.

y = r + gamma d max_a Q_slow(s', a), d = 0 where the task ended. One gradient step on each batch, where fitted Q-iteration solves a whole
regression (`fqi.py`). Letters: B batch, O observation, A actions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.agents.value_based.base import EpsilonGreedy, ValueAgent, ValueConfig
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, TargetFn, Targets, Transition


@dataclass(frozen=True)
class DQNConfig(ValueConfig):
    """Network and exploration. Paper: convolutions, RMSProp, target_every=10 000, final_epsilon=0.1 after 1e6 frames; here: small tasks."""


@torch.no_grad()
def greedy_target(batch: Transition, next_value: Tensor, gamma: float) -> Targets:
    """y = r + gamma d max_a Q_slow(s', a), the maximum given, [B]: `one_step` for whoever's next action is the slow network's own."""
    return Targets(
        batch.obs, batch.action, torch.addcmul(batch.reward, batch.discount, next_value, value=gamma), torch.ones_like(next_value)
    )


def targets_of(agent: EpsilonGreedy, batch: Transition) -> Targets:
    """`greedy_target`, or what else the agent was given; `one_step` would run the slow network twice, to choose and to judge."""
    if agent.target is one_step:
        return greedy_target(batch, agent.value(batch.next_obs), agent.gamma)
    return agent.target(agent, batch, agent.gamma)


@agents.register("dqn", DQNConfig, env="CartPole-v1", steps=50_000, loop={"warmup_steps": 1000, "batch_size": 64})
class DQN(ValueAgent):
    """Deep Q-network: epsilon-greedy replay, targets of a slow copy."""

    def __init__(self, spec: EnvSpec, cfg: DQNConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        super().__init__("dqn", spec, cfg, gamma, target)

    def targets(self, batch: Transition) -> Targets:
        """What Q is regressed on, [B], by the slow copy."""
        return targets_of(self, batch)
