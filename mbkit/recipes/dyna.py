"""Dyna: real updates, a model of what was seen, and updates on what it says of pairs seen before (Sutton 1991, Dyna; deep template)."""

from dataclasses import dataclass

from mbkit.config import Experiment
from mbkit.envs import Environment
from mbkit.fields import between
from mbkit.imagination.dyna import SeenPairs
from mbkit.loops import Watch
from mbkit.recipes.parts import Parts, acting, learned_model, make_replaying_agent, real_data, spec_of, updates_on
from mbkit.registry import recipes


@dataclass(frozen=True)
class DynaConfig:
    """How much is planned."""

    updates: float = between(5.0, 0, 10_000)  # M: imagined updates per environment step, beside the real ones; 0: no model is used


@recipes.register(
    "dyna",
    DynaConfig,
    env="Pendulum-v1",
    steps=10_000,
    agent={"name": "naf"},
    dynamics={"name": "ensemble", "reward": "learned", "propagation": "ts1"},
    loop={"warmup_steps": 1000, "fit_every": 250},
)
def build(config: Experiment, env: Environment) -> Parts:
    """Dyna: any agent on real transitions and on a model's account of pairs seen before."""
    assert config.imagination is not None
    cfg: DynaConfig = config.imagination.config
    spec = spec_of(config, env)
    agent = make_replaying_agent(config, spec)
    parts = acting(agent, config, spec)
    parts.hooks.append(updates_on(real_data(config, parts.buffer, agent), agent, config))  # Algorithm: (d) direct reinforcement learning
    if cfg.updates > 0:
        model = learned_model(config, env)
        pairs = SeenPairs(parts.buffer, model)
        imagined = updates_on(pairs, agent, config, rate=cfg.updates)
        imagined.prefix = "imagined/"
        parts.hooks.append(Watch(pairs.seen, config.loop, "imagined steps", "dynamics.lr"))  # before the fit: how the former one did
        parts.hooks += [*parts.adopt(model, config), imagined]  # (e) model learning, (f) planning
        parts.stateful["pairs"] = pairs
    return parts
