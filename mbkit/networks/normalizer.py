"""Column-wise normalisers: fitted to a data set at once, or updated by every batch.

Letters: N rows, I columns.
"""

import torch
from torch import Tensor, nn


class Normalizer(nn.Module):
    """Per-column mean and standard deviation of a data set [N, I]; the identity until fitted. A constant column keeps its scale."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Statistics in float64; sigma < 1e-12 becomes 1. The columns of a single row count as constant."""
        x = x.double()
        std = x.std(0) if len(x) > 1 else torch.zeros_like(x[0])
        self.mean.copy_(x.mean(0))
        self.std.copy_(torch.where(std < 1e-12, 1.0, std))

    def forward(self, x: Tensor) -> Tensor:
        """Columns of mean 0 and standard deviation 1."""
        return (x - self.mean) / self.std

    def inverse(self, x: Tensor) -> Tensor:
        """The columns in raw units."""
        return x * self.std + self.mean


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
        std = (self.squares / total).sqrt()
        self.mean.copy_(self.total_mean)
        self.std.copy_(torch.where(std < 1e-6, 1.0, std))

    def forward(self, x: Tensor) -> Tensor:
        """Columns of mean 0 and standard deviation 1, within +-`clip`."""
        return super().forward(x).clamp(-self.clip, self.clip)
