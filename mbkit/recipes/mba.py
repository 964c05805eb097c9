"""Model-based acceleration: NAF on real and imagined transitions, D_env u D_eta (Gu et al. 2016, arXiv:1603.00748, Algorithm 2)."""

from dataclasses import dataclass

from mbkit.config import Experiment
from mbkit.envs import Environment
from mbkit.errors import UserError
from mbkit.fields import at_least, between, positive
from mbkit.imagination.schedule import Schedule
from mbkit.loops import Hook, Imagine, Online
from mbkit.recipes.parts import Parts, acting, check_branches, learned_model, make_replaying_agent, real_data, spec_of, updates_on
from mbkit.registry import recipes
from mbkit.replay.mixture import Mixture
from mbkit.replay.model_buffer import ModelBuffer
from mbkit.replay.windows import Recent
from mbkit.types import Source


@dataclass(frozen=True)
class MBAConfig:
    """How much is imagined, and until when."""

    real_ratio: float = between(0.2, 0.0, 1.0)  # share of real transitions in every batch; 1: no model is used
    horizon: int = at_least(5, 1)  # steps of a rollout, l. Paper: 10
    rollouts_per_step: int = at_least(10, 1)  # start states per environment step, all drawn after a fit
    recent: int | None = at_least(None, 1)  # start states are those of so many newest transitions; None: of all. Paper: recent ones
    memory: int = at_least(5, 1)  # the imagined rows of so many fits are remembered
    memory_gb: float = positive(4.0)  # most memory of imagined rows, gigabytes
    until: int | None = at_least(None, 1)  # environment step after which batches are real only. Paper: early in training; None: never


class Switch:
    """These hooks up to an environment step, those after it."""

    def __init__(self, step: int, before: list[Hook], after: list[Hook]) -> None:
        self.step, self.before, self.after = step, before, after

    def __call__(self, loop: Online) -> None:
        """Calls each of the present ones."""
        for hook in self.before if loop.step <= self.step else self.after:
            hook(loop)


def check(config: Experiment, cfg: MBAConfig) -> None:
    """UserError where nothing would be imagined, or not in time for the first update."""
    loop = config.loop
    check_branches(config)
    if cfg.until is not None and cfg.until <= loop.warmup_steps:
        raise UserError(f"imagination.until={cfg.until}: expected more than loop.warmup_steps={loop.warmup_steps}, when imagination begins")


@recipes.register(
    "mba",
    MBAConfig,
    env="Pendulum-v1",
    steps=10_000,
    agent={"name": "naf"},
    dynamics={"name": "ensemble", "reward": "learned", "propagation": "ts1"},
    loop={"warmup_steps": 1000, "fit_every": 250},
)
def build(config: Experiment, env: Environment) -> Parts:
    """MBA: NAF, or another agent, on real transitions and on short rollouts of a learned model."""
    assert config.imagination is not None
    cfg: MBAConfig = config.imagination.config
    spec, loop = spec_of(config, env), config.loop
    agent = make_replaying_agent(config, spec)
    parts = acting(agent, config, spec)
    source = real_data(config, parts.buffer, agent)
    real: list[Hook] = [updates_on(source, agent, config)]
    if cfg.real_ratio == 1:
        parts.hooks += real
        return parts
    check(config, cfg)
    model, starts = learned_model(config, env), cfg.rollouts_per_step * loop.fit_every
    schedule = Schedule(cfg.horizon, cfg.horizon, (0, 1), loop.fit_every)  # an epoch is from fit to fit
    memory = ModelBuffer(schedule.remembered(cfg.horizon, cfg.rollouts_per_step, cfg.memory), spec, cfg.memory_gb)
    visited: Source = parts.buffer if cfg.recent is None else Recent(parts.buffer, cfg.recent)
    imagine = Imagine(model, agent.sample, visited, memory, schedule, loop, starts)
    imagine.retain_epochs = cfg.memory
    mixture = Mixture([source, memory], [cfg.real_ratio, 1 - cfg.real_ratio])
    mixed: list[Hook] = [*parts.adopt(model, config), imagine, updates_on(mixture, agent, config)]
    parts.hooks += mixed if cfg.until is None else [Switch(cfg.until, mixed, real)]
    parts.stateful["memory"] = memory
    return parts
