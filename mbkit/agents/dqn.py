"""Deep Q-network (Mnih et al. 2015, "Human-level control through deep reinforcement learning", Nature 518): replay and a slow network.

y = r + gamma max_a Q_slow(s', a). Letters: B batch, O observation, A actions.
"""

from dataclasses import dataclass

from mbkit.agents.value_based import ValueAgent, ValueConfig
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, TargetFn


@dataclass(frozen=True)
class DQNConfig(ValueConfig):
    """Network and exploration. Paper: convolutions, RMSProp, target_every=10 000, final_epsilon=0.1 after 1e6 frames; here: small tasks."""


@agents.register("dqn", DQNConfig, env="CartPole-v1", steps=50_000, loop={"warmup_steps": 1000, "batch_size": 64})
class DQN(ValueAgent):
    """Deep Q-network: epsilon-greedy replay, targets of a slow copy."""

    def __init__(self, spec: EnvSpec, cfg: DQNConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        super().__init__("dqn", spec, cfg, gamma, target)
