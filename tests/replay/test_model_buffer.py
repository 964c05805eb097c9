"""The model buffer against a deque."""

from collections import deque

import pytest
import torch

from mbkit.errors import UserError
from mbkit.replay.model_buffer import ModelBuffer
from mbkit.types import EnvSpec, Transition

SPEC = EnvSpec(2, 1, torch.device("cpu"))


def rows(first: int, count: int) -> Transition:
    """Rows that show their number in every field."""
    n = torch.arange(first, first + count, dtype=torch.float32)
    return Transition(torch.stack([n, -n], 1), n[:, None] / 7, n, torch.stack([n + 1, n], 1), (n % 2 == 0).float())


def numbers(buffer: ModelBuffer) -> list[int]:
    """Numbers of the stored rows, checked field by field."""
    batch = buffer.all()
    for field, expected in zip(batch[:5], zip(*[[f[0] for f in rows(int(n), 1)[:5]] for n in batch.reward], strict=True), strict=True):
        assert torch.equal(field, torch.stack(list(expected)))
    return sorted(int(n) for n in batch.reward)


@pytest.mark.parametrize("limit", [1, 5, 17, 64])
def test_extend_any_mask_equals_a_deque(limit):
    generator, number = torch.Generator().manual_seed(limit), 0
    buffer, oracle = ModelBuffer(limit, SPEC), deque(maxlen=limit)
    for _ in range(30):
        count = int(torch.randint(1, 30, (), generator=generator))
        mask = torch.rand(count, generator=generator) < 0.6
        buffer.extend(rows(number, count), mask)
        oracle.extend(n for n, valid in zip(range(number, number + count), mask.tolist(), strict=True) if valid)
        number += count
        if oracle:
            assert numbers(buffer) == sorted(oracle)
            assert len(buffer) == len(oracle)


@pytest.mark.parametrize("before", [3, 8, 13])  # partly filled, just full, wrapped round
def test_grow_retains_the_rows_and_the_order_of_overwriting(before):
    buffer, oracle = ModelBuffer(20, SPEC), deque(maxlen=8)
    buffer.grow(8)
    address = buffer.data.data_ptr()
    buffer.extend(rows(0, before), torch.ones(before, dtype=torch.bool))
    oracle.extend(range(before))
    for limit in (6, 11, 11, 20, 99):  # never smaller, never beyond the capacity
        buffer.grow(limit)
        assert numbers(buffer) == sorted(oracle)
        oracle = deque(oracle, maxlen=max(oracle.maxlen, min(limit, 20)))
        buffer.extend(rows(100 + limit, 4), torch.tensor([True, True, False, True]))
        oracle.extend([100 + limit, 101 + limit, 103 + limit])
        assert numbers(buffer) == sorted(oracle)
    assert buffer.data.data_ptr() == address  # a captured graph may hold it


def test_memory_gb_bounds_the_capacity():
    buffer = ModelBuffer(10**9, SPEC, memory_gb=1e-6)
    assert buffer.row_bytes == 4 * (2 + 1 + 1 + 2 + 1)
    assert buffer.capacity == 1000 // 28
    assert buffer.gigabytes <= 1e-6
    assert buffer.data.shape == (36, 7)
    with pytest.raises(UserError, match=r"imagination.memory_gb=1e-09 holds no row of 28 bytes"):
        ModelBuffer(10, SPEC, memory_gb=1e-9)


def test_sample_is_uniform_over_the_stored_rows():
    buffer = ModelBuffer(50, SPEC)
    buffer.extend(rows(0, 10), torch.arange(10) != 3)
    count = torch.bincount(buffer.sample(9000).reward.long(), minlength=10)
    assert count[3] == 0
    positive = count[count > 0].double()
    assert len(positive) == 9
    assert ((positive - 1000).square() / 1000).sum() < 35  # chi squared, 8 degrees of freedom: p = 3e-5


def test_state_dict_round_trip_continues_like_the_original():
    one, other = ModelBuffer(20, SPEC), ModelBuffer(20, SPEC)
    one.grow(8)
    one.extend(rows(0, 13), torch.ones(13, dtype=torch.bool))
    state = one.state_dict()
    one.extend(rows(50, 3), torch.ones(3, dtype=torch.bool))
    other.load_state_dict(state)
    assert numbers(other) == list(range(5, 13))  # the state is a copy
    other.extend(rows(50, 3), torch.ones(3, dtype=torch.bool))
    for buffer in (one, other):
        buffer.grow(12)
        buffer.extend(rows(60, 3), torch.ones(3, dtype=torch.bool))
    assert torch.equal(one.all().obs, other.all().obs)
    with pytest.raises(UserError, match="saved model buffer"):
        ModelBuffer(5, SPEC).load_state_dict(state)
    with pytest.raises(UserError, match="saved model buffer"):
        ModelBuffer(20, EnvSpec(3, 1, torch.device("cpu"))).load_state_dict(state)


def test_all_discrete_actions_are_integers():
    buffer = ModelBuffer(4, EnvSpec(2, 3, torch.device("cpu"), True))
    batch = rows(0, 2)._replace(action=torch.tensor([2, 1]))
    buffer.extend(batch, torch.ones(2, dtype=torch.bool))
    assert buffer.all().action.tolist() == [2, 1]
    assert buffer.all().action.dtype == torch.int64


def test_all_several_discrete_actions_are_integers():
    buffer = ModelBuffer(4, EnvSpec(2, 5, torch.device("cpu"), True, (3, 2)))
    batch = rows(0, 2)._replace(action=torch.tensor([[2, 1], [0, 1]]))
    buffer.extend(batch, torch.ones(2, dtype=torch.bool))
    assert buffer.all().action.tolist() == [[2, 1], [0, 1]]
    assert buffer.all().action.dtype == torch.int64


def test_weights_of_rows_are_stored_where_they_are_wanted():
    buffer, plain = ModelBuffer(8, SPEC, weighted=True), ModelBuffer(8, SPEC)
    weight, mask = torch.tensor([0.5, 0.25, 1.0]), torch.tensor([True, True, False])
    for each in (buffer, plain):
        each.extend(rows(0, 3)._replace(weight=weight), mask)
    buffer.extend(rows(5, 2), torch.ones(2, dtype=torch.bool))  # without weights: 1 each
    assert buffer.all().weight.tolist() == [0.5, 0.25, 1, 1]
    drawn = buffer.sample(50)
    assert torch.equal(drawn.weight, torch.tensor([0.5, 0.25, 0, 0, 0, 1, 1])[drawn.reward.long()])
    assert plain.all().weight is None
    assert buffer.row_bytes == plain.row_bytes + 4
    restored = ModelBuffer(8, SPEC, weighted=True)
    restored.load_state_dict(buffer.state_dict())
    assert torch.equal(restored.all().weight, buffer.all().weight)
    with pytest.raises(UserError, match="the saved model buffer has 8 rows of 8 numbers, but this run holds 8 of 7"):
        plain.load_state_dict(buffer.state_dict())
