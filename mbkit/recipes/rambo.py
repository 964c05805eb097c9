"""RAMBO: rollouts of a model that learns to be pessimistic (Rigter, Lacerda and Hawes 2022, arXiv:2204.12581)."""

from dataclasses import dataclass

from mbkit.agents.critics import check_form
from mbkit.config import OfflineLoop
from mbkit.dynamics.terminals import true_successors
from mbkit.errors import UserError
from mbkit.fields import at_least, between, positive
from mbkit.imagination.adversary import Adversary
from mbkit.loops.rounds import AdversaryRound, Rounds
from mbkit.networks.form import PLAIN
from mbkit.recipes import offline
from mbkit.recipes.assembly import Assembly
from mbkit.recipes.mve import check_lends
from mbkit.recipes.pessimistic import AGENT, MODEL, RolloutConfig, cloning, learn, offline_ensemble
from mbkit.registry import recipes


@dataclass(frozen=True)
class RAMBOConfig(RolloutConfig):
    """Rollouts of the adversarial model, and its training."""

    real_ratio: float = between(0.5, 0.0, 1.0)  # share of recorded transitions in every batch; 1: no model
    every: int = at_least(250, 1, when="real_ratio!=1")  # updates between two rounds of rollouts
    adversary_every: int = at_least(1000, 1, when="real_ratio!=1")  # updates between two rounds of the adversary's training
    adversary_updates: int = at_least(250, 1, when="real_ratio!=1")  # gradient updates of a round of it. Paper: 1000
    adversary_weight: float = at_least(3e-4, 0, when="real_ratio!=1")  # weight lambda of the adversarial loss; 0: likelihood alone
    adversary_lr: float = positive(3e-4, when="real_ratio!=1")  # Adam learning rate of the adversary
    adversary_batch: int = at_least(256, 1, when="real_ratio!=1")  # model steps, and recorded rows of each member, of an update of it
    bc_updates: int = at_least(0, 0, when="real_ratio!=1")  # first updates, in which the policy is cloned. Paper: 50 epochs
    bc_lr: float = positive(3e-4, when="bc_updates!=0")  # Adam learning rate of the cloned policy


@recipes.register(
    "rambo", RAMBOConfig, learns_from="dataset", loop=OfflineLoop, no_model="real_ratio=1", defaults={"agent": AGENT, "dynamics": MODEL}
)
def build(x: Assembly[OfflineLoop], cfg: RAMBOConfig) -> None:
    """RAMBO: an agent on rollouts of a model that is trained against it."""
    if cfg.real_ratio == 1:
        return offline.build(x)
    agent, model = x.agent(), offline_ensemble(x)
    check_form(getattr(x.part("agent").config, "critic_form", PLAIN), joint=False)
    if not model.cfg.probabilistic:
        raise UserError("rambo trains by the density of a model's outcomes; expected dynamics.probabilistic=true, came false")
    check_lends(x, agent)
    true = true_successors(x.recorded.all()) if x.has_rows else None
    known = None if true is None or bool(true.all()) else true
    adversary = Adversary(model, cfg.adversary_weight, cfg.adversary_lr, cfg.horizon, known)
    x.at_start(adversary.restart)
    x.keep(adversary=adversary)
    cloning(x, agent, cfg.bc_updates, cfg.bc_lr)
    updates, rows, gamma = cfg.adversary_updates, cfg.adversary_batch, x.experiment.gamma
    rounds = [AdversaryRound(adversary, agent, x.recorded, updates, rows, gamma)] if x.has_rows else []
    first = Rounds(cfg.adversary_every, rounds, cfg.bc_updates + cfg.adversary_every)
    learn(x, cfg, agent, adversary, [first], begin=cfg.bc_updates)
