"""The training loss of an ensemble of probabilistic networks (PETS, Chua et al. 2018, arXiv:1805.12114, eq. 1).

Letters: E members, N rows, b batch, I input, D prediction.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from mbkit.dynamics.network import EnsembleNetwork, soft_bounded_logvar

BOUND_PENALTY = 0.01  # weight of the distance between the log-variance bounds


class TrainingRows(NamedTuple):
    """Inputs, targets and terminations of the regression."""

    x: Tensor  # [..., I]
    y: Tensor  # [..., D]
    ended: Tensor  # [...] 1 where the episode terminated
    known: Tensor | None = None  # [..., 1] 1 where the successor is the true one, 0 where `ended` is all that is known; None: 1 everywhere

    def at(self, index: Tensor) -> "TrainingRows":
        """The rows [N, ...] at these indices, int64 [...]."""
        flat = index.flatten()  # `index_select` copies whole rows
        return self.each(lambda column: column.index_select(0, flat).view(*index.shape, *column.shape[1:]))

    def each(self, change: Callable[[Tensor], Tensor]) -> "TrainingRows":
        """The rows with every column changed."""
        return TrainingRows(change(self.x), change(self.y), change(self.ended), None if self.known is None else change(self.known))


def gaussian_loss(mean: Tensor, logvar: Tensor, y: Tensor, known: Tensor | None = None) -> Tensor:
    """Sum over members of the mean over rows and dimensions of (mu - y)^2 exp(-lv) + lv: twice the NLL less log 2 pi; all [E, B, D].

    Rows whose `known`, [E, B, 1], is 0 are left out of the means.
    """
    return mean_of_known((mean - y).square() * (-logvar).exp() + logvar, known).sum()


def mean_of_known(x: Tensor, known: Tensor | None) -> Tensor:
    """Mean over rows and dimensions of x [E, B, D], [E]: of the rows whose `known`, [E, B, 1], is 1, or of all; 0 where there is none."""
    if known is None:
        return x.mean((1, 2))
    return (x * known).sum((1, 2)) / (known.sum((1, 2)).clamp(min=1) * x.shape[-1])


def loss(network: EnsembleNetwork, batch: TrainingRows) -> Tensor:
    """The training loss on normalised rows [E, b, ...]: likelihood, or squared error where members are deterministic; termination."""
    mean, raw, logit = network.split(network.net(batch.x))
    if raw is None:
        total = mean_of_known((mean - batch.y).square(), batch.known).sum()  # mbrl-lib sums over rows and dimensions
    else:
        low, high = network.logvar_bounds
        fit = gaussian_loss(mean, soft_bounded_logvar(raw, low, high), batch.y, batch.known)
        total = fit + BOUND_PENALTY * (high.sum() - low.sum())
    if logit is not None:
        total = total + F.binary_cross_entropy_with_logits(logit, batch.ended, reduction="none").mean(1).sum()
    return total
