"""The hook that updates an agent on batches of transitions. K updates at once, B batch."""

import math
from collections.abc import Mapping
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from mbkit.accelerate import accelerated
from mbkit.config import FreshLoop, ReplayLoop
from mbkit.errors import UserError
from mbkit.loops.clock import Clock
from mbkit.loops.memory import refuse_oversized
from mbkit.types import Learner, Source


class Cadence(NamedTuple):
    """How often an agent is updated: `rate` times for each step of the clock after the warm-up, in groups of `at_once`."""

    rate: float
    warmup_steps: int = 0
    at_once: int = 1

    def due(self, step: int) -> int:
        """Updates that are to have happened after `step` steps."""
        groups = (step - self.warmup_steps) * self.rate / self.at_once
        return max(0, math.floor(groups + 1e-9)) * self.at_once


class Updates:
    """Gradient updates of an agent on batches of a source; `rate` for each step of the clock, by default `loop.updates_per_step`.

    In mode "cudagraph" K of them, sampling included, are one graph; K is what falls due in a step, rounded up to the agent's cycle.
    `prefix` begins the names of its metrics, where an agent is updated on several sources.
    """

    def __init__(
        self,
        name: str,
        agent: Learner,
        source: Source,
        cfg: ReplayLoop | FreshLoop,
        device: torch.device,
        rate: float | None = None,
        prefix: str = "",
    ) -> None:
        self.name, self.agent, self.source, self.cfg, self.prefix = name, agent, source, cfg, prefix
        rate, at_once = cfg.updates_per_step if rate is None else rate, 1
        if cfg.mode == "cudagraph":
            at_once = -(-max(1, math.ceil(rate * cfg.num_envs)) // agent.cycle) * agent.cycle
        self.cadence = Cadence(rate, cfg.warmup_steps if isinstance(cfg, ReplayLoop) else 0, at_once)
        self.pessimistic: bool = getattr(agent, "pessimistic", False)  # values are low on purpose
        self.names: tuple[str, ...] = ()
        self._run = accelerated(self._updates, cfg.mode, device, changes=agent)
        self._timed = device.type == "cpu"  # elsewhere the clock would have to wait for the device

    def _updates(self) -> tuple[Tensor, ...]:
        """K updates; the last one's metrics."""
        for _ in range(self.cadence.at_once):
            metrics = self.agent.update(self.source.sample(self.cfg.batch_size))
        self.names = tuple(self.prefix + name for name in metrics)
        return tuple(metrics.values())

    def __call__(self, clock: Clock) -> None:
        """Updates as often as is due. UserError where the agent's metrics are not finite, read once per `loop.log_every` steps."""
        count = self.cadence.due(clock.step) - self.cadence.due(clock.step - clock.stride)
        if not count:
            return
        began = perf_counter()
        with refuse_oversized(f"an update of loop.batch_size={self.cfg.batch_size} rows"):
            for _ in range(count // self.cadence.at_once):
                values = self._run()
        metrics: dict[str, Tensor | float] = dict(zip(self.names, values, strict=True))
        if self._timed:
            metrics[f"{self.prefix}updates_per_second"] = count / (perf_counter() - began)
        clock.recorder.log(clock.step, metrics)
        if clock.passed(self.cfg.log_every):
            floats = torch.stack([v.float() for v in values]).tolist()
            check_metrics(self.name, self.agent, dict(zip(self.names, floats, strict=True)), clock, self.prefix, self.pessimistic)


def check_metrics(
    name: str, agent: object, metrics: Mapping[str, float], clock: Clock, prefix: str = "", pessimistic: bool = False
) -> None:
    """UserError where the agent's metrics are not finite; warns, once, where they show that its learning goes wrong."""
    check_finite(name, metrics, clock.step)
    plain = {metric.removeprefix(prefix): value for metric, value in metrics.items()}
    for warning in clock.watch.check(name, agent, plain, clock.step, pessimistic):
        clock.recorder.say(warning)


def check_finite(agent: str, metrics: Mapping[str, float], step: int) -> None:
    """UserError where an agent's metrics are not finite numbers any more."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise UserError(
                f"{agent} diverged: {name} is {value} at step {step}, expected a finite number; a smaller agent.lr is safer "
                "(the last checkpoint is from before)"
            )
