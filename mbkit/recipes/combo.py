"""COMBO: conservative Q-learning on recorded rows and on rollouts of a model (Yu et al. 2021, arXiv:2102.08363)."""

from dataclasses import dataclass

from mbkit.config import OfflineLoop
from mbkit.errors import UserError
from mbkit.fields import between
from mbkit.recipes import offline
from mbkit.recipes.assembly import Assembly
from mbkit.recipes.pessimistic import MODEL, RolloutConfig, learn, offline_model
from mbkit.registry import recipes


@dataclass(frozen=True)
class COMBOConfig(RolloutConfig):
    """Rollouts of the model; the critics' values are pushed down on all rows and up on the recorded ones."""

    real_ratio: float = between(0.5, 0.0, 1.0)  # share of recorded transitions in every batch; 1: CQL


@recipes.register(
    "combo",
    COMBOConfig,
    learns_from="dataset",
    loop=OfflineLoop,
    no_model="real_ratio=1",
    defaults={"agent": {"name": "cql"}, "dynamics": MODEL},
)
def build(x: Assembly[OfflineLoop], cfg: COMBOConfig) -> None:
    """COMBO: conservative Q-learning whose values are low on rollouts of a model."""
    if cfg.real_ratio == 1:
        return offline.build(x)
    agent = x.agent()
    if not getattr(agent, "contrasts", False):
        name = x.part("agent").name
        raise UserError(f"agent={name} does not push values of recorded rows up, as combo does; expected cql, or cql_discrete with mse")
    learn(x, cfg, agent, offline_model(x))
