"""MOPO: an agent on model rollouts whose rewards are less an uncertainty (Yu et al. 2020, arXiv:2005.13239)."""

from dataclasses import dataclass
from typing import Literal

from mbkit.config import OfflineLoop
from mbkit.fields import at_least, option
from mbkit.imagination.pessimism import Penalized
from mbkit.recipes import offline
from mbkit.recipes.assembly import Assembly
from mbkit.recipes.measures import measure
from mbkit.recipes.pessimistic import AGENT, MODEL, RolloutConfig, learn, offline_model
from mbkit.registry import recipes
from mbkit.types import Dynamics, MeasureName


@dataclass(frozen=True)
class MOPOConfig(RolloutConfig):
    """Rollouts of the model, and the penalty of their rewards."""

    measure: Literal[MeasureName, "none"] = option(
        "max_aleatoric", when="real_ratio!=1"
    )  # uncertainty measure u of the penalty; none: MBPO's rollouts
    penalty: float = at_least(1.0, 0, when="real_ratio!=1, measure!=none")  # weight of the penalty, lambda, reward is r - lambda u


@recipes.register(
    "mopo", MOPOConfig, learns_from="dataset", loop=OfflineLoop, no_model="real_ratio=1", defaults={"agent": AGENT, "dynamics": MODEL}
)
def build(x: Assembly[OfflineLoop], cfg: MOPOConfig) -> None:
    """MOPO: an agent on recorded rows and on model rollouts with penalised rewards."""
    if cfg.real_ratio == 1:
        return offline.build(x)
    agent = x.agent()
    dynamics: Dynamics = offline_model(x)
    if cfg.measure != "none":
        dynamics = Penalized(dynamics, measure(cfg.measure, "imagination.measure", x.part("dynamics")), cfg.penalty)
    learn(x, cfg, agent, dynamics)
