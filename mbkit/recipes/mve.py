"""MVE and STEVE: a model-free agent whose critics' targets look ahead in a learned ensemble (arXiv:1803.00101, arXiv:1807.01675)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from mbkit.accelerate import rng_state, set_rng_state
from mbkit.config import Experiment
from mbkit.envs import Environment
from mbkit.errors import UserError
from mbkit.fields import at_least
from mbkit.imagination.mve import ValueExpansion, check_critics
from mbkit.loops import Watch
from mbkit.recipes.parts import Parts, acting, learned_model, make_replaying_agent, real_data, spec_of, updates_on
from mbkit.registry import recipes
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Learner


@dataclass(frozen=True)
class MVEConfig:
    """Targets that look ahead."""

    horizon: int = at_least(3, 0)  # imagined steps before the bootstrap, H; 0: no model is used. Paper: 10 on HalfCheetah; STEVE: 3
    start: Literal["data", "model"] = "data"  # data: the paper's form, trained on all s_-1..s_{H-1}; model: one n-step target each
    weighting: Literal["uniform", "steve"] = "uniform"  # steve: horizons 0..H weighed by the inverse variance of their targets
    particles: int | None = at_least(None, 1)  # rollouts of each state, for STEVE; None: one for each elite


def check_agent(agent: Learner, target: ValueExpansion, name: str, spec: EnvSpec, steve: bool) -> None:
    """UserError where the agent lends no networks to a target, does not use the one it was given, or is too sure of itself for STEVE."""
    if not all(callable(getattr(agent, part, None)) for part in ("backup_action", "backup_q")):
        raise UserError(
            f"agent {name!r} lends no backup_action and backup_q to its targets, which mve needs; expected e.g. ddpg, td3 or sac"
        )
    if getattr(agent, "target", None) is not target:
        raise UserError(f"agent {name!r} makes targets of its own and ignores the one that mve gives it; expected e.g. ddpg, td3 or sac")
    if steve:
        before = rng_state()
        lent: Any = agent
        obs = torch.zeros(1, spec.obs_dim, device=spec.device)
        with torch.no_grad():
            check_critics(len(lent.backup_q(obs, lent.backup_action(obs)[0])), f"agent {name!r}")
        set_rng_state(before)


def count_particles(cfg: MVEConfig, dynamics: Any) -> int:
    """P. UserError where particles would wander between the members that they are to tell apart."""
    elites = getattr(dynamics, "elites", 1)
    if cfg.particles is None:
        return elites if cfg.weighting == "steve" else 1
    if cfg.weighting == "steve" and getattr(dynamics, "propagation", None) == "ts_inf" and cfg.particles % elites:
        raise UserError(f"imagination.particles={cfg.particles}: expected a multiple of dynamics.elites={elites}, so that each meets one")
    return cfg.particles


@recipes.register(
    "mve",
    MVEConfig,
    env="InvertedPendulum-v5",
    steps=10_000,
    agent={"name": "ddpg"},
    dynamics={"name": "ensemble", "reward": "learned", "propagation": "ts_inf"},
    loop={"warmup_steps": 1000, "fit_every": 250},
)
def build(config: Experiment, env: Environment) -> Parts:
    """MVE, STEVE: an actor-critic on real data, its targets look ahead in a learned ensemble."""
    assert config.agent is not None
    assert config.imagination is not None
    assert config.dynamics is not None
    cfg: MVEConfig = config.imagination.config
    spec, loop = spec_of(config, env), config.loop
    if cfg.horizon == 0 and cfg.weighting == "steve":
        raise UserError("imagination.horizon=0: expected at least 1 where imagination.weighting=steve")
    if cfg.start == "model" and loop.n_step > 1:
        raise UserError(f"loop.n_step={loop.n_step}: imagination.start=model uses no real reward, expected 1 or imagination.start=data")
    model: Any = learned_model(config, env) if cfg.horizon else None
    target = ValueExpansion(model, cfg.horizon, cfg.start, cfg.weighting, count_particles(cfg, config.dynamics.config))
    agent = make_replaying_agent(config, spec, one_step if model is None else target)
    parts = acting(agent, config, spec)
    updates = updates_on(real_data(config, parts.buffer, agent), agent, config)
    if model is None:
        parts.hooks = [updates]
        return parts
    check_agent(agent, target, config.agent.name, spec, cfg.weighting == "steve")
    # fitted before the agent learns: no target comes from a model that has seen nothing
    watch = Watch(target.seen, loop, "targets", "dynamics.lr or imagination.horizon")
    parts.hooks = [watch, *parts.adopt(model, config), updates]
    parts.stateful["target"] = target
    return parts
