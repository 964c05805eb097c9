"""Intervals of an estimated value: first states, and what estimates them, resampled together.

Letters: K members or repetitions, E first states.
"""

import torch
from torch import Tensor

from mbkit.stats import Interval

RESAMPLES = 1000
CONFIDENCE = 0.95


def resampled(values: Tensor, seed: int = 0) -> Interval:
    """The mean of values [K, E] with its percentile interval: rows and columns are drawn with replacement, each resample both.

    It holds how much the mean depends on the first states at hand and on what estimates them, and nothing of an error that all rows share.
    NaN limits for a single value, which cannot be resampled.
    """
    values = values.double().cpu()
    rows, columns = values.shape
    point = float(values.mean())
    if values.numel() == 1:
        return Interval(point, float("nan"), float("nan"))
    draw = torch.Generator().manual_seed(seed)
    means = torch.empty(RESAMPLES, dtype=torch.float64)
    for i in range(RESAMPLES):
        weight = torch.bincount(torch.randint(rows, (rows,), generator=draw), minlength=rows).double()
        means[i] = (weight @ values)[torch.randint(columns, (columns,), generator=draw)].mean() / rows
    tail = (1 - CONFIDENCE) / 2
    low, high = means.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Interval(point, low, high)
