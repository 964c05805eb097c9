"""Double DQN (van Hasselt, Guez and Silver 2016, arXiv:1509.06461): the network chooses the next action, the target network evaluates it.

y = r + gamma Q_target(s', argmax_a Q(s', a)). Letters: B batch, O observation, A actions.
"""

import torch
from torch import Tensor

from mbkit.agents.value_based.base import ValueAgent
from mbkit.agents.value_based.dqn import DQNConfig
from mbkit.registry import agents


@agents.register(
    "double_dqn", DQNConfig, defaults={"env": "CartPole-v1", "steps": 50_000, "loop": {"warmup_steps": 1000, "batch_size": 64}}
)
class DoubleDQN(ValueAgent):
    """Double DQN: without the bias of a maximum, since one network chooses an action and another evaluates it."""

    stackable = True
    name = "double_dqn"

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The network's best action, int64 [B], and no bonus [B]."""
        return self.greedy(obs), obs.new_zeros(obs.shape[:-1])
