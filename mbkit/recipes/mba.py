"""Model-based acceleration: NAF on real and model transitions, D_env u D_eta (Gu et al. 2016, arXiv:1603.00748, Algorithm 2)."""

from dataclasses import dataclass

from mbkit.config import ModelLoop
from mbkit.errors import UserError
from mbkit.fields import at_least, between, positive
from mbkit.imagination.schedule import Schedule
from mbkit.loops import ModelRollouts, Until
from mbkit.recipes.assembly import Assembly
from mbkit.registry import recipes
from mbkit.replay.mixture import Mixture
from mbkit.replay.windows import Recent


@dataclass(frozen=True)
class MBAConfig:
    """How many model transitions there are, and until when they are used."""

    real_ratio: float = between(0.2, 0.0, 1.0)  # share of real transitions in every batch; 1: no model
    horizon: int = at_least(5, 1, when="real_ratio!=1")  # rollout length l, model steps. Paper: 10
    rollouts_per_step: int = at_least(10, 1, when="real_ratio!=1")  # start states per environment step, all drawn after a fit
    recent: int | None = at_least(
        None, 1, when="real_ratio!=1"
    )  # newest transitions that start states are drawn from; null: all. Paper: recent
    retain_fits: int = at_least(5, 1, when="real_ratio!=1")  # number of fits whose model transitions are stored
    memory_gb: float = positive(4.0, when="real_ratio!=1")  # memory limit of the model buffer, gigabytes
    until: int | None = at_least(None, 1, when="real_ratio!=1")  # last environment step with a model; null: all. Paper: early in training

    def schedule(self, loop: ModelLoop) -> Schedule:
        """Rollouts of one length; an epoch is from fit to fit."""
        epochs = (0, 1)
        return Schedule(
            self.horizon, self.horizon, epochs, loop.fit_every, self.rollouts_per_step, self.retain_fits, loop.fit_every, loop.warmup_steps
        ).check()


@recipes.register(
    "mba",
    MBAConfig,
    loop=ModelLoop,
    no_model="real_ratio=1",
    defaults={
        "env": "Pendulum-v1",
        "steps": 10_000,
        "agent": {"name": "naf"},
        "dynamics": {"name": "ensemble", "reward": "learned", "propagation": "ts1"},
        "loop": {"warmup_steps": 1000, "fit_every": 250},
    },
)
def build(x: Assembly[ModelLoop], cfg: MBAConfig) -> None:
    """MBA: NAF, or another agent, on real transitions and on short rollouts of a learned model."""
    agent = x.agent()
    real = x.updates(agent, x.real_data(agent))
    if cfg.real_ratio == 1:
        x.every_step(real)
        return
    if cfg.until is not None and cfg.until <= x.loop.warmup_steps:
        raise UserError(f"imagination.until={cfg.until}: expected more than loop.warmup_steps={x.loop.warmup_steps}, when rollouts begin")
    model, schedule = x.model(), cfg.schedule(x.loop)
    buffer = x.model_buffer(schedule.capacity(), cfg.memory_gb, "imagination.retain_fits")
    starts = x.replay if cfg.recent is None else Recent(x.replay, cfg.recent)
    mixed = x.updates(agent, Mixture([x.real_data(agent), buffer], [cfg.real_ratio, 1 - cfg.real_ratio], real=[True, False]))
    x.at_each_fit(model, then=[ModelRollouts(model, agent.sample, starts, buffer, schedule)], until=cfg.until)
    x.every_step(mixed if cfg.until is None else Until(cfg.until, [mixed], [real]))
