"""Hooks of the online loop that learn: an agent's gradient updates, and a model's fits. K updates at once, B batch."""

import math
from collections.abc import Mapping
from time import perf_counter

import torch
from torch import Tensor

from mbkit.accelerate import accelerated
from mbkit.config import LoopConfig
from mbkit.errors import UserError
from mbkit.loops.memory import enough_room
from mbkit.loops.online import Online
from mbkit.replay.buffer import ReplayBuffer
from mbkit.types import Learnable, Learner, Source


class Updates:
    """Gradient updates of an agent, `rate` for each environment step after the warm-up; None: `loop.updates_per_step`.

    In mode "cudagraph" K of them, sampling included, are one graph; K is what falls due in a step, rounded up to the agent's cycle.
    """

    def __init__(
        self, agent: Learner, source: Source, cfg: LoopConfig, device: torch.device, name: str = "the agent", rate: float | None = None
    ) -> None:
        self.agent, self.source, self.cfg, self.name = agent, source, cfg, name
        self.rate = cfg.updates_per_step if rate is None else rate
        self.prefix = ""  # of the metrics' names, where an agent is updated on several sources
        self.at_once = 1
        if cfg.mode == "cudagraph":
            each = max(1, math.ceil(self.rate * cfg.num_envs))
            self.at_once = -(-each // agent.cycle) * agent.cycle
        self.names: tuple[str, ...] = ()
        self._run = accelerated(self._updates, cfg.mode, device, changes=agent)
        self._timed = device.type == "cpu"  # elsewhere the clock would have to wait for the device

    def due(self, step: int) -> int:
        """Updates that are to have happened after `step` environment steps."""
        per_graph = (step - self.cfg.warmup_steps) * self.rate / self.at_once
        return max(0, math.floor(per_graph + 1e-9)) * self.at_once

    def _updates(self) -> tuple[Tensor, ...]:
        """K updates; the last one's metrics."""
        for _ in range(self.at_once):
            metrics = self.agent.update(self.source.sample(self.cfg.batch_size))
        self.names = tuple(self.prefix + name for name in metrics)
        return tuple(metrics.values())

    def __call__(self, loop: Online) -> None:
        """Updates as often as is due. UserError where the agent's numbers are not finite, looked at once per `loop.log_every` steps."""
        count = self.due(loop.step) - self.due(loop.step - loop.env.num_envs)
        if not count:
            return
        began = perf_counter()
        with enough_room(f"an update of loop.batch_size={self.cfg.batch_size} rows"):
            for _ in range(count // self.at_once):
                values = self._run()
        metrics: dict[str, Tensor | float] = dict(zip(self.names, values, strict=True))
        if self._timed:
            metrics[f"{self.prefix}updates_per_second"] = count / (perf_counter() - began)
        loop.recorder.log(loop.step, metrics)
        if loop.passed(self.cfg.log_every):
            floats = torch.stack([v.float() for v in values]).tolist()
            check_finite(self.name, dict(zip(self.names, floats, strict=True)), loop.step)


def check_finite(agent: str, metrics: Mapping[str, float], step: int) -> None:
    """UserError where an agent's metrics are not finite numbers any more."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise UserError(
                f"{agent} diverged: {name} is {value} at step {step}, expected a finite number; a smaller agent.lr is safer "
                "(the last checkpoint is from before)"
            )


def fit_due(loop: Online, cfg: LoopConfig) -> bool:
    """Whether a model is to be fitted now: when the warm-up is over, then every `fit_every` steps, or whenever an episode ended."""
    before = loop.step - loop.env.num_envs
    warm = before < cfg.warmup_steps <= loop.step
    due = loop.passed(cfg.fit_every) if cfg.fit_every else loop.episode_ended
    return warm or (due and before >= cfg.warmup_steps)


class FitModel:
    """Trains the dynamics on all data (PETS, arXiv:1805.12114, Algorithm 1, line 3) at the cadence of `fit_due`."""

    def __init__(self, dynamics: Learnable, data: ReplayBuffer, cfg: LoopConfig) -> None:
        self.dynamics, self.data, self.cfg = dynamics, data, cfg

    def __call__(self, loop: Online) -> None:
        """Fits where a fit is due."""
        if fit_due(loop, self.cfg):
            began = perf_counter()
            metrics = self.dynamics.fit(self.data.all())
            loop.recorder.event(loop.step, {**metrics, "time/fit_seconds": perf_counter() - began})
