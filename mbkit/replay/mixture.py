"""Batches drawn from several sources with exact shares."""

from collections.abc import Sequence

import torch

from mbkit.errors import UserError
from mbkit.types import Source, Transition


def counts(n: int, fractions: Sequence[float]) -> list[int]:
    """Whole numbers that sum to n and lie nearest to n * fractions (largest remainder), the same for every batch."""
    exact = [n * f for f in fractions]
    whole = [int(x + 1e-9) for x in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: whole[i] - exact[i])
    for i in by_remainder[: n - sum(whole)]:
        whole[i] += 1
    return whole


class Mixture:
    """Batches drawn from several sources, every batch with the same number of rows from each.

    `real` says of every source whether its rows are recorded or come from a model; without it a batch says nothing of that.
    """

    def __init__(self, sources: Sequence[Source], fractions: Sequence[float], real: Sequence[bool] | None = None) -> None:
        if len(sources) != len(fractions) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
            raise UserError(f"{len(sources)} sources need as many fractions, none negative, with sum 1, not {list(fractions)}")
        self.sources, self.fractions = tuple(sources), tuple(fractions)
        self.real = None if real is None else tuple(real)

    def sample(self, n: int) -> Transition:
        """n rows, source by source; a source whose share is 0 is not sampled, so that it may be empty."""
        shares = counts(n, self.fractions)
        parts = [source.sample(share) for source, share in zip(self.sources, shares, strict=True) if share]
        rows = Transition(*(torch.cat(fields) for fields in zip(*(part[:5] for part in parts), strict=True)))
        if any(part.weight is not None for part in parts):
            weights = [torch.ones_like(part.reward) if part.weight is None else part.weight for part in parts]
            rows = rows._replace(weight=torch.cat(weights))
        if self.real is None:
            return rows
        return rows._replace(real=torch.cat([rows.reward.new_full((share,), real) for share, real in zip(shares, self.real, strict=True)]))
