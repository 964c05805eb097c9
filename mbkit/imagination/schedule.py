"""Number and length of model rollouts, and how many of their rows are stored (MBPO, Janner et al. 2019, arXiv:1906.08253)."""

from typing import NamedTuple, Protocol

from mbkit.errors import UserError


class RolloutSizes(Protocol):
    """How many rollouts one round has, how long they are, and how many rows are stored."""

    @property
    def starts(self) -> int: ...  # noqa: D102  # start states of a round
    @property
    def options(self) -> str: ...  # noqa: D102  # that say how many these are, for messages
    def length(self, step: int) -> int: ...  # noqa: D102  # k after `step` steps of the clock
    def capacity(self, k: int | None = None) -> int: ...  # noqa: D102  # rows stored while rollouts are k steps long


class Constant(NamedTuple):
    """Rollouts that are as many and as long in every round."""

    horizon: int  # k
    starts: int
    retain_rounds: int  # rounds whose rows are stored
    options: str = "imagination.starts"

    def length(self, step: int) -> int:
        """k."""
        return self.horizon

    def capacity(self, k: int | None = None) -> int:
        """Rows of the retained rounds, were none masked."""
        return self.retain_rounds * self.starts * self.horizon


class Schedule(NamedTuple):
    """Model rollouts after each fit, over epochs of `epoch_length` environment steps counted from the end of the warm-up.

    Their length k rises linearly from `first` to `last` between two epochs; rounded down, as in the authors' code.
    """

    first: int  # k at the beginning
    last: int  # k in the end
    epochs: tuple[int, int]  # between which k rises
    epoch_length: int  # environment steps
    rollouts_per_step: int  # start states per environment step
    retain_epochs: int  # epochs whose rows are stored
    fit_every: int  # environment steps between two rounds of rollouts
    warmup_steps: int  # environment steps before the first round

    def check(self) -> "Schedule":
        """Itself; UserError where rollouts would shrink, the epochs don't come in order, or no rollout came before the first update."""
        if self.last < self.first:
            raise UserError(
                f"imagination.final_horizon={self.last}: rollouts do not shrink, expected at least imagination.horizon={self.first}"
            )
        if self.epochs[1] <= self.epochs[0]:
            raise UserError(f"imagination.grow_epochs={list(self.epochs)}: expected two epochs, the second after the first")
        for name in ("fit_every", "warmup_steps"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"loop.{name}={getattr(self, name)}: model rollouts begin when the warm-up ends and come every loop.fit_every steps, "
                    "expected at least 1"
                )
        return self

    @property
    def options(self) -> str:
        """The options behind `starts`."""
        return f"imagination.rollouts_per_step and loop.fit_every={self.fit_every}"

    @property
    def starts(self) -> int:
        """Start states of one round of rollouts."""
        return self.rollouts_per_step * self.fit_every

    def length(self, step: int) -> int:
        """k after `step` environment steps, warm-up included."""
        begin, end = self.epochs
        progress = ((step - self.warmup_steps) // self.epoch_length - begin) / (end - begin)
        return int(self.first + min(max(progress, 0.0), 1.0) * (self.last - self.first) + 1e-9)

    def capacity(self, k: int | None = None) -> int:
        """Rows stored while rollouts are k steps long, by default as long as in the end: those of the retained epochs, were none masked."""
        rows = (self.last if k is None else k) * self.rollouts_per_step * self.epoch_length
        return max(1, self.retain_epochs * rows)
