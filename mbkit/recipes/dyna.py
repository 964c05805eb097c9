"""Dyna: updates on real transitions, and on model predictions from replayed state-action pairs (Sutton 1991, Dyna; deep template)."""

from dataclasses import dataclass

from mbkit.config import ModelLoop
from mbkit.fields import between
from mbkit.imagination.dyna import ModelPredictions
from mbkit.loops import CountersRead
from mbkit.recipes.assembly import Assembly
from mbkit.registry import recipes


@dataclass(frozen=True)
class DynaConfig:
    """How much is planned."""

    updates: float = between(5.0, 0, 10_000)  # updates on model predictions per environment step, beside the real ones; 0: no model


@recipes.register(
    "dyna",
    DynaConfig,
    loop=ModelLoop,
    no_model="updates=0",
    defaults={
        "env": "Pendulum-v1",
        "steps": 10_000,
        "agent": {"name": "naf"},
        "dynamics": {"name": "ensemble", "reward": "learned", "propagation": "ts1"},
        "loop": {"warmup_steps": 1000, "fit_every": 250},
    },
)
def build(x: Assembly[ModelLoop], cfg: DynaConfig) -> None:
    """Dyna: any agent on real transitions and on model predictions from replayed state-action pairs."""
    agent = x.agent()
    x.every_step(x.updates(agent, x.real_data(agent)))  # (d) direct reinforcement learning
    if cfg.updates == 0:
        return
    model = x.model()
    predictions = ModelPredictions(x.replay, model)
    x.keep(predictions=predictions)
    x.at_each_fit(model, first=[CountersRead(predictions.counters, "model steps", "dynamics.lr")])  # (e) model learning
    x.every_step(x.updates(agent, predictions, cfg.updates, prefix="model_updates/"))  # (f) planning
