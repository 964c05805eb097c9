"""MBPO: short branched rollouts of a learned ensemble feed an actor-critic (Janner et al. 2019, arXiv:1906.08253)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from mbkit.config import Experiment
from mbkit.envs import Environment
from mbkit.errors import UserError
from mbkit.fields import at_least, between, positive
from mbkit.imagination.gate import M2AC, MACURA
from mbkit.imagination.schedule import Schedule
from mbkit.loops import Imagine
from mbkit.recipes.parts import Parts, acting, check_branches, learned_model, make_replaying_agent, real_data, spec_of, updates_on
from mbkit.registry import recipes
from mbkit.replay.mixture import Mixture
from mbkit.replay.model_buffer import ModelBuffer


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
    memory_gb: float = positive(4.0)  # most memory of imagined rows, gigabytes (1e9 bytes)
    gate: Literal["none", "m2ac", "macura"] = "none"  # which imagined steps are remembered: all, the surer ones, those before doubt begins
    keep: float = between(0.5, 0.0, 1.0)  # m2ac: share remembered where k = 1; of longer rollouts keep (k - h) / (k + 1) of step h
    penalty: float = at_least(0.001, 0.0)  # m2ac: alpha, reward is r - alpha u
    stop: bool = False  # m2ac: rows that are masked end. Paper: False, "non-stop"; True, "hard-stop", is its ablation
    xi: float = positive(5.0)  # macura: threshold in percentiles of the first step. Hopper: 30, HalfCheetah: 2, Humanoid: 5
    zeta: float = between(95.0, 0.0, 100.0)  # macura: which percentile. Hopper: 90


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
    assert config.imagination is not None
    cfg: MBPOConfig = config.imagination.config
    spec = spec_of(config, env)
    agent = make_replaying_agent(config, spec)
    parts = acting(agent, config, spec)
    source = real_data(config, parts.buffer, agent)
    if cfg.real_ratio < 1:
        imagine = imagination(config, env, parts)
        source = Mixture([source, imagine.memory], [cfg.real_ratio, 1 - cfg.real_ratio])
    parts.hooks.append(updates_on(source, agent, config))
    return parts


def imagination(config: Experiment, env: Environment, parts: Parts) -> Imagine:
    """Adds the model, its fits and its rollouts to `parts`."""
    cfg, loop, spec = config.imagination.config, config.loop, parts.buffer.spec  # type: ignore[union-attr]
    check_branches(config)
    last = cfg.horizon if cfg.final_horizon is None else cfg.final_horizon
    schedule = Schedule(cfg.horizon, last, cfg.grow_epochs, cfg.epoch_length).check()
    model, wanted = learned_model(config, env), schedule.remembered(last, cfg.rollouts_per_step, cfg.retain_epochs)
    memory = ModelBuffer(wanted, spec, cfg.memory_gb)
    imagine = Imagine(model, parts.actor.sample, parts.buffer, memory, schedule, loop, cfg.rollouts_per_step * loop.fit_every)  # type: ignore[attr-defined]
    imagine.retain_epochs = cfg.retain_epochs
    parts.hooks += [*parts.adopt(model, config), imagine]
    parts.notes.append(memory_note(memory, wanted, config))
    parts.stateful["memory"] = memory
    if cfg.gate != "none":
        gate = make_gate(config, model, spec.device)
        imagine.gate, parts.stateful["gate"] = gate, gate
    return imagine


def make_gate(config: Experiment, model: Any, device: torch.device) -> M2AC | MACURA:
    """The gate of `imagination.gate`, with the model told to show its members. UserError where it has none to compare."""
    cfg, dynamics = config.imagination.config, config.dynamics  # type: ignore[union-attr]
    assert dynamics is not None
    if not hasattr(model, "with_prediction") or getattr(dynamics.config, "members", 1) < 2:
        raise UserError(f"imagination.gate={cfg.gate} compares the members of an ensemble; dynamics={dynamics.name} needs at least 2")
    if not getattr(dynamics.config, "probabilistic", True):
        raise UserError(f"imagination.gate={cfg.gate} compares variances; expected dynamics.probabilistic=true, came false")
    model.with_prediction = True
    return M2AC(cfg.keep, cfg.penalty, cfg.stop) if cfg.gate == "m2ac" else MACURA(cfg.xi, cfg.zeta, device)


def memory_note(memory: ModelBuffer, wanted: int, config: Experiment) -> str:
    """How much the model buffer takes, here and in every checkpoint."""
    size = f"{memory.capacity} rows of {memory.row_bytes} bytes, {memory.gigabytes:.2g} GB"
    note = f"The model buffer holds at most {size}, and so does every checkpoint (checkpoint.every={config.checkpoint.every})."
    short = f" imagination.memory_gb keeps it from the {wanted} rows that imagination.retain_epochs asks for."
    return note + (short if memory.capacity < wanted else "")
