"""MVE and STEVE: a model-free agent whose critics' targets look ahead in a learned ensemble (arXiv:1803.00101, arXiv:1807.01675)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from mbkit.accelerate import same_random_numbers
from mbkit.config import ModelLoop, OfflineLoop, Part
from mbkit.errors import UserError
from mbkit.fields import at_least, option
from mbkit.imagination.mve import ValueExpansion, check_critics
from mbkit.loops import CountersRead
from mbkit.loops.rounds import Rounds
from mbkit.recipes import offline
from mbkit.recipes.assembly import Assembly
from mbkit.recipes.pessimistic import offline_model
from mbkit.registry import recipes
from mbkit.types import Learner, TargetFn

COUNTED_EVERY = 1000  # updates on a data set between two looks at the model's answers


@dataclass(frozen=True)
class MVEConfig:
    """Targets that look ahead."""

    horizon: int = at_least(3, 0)  # model steps H before the bootstrap; 0: no model. Paper: 10 on HalfCheetah; STEVE: 3
    start: Literal["data", "model"] = option(
        "data", when="horizon!=0"
    )  # start state; data: the paper's form, all of s_-1..s_{H-1} are trained on
    weighting: Literal["uniform", "steve"] = option("uniform", when="horizon!=0")  # weights of the horizons; steve: inverse target variance
    particles: int | None = at_least(None, 1, when="weighting=steve")  # model rollouts of each state; null: one for each elite


@recipes.register(
    "mve",
    MVEConfig,
    learns_from=("replay", "dataset"),
    loop=ModelLoop,
    no_model="horizon=0",
    defaults={
        "env": "InvertedPendulum-v5",
        "steps": 10_000,
        "agent": {"name": "ddpg"},
        "dynamics": {"name": "ensemble", "reward": "learned", "propagation": "ts_inf"},
        "loop": {"warmup_steps": 1000, "fit_every": 250},
    },
)
def build(x: Assembly[Any], cfg: MVEConfig) -> None:
    """MVE, STEVE: an actor-critic on real data, its targets look ahead in a learned ensemble."""
    on_data = x.experiment.data is not None
    if cfg.horizon == 0:
        agent = x.agent()
    else:
        check(cfg, x.loop)
        model = offline_model(x) if on_data else x.model()
        target = ValueExpansion(model, cfg.horizon, cfg.start, cfg.weighting, count_particles(cfg, x.part("dynamics")))
        agent = x.agent(target)
        check_agent(x, agent, target, steve=cfg.weighting == "steve")
        x.keep(target=target)
        counts = CountersRead(target.counters, "targets", "dynamics.lr or imagination.horizon")
        if on_data:
            x.every_step(Rounds(COUNTED_EVERY, [counts]))
        else:  # fitted before the agent learns: no target comes from a model without data
            x.at_each_fit(model, first=[counts])
    offline.learn(x, agent) if on_data else x.every_step(x.updates(agent, x.real_data(agent)))


def check(cfg: MVEConfig, loop: ModelLoop | OfflineLoop) -> None:
    """UserError where options contradict one another."""
    if cfg.start == "model" and isinstance(loop, ModelLoop) and loop.n_step > 1:
        raise UserError(f"loop.n_step={loop.n_step}: imagination.start=model uses no real reward, expected 1 or imagination.start=data")


def check_lends(x: Assembly[Any], agent: Learner) -> None:
    """UserError where the agent has no target networks to lend."""
    if not all(callable(getattr(agent, method, None)) for method in ("backup_action", "backup_q")):
        raise UserError(
            f"agent {x.part('agent').name!r} lends no backup_action and backup_q to its targets, which {x.experiment.algo} needs; "
            "expected e.g. ddpg, td3 or sac"
        )


def check_agent(x: Assembly[Any], agent: Learner, target: TargetFn, steve: bool = False) -> None:
    """UserError where the agent has no target networks to lend, ignores the target, or has a single critic where STEVE needs two."""
    name = x.part("agent").name
    check_lends(x, agent)
    if getattr(agent, "target", None) is not target or getattr(agent, "computes_targets", False):
        raise UserError(
            f"agent {name!r} computes its targets itself and ignores the target function of {x.experiment.algo}; "
            "expected e.g. ddpg, td3 or sac"
        )
    if steve:
        lent: Any = agent
        obs = torch.zeros(1, x.spec.obs_dim, device=x.spec.device)
        with torch.no_grad(), same_random_numbers():
            check_critics(len(lent.backup_q(obs, lent.backup_action(obs)[0])), f"agent {name!r}")


def count_particles(cfg: MVEConfig, dynamics: Part) -> int:
    """P. UserError where particles would wander between the members that they are to tell apart."""
    elites = getattr(dynamics.config, "elites", 1)
    if cfg.particles is None:
        return elites if cfg.weighting == "steve" else 1
    if cfg.weighting == "steve" and getattr(dynamics.config, "propagation", None) == "ts_inf" and cfg.particles % elites:
        raise UserError(f"imagination.particles={cfg.particles}: expected a multiple of dynamics.elites={elites}, so that each meets one")
    return cfg.particles
