"""MBPO: short branched rollouts of a learned ensemble feed an actor-critic (Janner et al. 2019, arXiv:1906.08253)."""

from dataclasses import dataclass

import torch

from mbkit.buffer import Mixture, ReplayBuffer
from mbkit.config import Experiment, at_least, between, positive
from mbkit.envs import Environment
from mbkit.imagination.memory import ModelBuffer
from mbkit.imagination.schedule import Schedule
from mbkit.loops import FitModel, Imagine, Updates
from mbkit.recipes.parts import Greedy, Parts, learned_model, make_agent, model_notes, real_data, spec_of
from mbkit.registry import recipes


@dataclass(frozen=True)
class MBPOConfig:
    """Imagined data; the constants of the paper per environment are the presets `preset=paper`."""

    real_ratio: float = between(0.05, 0.0, 1.0)  # share of real transitions in every batch; 1: no model is used. mbrl-lib: 0
    horizon: int = at_least(1, 1)  # steps of a rollout, k, at the beginning
    final_horizon: int | None = at_least(None, 1)  # k in the end; None: as at the beginning. Hopper: 15
    grow_epochs: tuple[int, int] = at_least((20, 150), 0)  # epochs after the warm-up between which k grows
    epoch_length: int = at_least(1000, 1)  # environment steps
    rollouts_per_step: int = at_least(400, 1)  # start states per environment step, all drawn after a fit
    retain_epochs: int = at_least(1, 1)  # imagined rows of so many epochs are remembered. Humanoid: 5
    memory_gb: float = positive(4.0)  # most memory of imagined rows, gigabytes


@recipes.register(
    "mbpo",
    MBPOConfig,
    env="InvertedPendulum-v5",
    steps=5000,
    agent={"name": "sac"},
    dynamics={"name": "ensemble", "reward": "learned", "propagation": "ts1"},
    loop={"warmup_steps": 5000, "fit_every": 250, "updates_per_step": 20},
)
def build(config: Experiment, env: Environment) -> Parts:
    """MBPO: an actor-critic on short branched rollouts of a learned ensemble."""
    assert config.agent is not None
    assert config.imagination is not None
    cfg: MBPOConfig = config.imagination.config
    spec, loop = spec_of(config, env), config.loop
    last = cfg.horizon if cfg.final_horizon is None else cfg.final_horizon
    schedule = Schedule(cfg.horizon, last, cfg.grow_epochs, cfg.epoch_length).check()
    agent, buffer = make_agent(config, spec), ReplayBuffer(loop.buffer_size, spec)
    parts = Parts(agent, buffer, lambda other: Greedy(agent), stateful={"buffer": buffer, "agent": agent})
    source = real_data(config, buffer)
    if cfg.real_ratio < 1:
        model = learned_model(config, env)
        memory = ModelBuffer(schedule.remembered(last, cfg.rollouts_per_step, cfg.retain_epochs), spec, cfg.memory_gb)
        imagine = Imagine(model, agent.sample, buffer, memory, schedule, loop, cfg.rollouts_per_step * loop.fit_every)
        imagine.retain_epochs = cfg.retain_epochs
        parts.hooks += [*([FitModel(model, buffer, loop)] if loop.fit else []), imagine]
        parts.dynamics, parts.stateful["dynamics"], parts.stateful["memory"] = model, model, memory
        parts.notes += model_notes(config)
        parts.notes.append(f"The model buffer holds at most {memory.capacity} rows of {memory.row_bytes} bytes: {memory.gigabytes:.2f} GB.")
        source = Mixture([source, memory], [cfg.real_ratio, 1 - cfg.real_ratio])
    parts.hooks.append(Updates(agent, source, loop, torch.device(config.device), config.agent.name))
    return parts
