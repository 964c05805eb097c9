"""Dyna: real updates, a model of what was seen, and updates on what it says of pairs seen before (Sutton 1991, Dyna; deep template)."""

from dataclasses import dataclass

import torch

from mbkit.buffer import ReplayBuffer
from mbkit.config import Experiment, between
from mbkit.envs import Environment
from mbkit.imagination.pairs import SeenPairs
from mbkit.loops import FitModel, Updates, Watch
from mbkit.recipes.parts import Greedy, Parts, learned_model, make_replaying_agent, model_notes, real_data, spec_of
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
    assert config.agent is not None
    assert config.imagination is not None
    cfg: DynaConfig = config.imagination.config
    spec, loop, device, name = spec_of(config, env), config.loop, torch.device(config.device), config.agent.name
    agent, buffer = make_replaying_agent(config, spec), ReplayBuffer(loop.buffer_size, spec)
    parts = Parts(agent, buffer, lambda other: Greedy(agent), stateful={"buffer": buffer, "agent": agent})
    parts.hooks.append(Updates(agent, real_data(config, buffer), loop, device, name))  # Algorithm: (d) direct reinforcement learning
    if cfg.updates > 0:
        model = learned_model(config, env)
        pairs = SeenPairs(buffer, model)
        imagined = Updates(agent, pairs, loop, device, name, rate=cfg.updates)
        imagined.prefix = "imagined/"
        parts.hooks.append(Watch(pairs.seen, loop, "imagined steps", "dynamics.lr"))  # before the fit: how the former one did
        parts.hooks += [*([FitModel(model, buffer, loop)] if loop.fit else []), imagined]  # (e) model learning, (f) planning
        parts.dynamics, parts.stateful["dynamics"], parts.stateful["pairs"] = model, model, pairs
        parts.notes += model_notes(config)
    return parts
