"""The yardstick: uniformly random actions."""

from dataclasses import dataclass

from torch import Tensor

from mbkit.config import Experiment
from mbkit.envs import Environment
from mbkit.loops.online import random_action
from mbkit.recipes.parts import Parts
from mbkit.registry import recipes
from mbkit.replay.buffer import ReplayBuffer
from mbkit.types import EnvSpec


@dataclass(frozen=True)
class RandomConfig:
    """Nothing to choose."""


class RandomActor:
    """Uniform over the action space, whatever it sees."""

    def __init__(self, spec: EnvSpec) -> None:
        self.spec = spec

    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """obs [M, O] -> actions [M, A] in [-1, 1], or int64 [M]."""
        return random_action(self.spec, obs.shape[0])

    def reset(self, mask: Tensor) -> None:
        """Remembers nothing, so nothing to forget."""


@recipes.register("random", RandomConfig, steps=1000, loop={"warmup_steps": 0})
def build(config: Experiment, env: Environment) -> Parts:
    """Uniformly random actions, the yardstick of every table."""
    actor = RandomActor(env.spec)
    buffer = ReplayBuffer(config.loop.buffer_size, env.spec)
    return Parts(actor, buffer, actor_for=lambda other: RandomActor(other.spec), stateful={"buffer": buffer})
