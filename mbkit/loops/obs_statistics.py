"""The hook that gives an agent's normaliser its statistics."""

from typing import Any

from mbkit.errors import UserError
from mbkit.loops.clock import Clock
from mbkit.replay.buffer import ReplayBuffer


class ObsStatistics:
    """Fits an agent's normaliser of observations to the replay when the warm-up ends, once and for all.

    Under replay it must not move afterwards: with it would move the targets of all stored and predicted rows. Its tensors are written in
    place, before the first update, so that a captured graph holds them.

    Raises:
        UserError: a warm-up too short for statistics.
    """

    def __init__(self, agent: Any, data: ReplayBuffer, warmup_steps: int) -> None:
        if warmup_steps < 2:
            raise UserError(
                f"agent.normalize_obs=true takes its statistics from the warm-up; expected loop.warmup_steps >= 2, got {warmup_steps}"
            )
        self.agent, self.data, self.warmup_steps = agent, data, warmup_steps

    def __call__(self, clock: Clock) -> None:
        """The fit, at the step that ends the warm-up."""
        if clock.step - clock.stride < self.warmup_steps <= clock.step:
            self.agent.normalizer.update(self.data.all().obs)
