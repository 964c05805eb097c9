"""SVG and DHMBPO: an actor-critic whose policy ascends the model's steps by their gradients (arXiv:1510.09142, arXiv:2008.12775)."""

from dataclasses import dataclass
from typing import Any

from mbkit import registry
from mbkit.config import ModelLoop
from mbkit.errors import UserError
from mbkit.fields import at_least, between, positive
from mbkit.imagination.mve import ValueExpansion
from mbkit.imagination.schedule import Schedule
from mbkit.imagination.svg import ModelValue, check_differentiable
from mbkit.loops import CountersRead, Hook, ModelRollouts
from mbkit.recipes.assembly import Assembly
from mbkit.recipes.mve import check_agent
from mbkit.registry import recipes
from mbkit.replay.mixture import Mixture
from mbkit.targets import one_step
from mbkit.types import LearnedDynamics, PolicyObjective, Source, TargetFn

NO_MODEL = "horizon=0, target_horizon=0, spread=0"
ONE_MEMBER = ("ts_inf", "ts1")  # propagations in which a row meets one member, through which its gradient passes


@dataclass(frozen=True)
class SVGConfig:
    """Gradients through the model, targets that look ahead, and long rollouts that spread the start states of both."""

    horizon: int = at_least(5, 0)  # model steps H that the policy's gradient passes through; 0: the agent's objective. DHMBPO: 5
    target_horizon: int = at_least(5, 0)  # model steps of the critics' targets (MVE); 0: one-step targets
    max_grad_norm: float | None = positive(10.0, when="horizon!=0")  # largest norm of the policy's gradient; null: any
    spread: int = at_least(
        0, 0
    )  # length of model rollouts whose states are start states, model steps; 0: start states are real. DHMBPO: 20
    real_ratio: float = between(0.05, 0.0, 1.0, when="spread!=0")  # share of real transitions in every batch
    rollouts_per_step: int = at_least(4, 1, when="spread!=0")  # such rollouts per environment step, all begun after a fit
    retain_fits: int = at_least(1, 1, when="spread!=0")  # number of fits whose rollouts are stored
    memory_gb: float = positive(4.0, when="spread!=0")  # memory limit of the model buffer, gigabytes (1e9 bytes)

    def schedule(self, loop: ModelLoop) -> Schedule:
        """Rollouts that spread start states; an epoch is from fit to fit."""
        every = loop.fit_every
        sizes = Schedule(self.spread, self.spread, (0, 1), every, self.rollouts_per_step, self.retain_fits, every, loop.warmup_steps)
        return sizes.check() if self.spread else sizes


@recipes.register(
    "svg",
    SVGConfig,
    loop=ModelLoop,
    no_model=NO_MODEL,
    defaults={
        "env": "Pendulum-v1",
        "steps": 10_000,
        "agent": {"name": "sac"},
        "dynamics": {"name": "ensemble", "reward": "learned", "propagation": "ts_inf"},
        "loop": {"warmup_steps": 1000, "fit_every": 250},
    },
)
def build(x: Assembly[ModelLoop], cfg: SVGConfig) -> None:
    """SVG, DHMBPO: an actor-critic whose policy ascends a few steps of a learned model by their gradients."""
    if not (cfg.horizon or cfg.target_horizon or cfg.spread):
        agent = x.agent()
        x.every_step(x.updates(agent, x.real_data(agent)))
        return
    model, first = differentiable(x, cfg), list[Hook]()
    target: TargetFn = one_step
    objective: PolicyObjective | None = None
    if cfg.target_horizon:
        target = expansion = ValueExpansion(model, cfg.target_horizon)
        x.keep(target=expansion)
        first.append(CountersRead(expansion.counters, "targets", "dynamics.lr or imagination.target_horizon"))
    if cfg.horizon:
        objective = ahead = ModelValue(model, cfg.horizon, cfg.max_grad_norm)
        x.keep(objective=ahead)
        first.append(CountersRead(ahead.counters, "values of the policy", "dynamics.lr or imagination.horizon", "policy/"))
    agent = x.agent(target, objective)
    if cfg.target_horizon:
        check_agent(x, agent, target)
    data: Source = x.real_data(agent)
    rollouts: list[Hook] = []
    if cfg.spread:
        sizes = cfg.schedule(x.loop)
        buffer = x.model_buffer(sizes.capacity(), cfg.memory_gb, "imagination.retain_fits")
        rollouts = [ModelRollouts(model, agent.sample, x.replay, buffer, sizes)]
        data = Mixture([data, buffer], [cfg.real_ratio, 1 - cfg.real_ratio], real=[True, False])
    x.at_each_fit(model, first=first, then=rollouts)
    x.every_step(x.updates(agent, data))


def differentiable(x: Assembly[Any], cfg: SVGConfig) -> LearnedDynamics:
    """The experiment's model; UserError where it has no gradient that the policy's needs."""
    part = x.part("dynamics")
    if cfg.horizon:
        check_differentiable(registry.dynamics[part.name].target, f"dynamics={part.name}")
        propagation = getattr(part.config, "propagation", ONE_MEMBER[0])
        if propagation not in ONE_MEMBER:
            expected = " or ".join(ONE_MEMBER)
            raise UserError(
                f"dynamics.propagation={propagation}: {x.experiment.algo} differentiates one member per row, expected {expected}"
            )
    return x.model()
