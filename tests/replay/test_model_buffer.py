"""The model buffer against a deque."""

from collections import deque

import pytest
import torch

from mbkit.errors import UserError
from mbkit.replay.model_buffer import ModelBuffer
from mbkit.types import EnvSpec, Transition

SPEC = EnvSpec(2, 1, torch.device("cpu"))


def rows(first: int, count: int) -> Transition:
    """Numbered rows: the number stands in every field."""
    n = torch.arange(first, first + count, dtype=torch.float32)
    return Transition(torch.stack([n, -n], 1), n[:, None] / 7, n, torch.stack([n + 1, n], 1), (n % 2 == 0).float())


def held(buffer: ModelBuffer) -> list[int]:
    """Numbers of the rows held, checked field by field."""
    got = buffer.all()
    for mine, wanted in zip(got, zip(*[[f[0] for f in rows(int(n), 1)] for n in got.reward], strict=True), strict=True):
        assert torch.equal(mine, torch.stack(list(wanted)))
    return sorted(int(n) for n in got.reward)


@pytest.mark.parametrize("limit", [1, 5, 17, 64])
def test_a_ring_is_a_deque_whatever_is_masked(limit):
    generator, number = torch.Generator().manual_seed(limit), 0
    buffer, oracle = ModelBuffer(limit, SPEC), deque(maxlen=limit)
    for _ in range(30):
        count = int(torch.randint(1, 30, (), generator=generator))
        mask = torch.rand(count, generator=generator) < 0.6
        buffer.extend(rows(number, count), mask)
        oracle.extend(n for n, kept in zip(range(number, number + count), mask.tolist(), strict=True) if kept)
        number += count
        if oracle:
            assert held(buffer) == sorted(oracle)
            assert len(buffer) == len(oracle)


@pytest.mark.parametrize("before", [3, 8, 13])  # partly filled, just full, wrapped round
def test_growth_keeps_the_content_and_drops_the_oldest_first_as_ever(before):
    buffer, oracle = ModelBuffer(20, SPEC), deque(maxlen=8)
    buffer.grow(8)
    address = buffer.data.data_ptr()
    buffer.extend(rows(0, before), torch.ones(before, dtype=torch.bool))
    oracle.extend(range(before))
    for limit in (6, 11, 11, 20, 99):  # never smaller, never beyond the capacity
        buffer.grow(limit)
        assert held(buffer) == sorted(oracle)
        oracle = deque(oracle, maxlen=max(oracle.maxlen, min(limit, 20)))
        buffer.extend(rows(100 + limit, 4), torch.tensor([True, True, False, True]))
        oracle.extend([100 + limit, 101 + limit, 103 + limit])
        assert held(buffer) == sorted(oracle)
    assert buffer.data.data_ptr() == address  # a captured graph may hold it


def test_memory_is_bounded():
    buffer = ModelBuffer(10**9, SPEC, memory_gb=1e-6)
    assert buffer.row_bytes == 4 * (2 + 1 + 1 + 2 + 1)
    assert buffer.capacity == 1000 // 28
    assert buffer.gigabytes <= 1e-6
    assert buffer.data.shape == (36, 7)
    with pytest.raises(UserError, match=r"imagination.memory_gb=1e-09 holds no row of 28 bytes"):
        ModelBuffer(10, SPEC, memory_gb=1e-9)


def test_sampling_is_uniform_over_what_is_held():
    buffer = ModelBuffer(50, SPEC)
    buffer.extend(rows(0, 10), torch.arange(10) != 3)
    count = torch.bincount(buffer.sample(9000).reward.long(), minlength=10)
    assert count[3] == 0
    kept = count[count > 0].double()
    assert len(kept) == 9
    assert ((kept - 1000).square() / 1000).sum() < 35  # chi squared, 8 degrees of freedom: p = 3e-5


def test_a_saved_ring_goes_on_like_the_one_it_was_saved_from():
    one, other = ModelBuffer(20, SPEC), ModelBuffer(20, SPEC)
    one.grow(8)
    one.extend(rows(0, 13), torch.ones(13, dtype=torch.bool))
    state = one.state_dict()
    one.extend(rows(50, 3), torch.ones(3, dtype=torch.bool))
    other.load_state_dict(state)
    assert held(other) == list(range(5, 13))  # the copy did not move with its source
    other.extend(rows(50, 3), torch.ones(3, dtype=torch.bool))
    for buffer in (one, other):
        buffer.grow(12)
        buffer.extend(rows(60, 3), torch.ones(3, dtype=torch.bool))
    assert torch.equal(one.all().obs, other.all().obs)
    with pytest.raises(UserError, match="saved model buffer"):
        ModelBuffer(5, SPEC).load_state_dict(state)
    with pytest.raises(UserError, match="saved model buffer"):
        ModelBuffer(20, EnvSpec(3, 1, torch.device("cpu"))).load_state_dict(state)


def test_discrete_actions_come_back_as_integers():
    buffer = ModelBuffer(4, EnvSpec(2, 3, torch.device("cpu"), True))
    batch = rows(0, 2)._replace(action=torch.tensor([2, 1]))
    buffer.extend(batch, torch.ones(2, dtype=torch.bool))
    assert buffer.all().action.tolist() == [2, 1]
    assert buffer.all().action.dtype == torch.int64
