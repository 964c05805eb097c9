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
    """Batches drawn from several sources, every batch with the same number of rows from each."""

    def __init__(self, sources: Sequence[Source], fractions: Sequence[float]) -> None:
        if len(sources) != len(fractions) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
            raise UserError(f"{len(sources)} sources need as many fractions, none negative, with sum 1, not {list(fractions)}")
        self.sources, self.fractions = tuple(sources), tuple(fractions)

    def sample(self, n: int) -> Transition:
        """n rows, source by source; a source whose share is 0 is not sampled, so that it may be empty."""
        shares = zip(self.sources, counts(n, self.fractions), strict=True)
        parts = [source.sample(share) for source, share in shares if share]
        return Transition(*(torch.cat(fields) for fields in zip(*parts, strict=True)))
