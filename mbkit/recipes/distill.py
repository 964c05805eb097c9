"""Plans into policies: a network that is trained beside a planner, and acts in a fraction of its time (POPLIN, arXiv:1906.08649)."""

from dataclasses import dataclass
from typing import Any

from mbkit.accelerate import same_random_numbers
from mbkit.agents.distilled import DistilledPolicy
from mbkit.fields import at_least, between, positive
from mbkit.loops.distillation import Distillation
from mbkit.loops.updates import Cadence
from mbkit.planning.mpc import MPC
from mbkit.recipes.assembly import Assembly
from mbkit.replay.plans import PlanBuffer


@dataclass(frozen=True)
class DistillConfig:
    """A policy regressed on the means of the plans that were executed."""

    distill: bool = False  # training of a policy on the executed plans; `mbkit evaluate RUN --policy distilled` scores it
    distill_hidden: tuple[int, ...] = at_least((256, 256), 1, when="distill=true")  # hidden widths of that policy
    distill_lr: float = positive(1e-3, when="distill=true")  # Adam learning rate of that policy
    distill_updates_per_step: float = between(
        1.0, 1e-4, 10_000, when="distill=true"
    )  # gradient updates of that policy per environment step
    distill_batch_size: int = at_least(256, 1, when="distill=true")  # executed plans per update of that policy
    distill_buffer: int = at_least(100_000, 1, when="distill=true")  # newest executed plans that it learns from


def distil(x: Assembly[Any], cfg: DistillConfig, actor: MPC) -> None:
    """The policy learns from the actor's plans after every step. It changes no random numbers: what is planned is the same without it."""
    if not cfg.distill:
        return
    with same_random_numbers():
        policy = DistilledPolicy(x.spec, cfg.distill_hidden, cfg.distill_lr)
    plans = PlanBuffer(cfg.distill_buffer, x.spec, x.experiment.seed)
    cadence = Cadence(cfg.distill_updates_per_step, x.loop.warmup_steps)
    x.distilled = policy
    x.keep(distilled=policy, plans=plans)
    x.every_step(Distillation(actor, x.env, policy, plans, cadence, cfg.distill_batch_size, x.loop.log_every))
