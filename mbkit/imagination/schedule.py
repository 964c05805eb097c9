"""How long imagined rollouts are, and how many of their rows are remembered (MBPO, Janner et al. 2019, arXiv:1906.08253)."""

from typing import NamedTuple

from mbkit.errors import UserError


class Schedule(NamedTuple):
    """Rollout length k over epochs of `epoch_length` environment steps, counted from the end of the warm-up.

    k rises linearly from `first` to `last` between two epochs; rounded down, as in the authors' code.
    """

    first: int
    last: int
    epochs: tuple[int, int]
    epoch_length: int

    def check(self) -> "Schedule":
        """Itself; UserError where rollouts would shrink or the epochs don't come in order."""
        if self.last < self.first:
            raise UserError(
                f"imagination.final_horizon={self.last}: rollouts do not shrink, expected at least imagination.horizon={self.first}"
            )
        if self.epochs[1] <= self.epochs[0]:
            raise UserError(f"imagination.grow_epochs={list(self.epochs)}: expected two epochs, the second after the first")
        return self

    def length(self, steps: int) -> int:
        """k after so many environment steps since the warm-up."""
        begin, end = self.epochs
        progress = (steps // self.epoch_length - begin) / (end - begin)
        return int(self.first + min(max(progress, 0.0), 1.0) * (self.last - self.first) + 1e-9)

    def remembered(self, k: int, rows_per_step: float, retain_epochs: int) -> int:
        """Rows the model buffer keeps while rollouts are k steps long: those of the last `retain_epochs` epochs, were none masked."""
        return max(1, retain_epochs * int(k * rows_per_step * self.epoch_length))
