"""Double DQN (van Hasselt, Guez and Silver 2016, arXiv:1509.06461): the network chooses the next action, its slow copy judges it.

y = r + gamma Q_slow(s', argmax_a Q(s', a)). Letters: B batch, O observation, A actions.
"""

import torch
from torch import Tensor

from mbkit.agents.value_based.base import ValueAgent
from mbkit.agents.value_based.dqn import DQNConfig
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, TargetFn


@agents.register("double_dqn", DQNConfig, env="CartPole-v1", steps=50_000, loop={"warmup_steps": 1000, "batch_size": 64})
class DoubleDQN(ValueAgent):
    """Double DQN: the maximum's bias is gone, since who chooses does not judge."""

    def __init__(self, spec: EnvSpec, cfg: DQNConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        super().__init__("double_dqn", spec, cfg, gamma, target)

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """a' = argmax_a Q(s', a) of the network itself, int64 [B], and no bonus [B]."""
        return self.greedy(obs), obs.new_zeros(len(obs))
