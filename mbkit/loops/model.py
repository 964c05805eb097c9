"""When a model counts as diverged, and the hooks that look for it at intervals: looking waits for the device. M environments."""

from mbkit.config import LoopConfig
from mbkit.errors import UserError
from mbkit.imagination.counters import Totals
from mbkit.loops.online import Online
from mbkit.loops.updates import fit_due
from mbkit.planning.mpc import MPC

BROKEN = 0.5  # share of a model's answers that may be non-finite before it counts as diverged


def check_model(broken: float, asked: float, what: str, step: int, safer: str = "dynamics.lr or imagination.horizon") -> None:
    """UserError where most of what a model was asked for is not finite; the replay and the last checkpoint are as they were."""
    if broken > BROKEN * asked:
        raise UserError(
            f"the model diverged: {broken:.0f} of {asked:.0f} {what} are not finite at step {step}, expected finite numbers; "
            f"a smaller {safer} is safer (the last checkpoint is from before)"
        )


class Watch:
    """Writes down before each fit how what was imagined since the last one came out, for those who imagine within their updates."""

    def __init__(self, seen: Totals, cfg: LoopConfig, what: str, safer: str) -> None:
        self.seen, self.cfg, self.what, self.safer = seen, cfg, what, safer

    def __call__(self, loop: Online) -> None:
        """Where a fit was due. UserError where most of it was not finite."""
        if not fit_due(loop, self.cfg):
            return
        found = self.seen.take()
        if not found["asked"]:
            return
        check_model(found["broken"], found["asked"], self.what, loop.step, self.safer)
        metrics = {"imagination/broken": found["broken"] / found["asked"]}
        if "steps" in found:
            metrics["imagination/steps"] = found["steps"] / found["rows"]
        loop.recorder.event(loop.step, metrics)


class WatchPlans:
    """Looks every `loop.log_every` steps whether the plans of M environments have a score, which no candidate of a broken model has."""

    def __init__(self, actor: MPC, cfg: LoopConfig) -> None:
        self.actor, self.cfg, self.due = actor, cfg, False

    def __call__(self, loop: Online) -> None:
        """Where a look is due; where an episode has just ended its plan is forgotten, and the next step's is looked at instead."""
        self.due |= loop.passed(self.cfg.log_every)
        random = loop.step - loop.env.num_envs < self.cfg.warmup_steps
        if not self.due or random or loop.episode_ended or self.actor.plan is None:
            return
        self.due, score = False, self.actor.plan.score
        check_model(float((~score.isfinite()).sum()), len(score), "plans' scores", loop.step)
