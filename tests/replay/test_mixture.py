"""Mixtures: exact shares in every batch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from listed_replay import SPEC, rows

from mbkit.errors import UserError
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.mixture import Mixture, counts
from mbkit.replay.n_step import NStep
from mbkit.types import Transition


class Constant:
    """A source whose rows are all one number."""

    def __init__(self, value: float) -> None:
        self.value = value

    def sample(self, n: int) -> Transition:
        x = torch.full((n,), self.value)
        return Transition(x[:, None], x[:, None], x, x[:, None], x)


@given(st.integers(0, 500), st.lists(st.integers(0, 20), min_size=1, max_size=5).filter(any))
def test_counts_sum_to_n_and_lie_within_one_of_the_share(n: int, weights: list[int]) -> None:
    fractions = [w / sum(weights) for w in weights]
    whole = counts(n, fractions)
    assert sum(whole) == n
    assert all(abs(c - n * f) < 1 for c, f in zip(whole, fractions, strict=True))
    assert all(c == 0 for c, f in zip(whole, fractions, strict=True) if f == 0)


def test_mixture_fraction_is_exact_in_every_batch() -> None:
    mixture = Mixture([Constant(0), Constant(1), ReplayBuffer(3, SPEC)], [0.05, 0.95, 0])
    for _ in range(3):
        assert mixture.sample(256).reward.sum() == 243
    assert counts(100, [0.29, 0.71]) == [29, 71]  # 100 * 0.29 is 28.999... in floating point
    for fractions in ([0.5, 0.6, 0], [1.5, -0.5, 0], [1.0]):
        with pytest.raises(UserError, match="sum 1"):
            Mixture(mixture.sources, fractions)


def test_mixture_sample_does_not_synchronise_with_the_host() -> None:
    buffer = ReplayBuffer(8, SPEC._replace(device=torch.device("meta")))  # meta tensors have no content: reading any would raise
    buffer.extend(Experience(*(x.to("meta") for x in rows([1, 2], [0, 2]))))
    assert Mixture([buffer, NStep(buffer, 3, 0.9)], [0.5, 0.5]).sample(6).obs.shape == (6, 2)


def test_a_mixture_says_which_rows_are_recorded() -> None:
    """Source by source, in every batch alike; without being told it says nothing, and a source without a share has no rows."""
    sources, shares = [Constant(1), Constant(2), ReplayBuffer(3, SPEC)], [0.25, 0.75, 0]
    batch = Mixture(sources, shares, real=[True, False, True]).sample(8)
    assert batch.real is not None
    assert batch.real.tolist() == [1.0] * 2 + [0.0] * 6
    assert batch.reward.tolist() == [1.0] * 2 + [2.0] * 6
    assert Mixture(sources, shares).sample(8).real is None


class Weighted(Constant):
    """The same, with weights."""

    def sample(self, n: int) -> Transition:
        return super().sample(n)._replace(weight=torch.full((n,), 0.3))


def test_mixture_rows_of_sources_without_weights_weigh_one() -> None:
    batch = Mixture([Constant(0), Weighted(1)], [0.25, 0.75], real=[True, False]).sample(8)
    assert batch.weight is not None
    torch.testing.assert_close(batch.weight, torch.tensor([1.0] * 2 + [0.3] * 6))
    assert batch.real is not None
    assert batch.real.tolist() == [1.0] * 2 + [0.0] * 6
    assert Mixture([Constant(0), Constant(1)], [0.5, 0.5]).sample(8).weight is None
