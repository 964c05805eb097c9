"""MOBILE: targets less the inconsistency of the members' Bellman backups (Sun et al. 2023, ICML, PMLR 202)."""

from dataclasses import dataclass

from mbkit.config import OfflineLoop
from mbkit.errors import UserError
from mbkit.fields import at_least, option
from mbkit.imagination.bellman import BellmanInconsistency
from mbkit.recipes import offline
from mbkit.recipes.assembly import Assembly
from mbkit.recipes.mve import check_agent
from mbkit.recipes.pessimistic import AGENT, MODEL, RolloutConfig, learn, offline_ensemble
from mbkit.registry import recipes
from mbkit.targets import one_step


@dataclass(frozen=True)
class MOBILEConfig(RolloutConfig):
    """Rollouts of the model, and the penalty of the targets."""

    penalty: float = at_least(1.0, 0, when="real_ratio!=1")  # weight of the inconsistency, c, in the targets of model rows
    samples: int = at_least(10, 1, when="real_ratio!=1, penalty!=0")  # next states drawn from each elite
    clip_targets: bool = option(False, when="real_ratio!=1")  # targets of at least 0; the paper's code, for tasks without negative rewards


@recipes.register(
    "mobile",
    MOBILEConfig,
    learns_from="dataset",
    loop=OfflineLoop,
    no_model="real_ratio=1",
    defaults={"agent": {**AGENT, "backup_entropy": False}, "dynamics": MODEL},
)
def build(x: Assembly[OfflineLoop], cfg: MOBILEConfig) -> None:
    """MOBILE: an agent whose targets are low where the members' Bellman backups differ."""
    if cfg.real_ratio == 1:
        return offline.build(x)
    model = offline_ensemble(x)
    if cfg.penalty and model.cfg.elites < 2:
        raise UserError("imagination.penalty of mobile compares elites; expected dynamics.elites of at least 2, came 1")
    target = BellmanInconsistency(model.predict_elites, one_step, cfg.penalty, cfg.samples, cfg.clip_targets)
    agent = x.agent(target)
    check_agent(x, agent, target)
    learn(x, cfg, agent, model)
