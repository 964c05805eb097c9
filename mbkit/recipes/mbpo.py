"""MBPO: short branched rollouts of a learned ensemble feed an actor-critic (Janner et al. 2019, arXiv:1906.08253)."""

from dataclasses import dataclass
from typing import cast

from mbkit.config import ModelLoop, Part
from mbkit.dynamics.ensemble import Ensemble
from mbkit.errors import UserError
from mbkit.fields import at_least, between, option, positive
from mbkit.imagination.branch import Gate
from mbkit.imagination.schedule import Schedule
from mbkit.loops import ModelRollouts
from mbkit.recipes.assembly import Assembly
from mbkit.registry import gates, recipes
from mbkit.replay.mixture import Mixture
from mbkit.types import LearnedDynamics, Stateful


@dataclass(frozen=True)
class MBPOConfig:
    """Model rollouts; the constants of the paper per environment are the presets `preset=paper`."""

    real_ratio: float = between(0.05, 0.0, 1.0)  # share of real transitions in every batch; 1: no model. mbrl-lib: 0
    horizon: int = at_least(1, 1, when="real_ratio!=1")  # rollout length k at the beginning, model steps
    final_horizon: int | None = at_least(
        None, 1, when="real_ratio!=1"
    )  # rollout length k in the end; null: as at the beginning. Hopper: 15
    grow_epochs: tuple[int, int] = at_least((20, 150), 0, when="real_ratio!=1, final_horizon!=null")  # epochs between which k grows
    epoch_length: int = at_least(1000, 1, when="real_ratio!=1")  # length of an epoch, environment steps
    rollouts_per_step: int = at_least(400, 1, when="real_ratio!=1")  # start states per environment step, all drawn after a fit
    retain_epochs: int = at_least(1, 1, when="real_ratio!=1")  # number of epochs whose model transitions are stored. Humanoid: 5
    memory_gb: float = positive(4.0, when="real_ratio!=1")  # memory limit of the model buffer, gigabytes (1e9 bytes)
    gate: str = option("none", when="real_ratio!=1")  # use of the model's uncertainty: none, m2ac, macura, confidence, or one of your own
    keep_ratio: float = between(0.5, 0.0, 1.0, when="gate=m2ac")  # stored share where k = 1; of longer rollouts keep (k - h) / (k + 1)
    penalty: float = at_least(0.001, 0.0, when="gate=m2ac")  # uncertainty penalty alpha, reward is r - alpha u
    hard_stop: bool = option(False, when="gate=m2ac")  # end of rollouts at masked steps. Paper: false; true is its ablation "hard-stop"
    xi: float = positive(5.0, when="gate=macura")  # uncertainty threshold xi, percentiles of the first step. Hopper: 30, HalfCheetah: 2
    zeta: float = between(95.0, 0.0, 100.0, when="gate=macura")  # percentile zeta of the uncertainty at the first step. Hopper: 90

    def schedule(self, loop: ModelLoop) -> Schedule:
        """How many rollouts there are, and how long."""
        last = self.horizon if self.final_horizon is None else self.final_horizon
        size = self.epoch_length, self.rollouts_per_step, self.retain_epochs
        return Schedule(self.horizon, last, self.grow_epochs, *size, loop.fit_every, loop.warmup_steps).check()


@recipes.register(
    "mbpo",
    MBPOConfig,
    loop=ModelLoop,
    no_model="real_ratio=1",
    defaults={
        "env": "InvertedPendulum-v5",
        "steps": 5000,
        "agent": {"name": "sac"},
        "dynamics": {"name": "ensemble", "reward": "learned", "propagation": "ts1"},
        "loop": {"warmup_steps": 5000, "fit_every": 250, "updates_per_step": 20},
    },
)
def build(x: Assembly[ModelLoop], cfg: MBPOConfig) -> None:
    """MBPO: an actor-critic on short branched rollouts of a learned ensemble."""
    agent = x.agent()
    data, gate = x.real_data(agent), None
    if cfg.real_ratio < 1:
        model, schedule = x.model(), cfg.schedule(x.loop)
        gate = make_gate(cfg, x.part("dynamics"), model)
        buffer = x.model_buffer(schedule.capacity(), cfg.memory_gb, "imagination.retain_epochs", weighted=getattr(gate, "weighs", False))
        x.at_each_fit(model, then=[ModelRollouts(model, agent.sample, x.replay, buffer, schedule, gate)])
        data = Mixture([data, buffer], [cfg.real_ratio, 1 - cfg.real_ratio], real=[True, False])
        if isinstance(gate, Stateful):
            x.keep(gate=gate)
    updates = x.updates(agent, data)
    updates.pessimistic |= getattr(gate, "penalises", False)
    x.every_step(updates)


def make_gate(cfg: MBPOConfig, dynamics: Part, model: LearnedDynamics) -> Gate | None:
    """The gate of `imagination.gate`; UserError where the model has no members, or no variances, to compare."""
    if cfg.gate == "none":
        return None
    entry = gates[cfg.gate]
    if getattr(dynamics.config, "members", 1) < 2 or dynamics.name != "ensemble":
        raise UserError(f"imagination.gate={cfg.gate} compares the members of an ensemble; dynamics={dynamics.name} needs at least 2")
    if not dynamics.config.probabilistic:
        raise UserError(f"imagination.gate={cfg.gate} compares variances; expected dynamics.probabilistic=true, came false")
    scale = cast("Ensemble", model).network.targets.std
    gate: Gate = entry.target(cfg, scale)
    return gate
