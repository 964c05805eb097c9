"""The hook that updates an agent on batches of transitions. K updates at once, B batch."""

import math
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mbkit.accelerate import accelerated, mode_on
from mbkit.config import FreshLoop, OfflineLoop, ReplayLoop
from mbkit.errors import UserError
from mbkit.loops.clock import Clock
from mbkit.loops.memory import refuse_oversized
from mbkit.loops.offline import updates_at_once
from mbkit.loops.resets import Resets
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
    """Gradient updates of an agent on batches of a source.

    Args:
        name: of the agent, for messages.
        agent: the learner. Where it has schedules, `anneal` tells it before each group of updates what share of the run lies ahead, 1 to 0.
        source: of its batches.
        cfg: batch size, mode and cadence. In mode "cudagraph" K updates, sampling included, are one graph; online K is what falls due in a
            step, rounded up to the agent's cycle, offline it is `loop.updates_at_once`.
        device: of the networks.
        rate: updates for each step of the clock, by default `loop.updates_per_step`; offline 1.
        prefix: begins the names of its metrics, where an agent is updated on several sources.
        steps: the length of the run, for schedules; 0: they stay where they begin.
    """

    def __init__(
        self,
        name: str,
        agent: Learner,
        source: Source,
        cfg: ReplayLoop | FreshLoop | OfflineLoop,
        device: torch.device,
        rate: float | None = None,
        prefix: str = "",
        steps: int = 0,
    ) -> None:
        self.name, self.agent, self.source, self.cfg, self.prefix = name, agent, source, cfg, prefix
        asked = (*getattr(source, "sources", [source]), getattr(agent, "target", None), getattr(agent, "objective", None))
        # which may ask a model, and count its answers
        self.steps, mode = steps, mode_on(cfg.mode, device)
        if cfg.mode == "auto" and not all(getattr(part, "capturable", True) for part in asked):
            mode = "eager"
        if isinstance(cfg, OfflineLoop):
            self.at_once, self.cadence = updates_at_once(cfg, agent, device), Cadence(1)
        else:
            rate, self.at_once = cfg.updates_per_step if rate is None else rate, 1
            if mode == "cudagraph":
                self.at_once = -(-max(1, math.ceil(rate * cfg.num_envs)) // agent.cycle) * agent.cycle
            self.cadence = Cadence(rate, cfg.warmup_steps if isinstance(cfg, ReplayLoop) else 0, self.at_once)
        self.anneal: Callable[[float], None] | None = getattr(agent, "anneal", None) if steps else None
        self.pessimistic: bool = getattr(agent, "pessimistic", False)  # values are low on purpose
        self.resets: Resets | None = None
        self.names: tuple[str, ...] = ()
        counting: list[Any] = [part for part in asked if hasattr(part, "counters")]
        self._group = accelerated(lambda: self._updates(self.at_once), mode, device, changes=[agent, *counting])
        self._timed = device.type == "cpu"  # elsewhere the clock would have to wait for the device

    def _updates(self, count: int) -> tuple[Tensor, ...]:
        """So many updates; the last one's metrics."""
        for left in reversed(range(count)):
            self.agent.measures = not left  # type: ignore[attr-defined]  # agents of users need not know of it
            metrics = self.agent.update(self.source.sample(self.cfg.batch_size))
        self.names = tuple(self.prefix + name for name in metrics)
        return tuple(metrics.values())

    def __call__(self, clock: Clock) -> None:
        """Updates as often as is due. UserError where the agent's metrics are not finite, read once per `loop.log_every` steps."""
        if count := self.due(clock):
            began = perf_counter()
            values = self.make(count, clock)
            self.record(clock, values, count / (perf_counter() - began))
            if self.resets is not None:
                self.resets.after(self.cadence.due(clock.step - clock.stride), self.cadence.due(clock.step))

    def due(self, clock: Clock) -> int:
        """Updates that fall due in this stride."""
        return self.cadence.due(clock.step) - self.cadence.due(clock.step - clock.stride)

    def make(self, count: int, clock: Clock) -> tuple[Tensor, ...]:
        """So many updates; the metrics of the last one, in the order of `names`."""
        with refuse_oversized(f"an update of loop.batch_size={self.cfg.batch_size} rows"):
            for _ in range(count // self.at_once):
                self._schedule(clock.step - clock.stride)
                values = self._group()
            if rest := count % self.at_once:  # at the end of an offline run
                self._schedule(clock.step - clock.stride)
                values = self._updates(rest)
        return values

    def record(self, clock: Clock, values: Sequence[Tensor], per_second: float) -> None:
        """Log the metrics of an update, in the order of `names`, and how many there were in a second; looks at them where that is due."""
        metrics: dict[str, Tensor | float] = dict(zip(self.names, values, strict=True))
        if self._timed:
            metrics[f"{self.prefix}updates_per_second"] = per_second
        clock.recorder.log(clock.step, metrics)
        if clock.passed(self.cfg.log_every):
            floats = torch.stack([v.float() for v in values]).tolist()
            check_metrics(self.name, self.agent, dict(zip(self.names, floats, strict=True)), clock, self.prefix, self.pessimistic)

    def _schedule(self, step: int) -> None:
        """Tell the agent how much of the run lies ahead at this step."""
        if self.anneal is not None:
            self.anneal(max(0.0, 1 - step / self.steps))


def check_metrics(
    name: str, agent: object, metrics: Mapping[str, float], clock: Clock, prefix: str = "", pessimistic: bool = False
) -> None:
    """UserError where the agent's metrics are not finite; warns, once, where they show that its learning goes wrong."""
    check_finite(name, metrics, clock.step)
    plain = {metric.removeprefix(prefix): value for metric, value in metrics.items()}
    for warning in clock.watch.check(name, agent, plain, clock.step, pessimistic):
        clock.recorder.warn(clock.step, warning)


def check_finite(agent: str, metrics: Mapping[str, float], step: int) -> None:
    """UserError where an agent's metrics are not finite numbers any more."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise UserError(
                f"{agent} diverged: {name} is {value} at step {step}, expected a finite number; a smaller agent.lr is safer "
                "(the last checkpoint is from before)"
            )
