"""MVE and STEVE: a model-free agent whose critics' targets look ahead in a learned ensemble (arXiv:1803.00101, arXiv:1807.01675)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from mbkit.accelerate import rng_state, set_rng_state
from mbkit.buffer import ReplayBuffer
from mbkit.config import Experiment, LoopConfig, at_least
from mbkit.envs import Environment
from mbkit.imagination.mve import ValueExpansion, check_critics
from mbkit.loops import FitModel, Hook, Updates
from mbkit.loops.learn import fit_due
from mbkit.loops.online import Online
from mbkit.recipes.parts import Greedy, Parts, learned_model, make_replaying_agent, model_notes, real_data, spec_of
from mbkit.registry import recipes
from mbkit.types import EnvSpec, Learner, UserError

BROKEN = 0.5  # share of the targets that may be non-finite before the model counts as diverged


@dataclass(frozen=True)
class MVEConfig:
    """Targets that look ahead."""

    horizon: int = at_least(3, 0)  # imagined steps before the bootstrap, H; 0: the agent alone. Paper: 10 on HalfCheetah; STEVE: 3
    start: Literal["data", "model"] = "data"  # data: the paper's form, trained on all s_-1..s_{H-1}; model: one n-step target each
    weighting: Literal["uniform", "steve"] = "uniform"  # steve: horizons 0..H weighed by the inverse variance of their targets
    particles: int | None = at_least(None, 1)  # rollouts of each state, for STEVE; None: one for each elite


class Watch:
    """Writes down at each fit how the targets since the last one came out."""

    def __init__(self, target: ValueExpansion, cfg: LoopConfig) -> None:
        self.target, self.cfg = target, cfg

    def __call__(self, loop: Online) -> None:
        """Where a fit was due. UserError where most targets were not finite; the replay and the last checkpoint are as they were."""
        if self.target.seen is None or not fit_due(loop, self.cfg):
            return
        rows, ahead, wanted, broken = self.target.seen.tolist()
        self.target.seen.zero_()
        if broken > BROKEN * wanted:
            raise UserError(
                f"the model diverged: {broken:.0f} of {wanted:.0f} targets are not finite at step {loop.step}, expected finite numbers; "
                "a smaller dynamics.lr or imagination.horizon is safer (the last checkpoint is from before)"
            )
        loop.recorder.event(loop.step, {"imagination/broken": broken / max(wanted, 1), "imagination/steps": ahead / max(rows, 1)})


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


def check_model(model: Any, config: Experiment, spec: EnvSpec) -> None:
    """UserError where the model is of another environment, or would be asked before anything was learned."""
    assert config.dynamics is not None
    own = getattr(model, "spec", spec)
    if (own.obs_dim, own.action_dim, own.discrete) != (spec.obs_dim, spec.action_dim, spec.discrete):
        has, wants = (f"{s.obs_dim} observations and {s.action_dim} {'discrete ' * s.discrete}actions" for s in (own, spec))
        raise UserError(f"dynamics {config.dynamics.name!r} has {has}; the agent expects {wants}")
    empty = getattr(config.dynamics.config, "load", "") is None
    if empty and not (config.loop.fit and config.loop.warmup_steps):
        raise UserError(
            f"loop.fit={config.loop.fit} and loop.warmup_steps={config.loop.warmup_steps}: targets would come from a model that learned "
            "nothing; expected loop.warmup_steps >= 1 and loop.fit=true, or dynamics.load"
        )


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
    model = learned_model(config, env)
    check_model(model, config, spec)
    target = ValueExpansion(model, cfg.horizon, cfg.start, cfg.weighting, count_particles(cfg, config.dynamics.config))
    agent, buffer = make_replaying_agent(config, spec, target), ReplayBuffer(loop.buffer_size, spec)
    check_agent(agent, target, config.agent.name, spec, cfg.weighting == "steve")
    updates = Updates(agent, real_data(config, buffer), loop, torch.device(config.device), config.agent.name)
    # fitted before the agent learns: no target comes from a model that has seen nothing
    hooks: list[Hook] = [*([FitModel(model, buffer, loop)] if loop.fit else []), updates, Watch(target, loop)]
    stateful = {"buffer": buffer, "agent": agent, "dynamics": model}
    return Parts(agent, buffer, lambda other: Greedy(agent), hooks, stateful, model, model_notes(config))
