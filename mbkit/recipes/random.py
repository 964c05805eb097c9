"""The baseline of every table: uniformly random actions."""

from dataclasses import dataclass

from torch import Tensor

from mbkit.config import StoringLoop
from mbkit.loops import random_action
from mbkit.recipes.assembly import Assembly
from mbkit.registry import recipes
from mbkit.types import EnvSpec


@dataclass(frozen=True)
class RandomConfig:
    """Nothing to choose."""


class RandomActor:
    """Uniform over the action space, whatever the observation."""

    def __init__(self, spec: EnvSpec) -> None:
        self.spec = spec

    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """obs [M, O] -> actions [M, A] in [-1, 1], or int64 [M] or [M, P]."""
        return random_action(self.spec, obs.shape[0])

    def reset(self, mask: Tensor) -> None:
        """Nothing depends on the episode."""


@recipes.register("random", RandomConfig, loop=StoringLoop, defaults={"steps": 1000})
def build(x: Assembly[StoringLoop], cfg: RandomConfig) -> None:
    """Uniformly random actions, the baseline of every table."""
    x.acts(lambda env: RandomActor(env.spec))
