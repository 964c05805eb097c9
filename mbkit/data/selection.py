"""Episodes of a data set chosen by their returns."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mbkit.data.columns import Array, Columns, Integers, ends_of
from mbkit.data.dataset import PER_EPISODE, Dataset
from mbkit.errors import UserError


def returns(data: Dataset) -> Array:
    """Undiscounted return of every episode, float64 [E]."""
    sums = np.zeros(data.episodes)
    for chunk in data.chunks():
        np.add.at(sums, chunk.episode, chunk.reward.astype(np.float64))
    return sums


def best(data: Dataset, share: float) -> Dataset:
    """The `share` of the episodes with the highest returns, at least one, in their order and numbered from 0 (%BC).

    Raises:
        UserError: the data set has no rewards.
    """
    if not data.has_reward:
        raise UserError(f"{data.name} has no rewards, by which the best {share:g} of its episodes could be told")
    count = max(1, round(share * data.episodes))
    chosen = np.sort(np.argsort(-returns(data), kind="stable")[:count])
    return subset(data, chosen)


def subset(data: Dataset, chosen: Integers) -> Dataset:
    """The episodes with these numbers, ascending, as a data set that numbers them from 0."""
    ends = ends_of(data.lengths)
    begins, lengths = (ends - data.lengths)[chosen], data.lengths[chosen]
    behind = ends_of(lengths)

    def stream(start: int, stop: int) -> Iterator[Columns]:
        """Rows `start` to `stop` of the chosen ones, episode by episode."""
        for number in range(int(np.searchsorted(behind, start, side="right")), len(chosen)):
            offset = int(behind[number] - lengths[number])  # rows of the episodes before
            if offset >= stop:
                return
            first, last = max(start, offset) - offset, min(stop, int(behind[number])) - offset
            for rows in data.stream(int(begins[number]) + first, int(begins[number]) + last):
                yield rows._replace(episode=np.full(len(rows.reward), number, np.int64))

    listed = {key: [value[i] for i in chosen] for key, value in data.source.items() if key in PER_EPISODE}
    before = data.rows_before if data.rows_before is not None else ends - data.lengths
    source = {**data.source, **listed, "chosen": chosen.tolist()}
    return replace(data, stream=stream, lengths=lengths, rows_before=before[chosen], source=source)
