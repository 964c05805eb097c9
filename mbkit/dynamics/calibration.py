"""Variances of an ensemble corrected on held-out rows: one factor for each dimension (after Malik et al. 2019, arXiv:1906.08312).

Members learn their variance from the errors of training, which jumps about: at the weights that are kept, and in the mean of the members,
errors are smaller. Letters: K elites, B held-out rows, D prediction, Q levels.
"""

import torch
from torch import Tensor

LEVELS = torch.arange(1, 10) / 10  # probabilities of the central intervals that are to hold as large a share of outcomes
LOG_FACTORS = torch.arange(-40, 17) / 4  # of the variance, that are tried


def miscoverage(error: Tensor, std: Tensor) -> Tensor:
    """Mean over levels of |coverage - level|, [D], of the mixture of members: error of each mean and standard deviation, both [K, B, D]."""
    inside = (2 * torch.special.ndtr(error / std).mean(0) - 1).abs()
    levels = LEVELS.to(error.device)
    coverage = torch.stack([(inside <= level).to(error.dtype).mean(0) for level in levels])  # [Q, D]
    return (coverage - levels[:, None]).abs().mean(0)


def log_factor(error: Tensor, logvar: Tensor) -> Tensor:
    """The log of the factor on all variances, [D], with the least miscoverage: errors and log-variances [K, B, D]; nothing synchronises.

    Paper: any monotone map of the predicted distribution function; here: a scale, so that predictions stay Gaussian.
    """
    factors = LOG_FACTORS.to(error.device)
    scores = torch.stack([miscoverage(error, (0.5 * (logvar + factor)).exp()) for factor in factors])
    return factors[scores.argmin(0)]
