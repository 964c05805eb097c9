"""Column-wise normalisers: fitted to a data set at once, or updated by every batch.

Letters: N rows, I columns.
"""

import torch
from torch import Tensor, nn

RESOLUTION = 4 * torch.finfo(torch.float32).eps  # a column that varies by less, beside its size, is rounding and counts as constant


def scale(std: Tensor, size: Tensor) -> Tensor:
    """The standard deviation of each column; where float32 cannot resolve it beside the column's `size`, that size, or 1 if it is 0."""
    return torch.where(std > RESOLUTION * size, std, torch.where(size > 0, size, 1.0))


class Normalizer(nn.Module):
    """Per-column mean and standard deviation of a data set [N, I]; the identity until fitted. A constant column is divided by its size."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    @torch.no_grad()
    def fit(self, x: Tensor, floor: Tensor | None = None) -> None:
        """Statistics in float64. The columns of a single row count as constant; `floor` [I]: least deviations, in place of `scale`."""
        x = x.double()
        std = x.std(0) if len(x) > 1 else torch.zeros_like(x[0])
        self.mean.copy_(x.mean(0))
        self.std.copy_(scale(std, x.abs().amax(0)) if floor is None else std.maximum(floor))

    def forward(self, x: Tensor) -> Tensor:
        """Columns of mean 0 and standard deviation 1."""
        return (x - self.mean) / self.std

    def inverse(self, x: Tensor) -> Tensor:
        """The columns in raw units."""
        return x * self.std + self.mean


class InputNormalizer(Normalizer):
    """A normaliser that keeps columns within the range of the data, widened on either side by its width; the last `free` columns are not.

    A column that was constant, or nearly so, and moves later is therefore worth little to a network instead of thousands of deviations.
    """

    low: Tensor
    high: Tensor

    def __init__(self, size: int, free: int = 0) -> None:
        super().__init__(size)
        self.bounded = size - free
        self.register_buffer("low", torch.full((size,), torch.finfo(torch.float32).min))
        self.register_buffer("high", torch.full((size,), torch.finfo(torch.float32).max))

    @torch.no_grad()
    def fit(self, x: Tensor, floor: Tensor | None = None) -> None:
        """As `Normalizer.fit`, and the range."""
        super().fit(x, floor)
        low, high = x[:, : self.bounded].double().aminmax(dim=0)
        self.low[: self.bounded], self.high[: self.bounded] = 2 * low - high, 2 * high - low

    def bound(self, x: Tensor) -> Tensor:
        """Raw columns within their bounds."""
        return x.clamp(self.low, self.high)

    def forward(self, x: Tensor) -> Tensor:
        """Columns of mean 0 and standard deviation 1."""
        return super().forward(self.bound(x))


class RunningNormalizer(Normalizer):
    """A normaliser with the statistics of all rows of all updates, whose output is clipped to +-`clip`."""

    count: Tensor
    total_mean: Tensor
    squares: Tensor

    def __init__(self, size: int, clip: float = 10.0) -> None:
        super().__init__(size)
        self.clip = clip
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("total_mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(size, dtype=torch.float64))  # sum of squared deviations from the mean

    @torch.no_grad()
    def update(self, x: Tensor, weight: Tensor | None = None) -> None:
        """Merge the means and squared deviations of rows [N, I], weighted [N], with the present ones (Chan et al. 1983, eq. 2.1)."""
        x = x.double()
        w = torch.ones_like(x[:, :1]) if weight is None else weight.double()[:, None]
        n = w.sum()
        mean = (w * x).sum(0) / n.clamp(min=1)
        gap, total = mean - self.total_mean, (self.count + n).clamp(min=1)
        self.squares += (w * (x - mean).square()).sum(0) + gap.square() * self.count * n / total
        self.total_mean += gap * n / total
        self.count += n
        self.mean.copy_(self.total_mean)
        self.std.copy_(scale((self.squares / total).sqrt(), self.total_mean.abs()))

    def forward(self, x: Tensor) -> Tensor:
        """Columns of mean 0 and standard deviation 1, within +-`clip`."""
        return super().forward(x).clamp(-self.clip, self.clip)
