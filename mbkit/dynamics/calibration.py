"""Variances and intervals of an ensemble corrected on held-out rows, dimension by dimension (after Malik et al. 2019, arXiv:1906.08312).

Members learn their variance from the errors of training, which jumps about: at the weights that are kept, and in the mean of the members,
errors are smaller. A factor on the variances mends that, for all that samples from the model. Where a task has no noise, errors are no
Gaussian's either: on rows that are alike they are nearly constant. A monotone map of the levels of central intervals mends the intervals.
Letters: K elites, B held-out rows, D prediction, L levels, Q quantiles.
"""

import torch
from torch import Tensor

from mbkit.types import Prediction

LEVELS = torch.arange(1, 10) / 10  # probabilities of the central intervals that are to hold as large a share of outcomes
LOG_FACTORS = torch.arange(-40, 17) / 4  # of the variance, that are tried
QUANTILES = 20  # pieces of the map of levels
HALVINGS = 40  # of the range in which an interval's end is sought


def centrality(error: Tensor, std: Tensor) -> Tensor:
    """The level of the narrowest central interval of the mixture of members that holds an outcome, [B, D].

    `error`: the outcome less each member's mean; `std`: their standard deviations; both [K, B, D].
    """
    below: Tensor = torch.special.ndtr(error / std).mean(0)
    return (2 * below - 1).abs()


def coverage(inside: Tensor) -> Tensor:
    """Share of outcomes in the central intervals of each of LEVELS, [L, D], of their centralities [B, D]."""
    return torch.stack([(inside <= level).to(inside.dtype).mean(0) for level in LEVELS.to(inside.device)])


def miscoverage(error: Tensor, std: Tensor) -> Tensor:
    """Mean over levels of |coverage - level|, [D], of the mixture of members: error of each mean and standard deviation, both [K, B, D]."""
    return (coverage(centrality(error, std)) - LEVELS.to(error)[:, None]).abs().mean(0)


def log_factor(error: Tensor, logvar: Tensor) -> Tensor:
    """The log of the factor on all variances, [D], with the least miscoverage: errors and log-variances [K, B, D]; nothing synchronises."""
    factors = LOG_FACTORS.to(error.device)
    scores = torch.stack([miscoverage(error, (0.5 * (logvar + factor)).exp()) for factor in factors])
    return factors[scores.argmin(0)]


def identity(size: int) -> Tensor:
    """The map of levels that changes none, [Q + 1, D]."""
    return torch.linspace(0, 1, QUANTILES + 1)[:, None].repeat(1, size)


def level_map(inside: Tensor) -> Tensor:
    """For each share 0, 1/Q, ..., 1 of outcomes the level whose intervals hold it, [Q + 1, D], of held-out centralities [B, D]."""
    shares = torch.linspace(0, 1, QUANTILES + 1, device=inside.device, dtype=inside.dtype)
    levels = inside.quantile(shares, 0)
    levels[0], levels[-1] = 0, 1
    return levels


def recalibrated(inside: Tensor, levels: Tensor) -> Tensor:
    """Centralities [B, D] as shares of outcomes that are at least as central: the map `levels` [Q + 1, D] read backwards."""
    knots, value = levels.T.contiguous(), inside.T.contiguous()  # [D, Q + 1], [D, B]
    high = torch.searchsorted(knots, value, right=True).clamp(1, len(levels) - 1)
    lower, upper = knots.gather(1, high - 1), knots.gather(1, high)
    part = ((value - lower) / (upper - lower).clamp(min=torch.finfo(value.dtype).tiny)).clamp(0, 1)
    return ((high - 1 + part) / (len(levels) - 1)).T


def holdout_miscoverage(error: Tensor, logvar: Tensor) -> Tensor:
    """Mean over levels of |coverage - level|, all dimensions together, 0-d: corrected on one half of the rows, measured on the other.

    Errors and log-variances [K, B, D]; NaN of a single row.
    """
    scores = []
    for first in (0, 1):
        one, other = (slice(first, None, 2), slice(1 - first, None, 2))
        factor = log_factor(error[:, one], logvar[:, one])
        inside = [centrality(error[:, rows], (0.5 * (logvar[:, rows] + factor)).exp()) for rows in (one, other)]
        if not all(map(len, inside)):
            return error.new_tensor(torch.nan)
        share = coverage(recalibrated(inside[1], level_map(inside[0]))).mean(1)
        scores.append((share - LEVELS.to(share)).abs().mean())
    return torch.stack(scores).mean()


def intervals(prediction: Prediction, levels: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Lower and upper ends [B, D] of the central intervals of a mixture that hold a share `level` of outcomes after the map `levels`."""
    position = level * (len(levels) - 1)
    below = min(int(position), len(levels) - 2)
    inside = levels[below] + (position - below) * (levels[below + 1] - levels[below])  # [D]
    mean, std = prediction.mean, prediction.var.sqrt()
    ends = []
    for u in ((1 - inside) / 2, (1 + inside) / 2):
        low, high = (mean - 10 * std).amin(0), (mean + 10 * std).amax(0)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            above = torch.special.ndtr((middle - mean) / std).mean(0) > u
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        ends.append((low + high) / 2)
    return ends[0], ends[1]
