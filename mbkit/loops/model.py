"""The hook that fits a model, with what precedes and follows every fit; and when a model counts as diverged."""

from collections.abc import Sequence
from time import perf_counter

from mbkit.config import ModelLoop, PlanLoop
from mbkit.errors import UserError
from mbkit.imagination.counters import Counters
from mbkit.loops.clock import Clock, Hook
from mbkit.planning.mpc import MPC
from mbkit.replay.buffer import ReplayBuffer
from mbkit.types import Learnable

BROKEN = 0.5  # share of a model's answers that may be non-finite before it counts as diverged


class ModelFits:
    """Fits the model to all stored data at its cadence (PETS, arXiv:1805.12114, Algorithm 1, line 3), between `first` and `then`.

    A fit is due when the warm-up is over, then every `loop.fit_every` steps, or, where that is 0, whenever an episode ended. With
    `loop.fit=false` nothing is fitted, and the others are called all the same.
    """

    def __init__(
        self, model: Learnable, data: ReplayBuffer, cfg: ModelLoop | PlanLoop, first: Sequence[Hook] = (), then: Sequence[Hook] = ()
    ) -> None:
        self.model, self.data, self.cfg, self.first, self.then = model, data, cfg, first, then

    def due(self, clock: Clock) -> bool:
        """Whether the model is to be fitted after this stride."""
        before, warmup = clock.step - clock.stride, self.cfg.warmup_steps
        at_cadence = clock.passed(self.cfg.fit_every) if self.cfg.fit_every else clock.episode_ended
        return before < warmup <= clock.step or (at_cadence and before >= warmup)

    def __call__(self, clock: Clock) -> None:
        """Everything that belongs to a fit, where one is due."""
        if not self.due(clock):
            return
        for hook in self.first:
            hook(clock)
        if self.cfg.fit:
            began = perf_counter()
            metrics = self.model.fit(self.data.all())
            clock.recorder.event(clock.step, {**metrics, "time/fit_seconds": perf_counter() - began})
        for hook in self.then:
            hook(clock)


def check_model(broken: float, asked: float, what: str, step: int, safer: str = "dynamics.lr or imagination.horizon") -> None:
    """UserError where most of a model's answers are not finite; the replay and the last checkpoint are as they were."""
    if broken > BROKEN * asked:
        raise UserError(
            f"the model diverged: {broken:.0f} of {asked:.0f} {what} are not finite at step {step}, expected finite numbers; "
            f"a smaller {safer} is safer (the last checkpoint is from before)"
        )


class CountersRead:
    """Reads, before each fit, what a model's answers inside the updates came to since the last one: reading waits for the device."""

    def __init__(self, counters: Counters, what: str, safer: str, prefix: str = "imagination/") -> None:
        self.counters, self.what, self.safer, self.prefix = counters, what, safer, prefix

    def __call__(self, clock: Clock) -> None:
        """Records the shares. UserError where most answers were not finite."""
        counts = self.counters.take()
        if not counts["asked"]:
            return
        check_model(counts["broken"], counts["asked"], self.what, clock.step, self.safer)
        metrics = {f"{self.prefix}broken": counts["broken"] / counts["asked"]}
        if "steps" in counts:
            metrics[f"{self.prefix}steps"] = counts["steps"] / counts["rows"]
        clock.recorder.event(clock.step, metrics)


class PlanScores:
    """Records the score of the plans, and looks every `loop.log_every` steps whether they have one: those of a broken model have none."""

    def __init__(self, actor: MPC, cfg: ModelLoop | PlanLoop) -> None:
        self.actor, self.cfg, self.due = actor, cfg, False

    def __call__(self, clock: Clock) -> None:
        """Reads the scores [M] where that is due; where an episode has just ended its plan is gone, and the next step's is read instead."""
        self.due |= clock.passed(self.cfg.log_every)
        random = clock.step - clock.stride < self.cfg.warmup_steps
        score = self.actor.score
        if random or clock.episode_ended or score is None:
            return
        clock.recorder.log(clock.step, {"plan/score": score.mean()})
        if self.due:
            self.due = False
            check_model(float((~score.isfinite()).sum()), len(score), "plans' scores", clock.step)
