"""Trajectories: order under any mask, what is left after one was taken, checkpoints in the middle of one, stored ones."""

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mbkit.errors import UserError
from mbkit.replay.buffer import Experience
from mbkit.replay.trajectory import TrajectoryBuffer
from mbkit.testing import random_trajectory
from mbkit.types import EnvSpec

SPEC = EnvSpec(1, 1, torch.device("cpu"))
CHOICES = SPEC._replace(discrete=True, action_dim=3)


def row(numbers: Tensor, discrete: bool = False) -> Experience:
    """A step that shows its number [M] in every field; every fourth terminates, every third ends."""
    action = numbers.long() % 3 if discrete else numbers[:, None] / 1000
    whole = numbers.long()
    return Experience(numbers[:, None], action, 2 * numbers, numbers[:, None] + 0.5, whole % 4 == 3, whole % 3 == 2)


def filled(masks: list[list[bool]], steps: int, spec: EnvSpec = SPEC) -> tuple[TrajectoryBuffer, list[list[float]]]:
    """A buffer after one step per mask, and the numbers of each environment's valid steps; 100 i is the first of environment i."""
    m = len(masks[0])
    buffer, valid = TrajectoryBuffer(steps, m, spec), [[] for _ in range(m)]
    numbers = torch.arange(m) * 100.0
    for mask in masks:
        buffer.extend(row(numbers, spec.discrete), torch.tensor(mask))
        for i in range(m):
            valid[i] += [float(numbers[i])] if mask[i] else []
        numbers = numbers + 1
    return buffer, valid


@given(st.integers(1, 4), st.integers(1, 6), st.data())
@settings(max_examples=40)
def test_take_any_mask_returns_the_valid_steps_of_each_environment_in_order(m, steps, data):
    masks = [[True] * m]
    while min(sum(mask[i] for mask in masks) for i in range(m)) < steps:
        masks.append(data.draw(st.lists(st.booleans(), min_size=m, max_size=m)))
        masks.append([True] * m)
    spec = CHOICES if data.draw(st.booleans()) else SPEC
    buffer, valid = filled(masks, steps, spec)
    assert buffer.full
    taken = buffer.take()
    expected = torch.tensor([numbers[:steps] for numbers in valid]).T
    assert torch.equal(taken.obs[..., 0], expected)
    whole = row(expected.flatten(), spec.discrete)
    assert torch.equal(taken.action.flatten(0, 1), whole.action)
    assert taken.action.dtype == whole.action.dtype
    assert torch.equal(taken.reward, 2 * expected)
    assert torch.equal(taken.next_obs[..., 0], expected + 0.5)
    assert torch.equal(taken.discount, (expected.long() % 4 != 3).float())
    assert torch.equal(taken.ended, (expected.long() % 4 == 3) | (expected.long() % 3 == 2))
    assert not taken.log_prob.any()


def test_full_needs_the_steps_of_every_environment():
    buffer, _ = filled([[True, True], [True, False]], 2)
    assert not buffer.full
    buffer.extend(row(torch.tensor([2.0, 102.0])), torch.tensor([False, True]))
    assert buffer.full


def test_take_removes_all_steps():
    buffer, _ = filled([[True, True]] * 2, 2)
    buffer.take()
    assert not buffer.full
    for i in (7.0, 8.0):
        buffer.extend(row(torch.tensor([i, i + 100])))  # no mask: every environment
    assert buffer.take().obs[..., 0].tolist() == [[7, 107], [8, 108]]


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_state_dict_in_the_middle_of_a_trajectory_continues_identically(at):
    """The next trajectory, the stored ones and the draws from them are those of a buffer that was never saved."""
    masks = [[True, True], [True, False], [True, True], [False, True]]

    def advance(buffer: TrajectoryBuffer, begin: int, end: int) -> None:
        for k in range(begin, end):
            buffer.extend(row(torch.tensor([k, k + 100.0])), torch.tensor(masks[k]))

    whole, saved, other = (TrajectoryBuffer(3, 2, SPEC, capacity=2) for _ in range(3))
    for buffer in (whole, saved):
        for seed in range(3):
            buffer.store(random_trajectory(SPEC, 3, 2, seed))
    advance(whole, 0, 4)
    advance(saved, 0, at)
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    advance(saved, at, 4)  # the saved state does not change with it
    file.seek(0)
    other.extend(row(torch.tensor([50.0, 60.0])))
    other.store(random_trajectory(SPEC, 3, 2, 9))
    other.load_state_dict(torch.load(file, weights_only=True))
    advance(other, at, 4)
    assert other.full == whole.full is True
    drawn = []
    for buffer in (whole, other, saved):
        torch.manual_seed(0)
        drawn.append([buffer.take(), *(buffer.draw() for _ in range(4))])
    for again in drawn[1:]:
        for a, b in zip(drawn[0], again, strict=True):
            assert all(torch.equal(x, y) and x.dtype == y.dtype for x, y in zip(a, b, strict=True))


def test_state_dict_is_a_copy():
    buffer, _ = filled([[True, True]], 2)
    state = buffer.state_dict()
    buffer.extend(row(torch.tensor([1.0, 101.0])))
    buffer.take()
    assert state["counts"].tolist() == [1, 1]
    assert len(state["valid"]) == 1


def test_store_more_than_capacity_removes_the_oldest():
    buffer = TrajectoryBuffer(2, 2, SPEC, capacity=3)
    trajectories = [random_trajectory(SPEC, 2, 2, seed) for seed in range(5)]
    for trajectory in trajectories:
        buffer.store(trajectory)
    torch.manual_seed(0)
    drawn = {float(buffer.draw().reward.sum()) for _ in range(100)}
    assert drawn == {float(t.reward.sum()) for t in trajectories[2:]}


def test_store_capacity_0_stores_nothing():
    buffer = TrajectoryBuffer(2, 2, SPEC)
    buffer.store(random_trajectory(SPEC, 2, 2))
    assert buffer.past == []


def test_trajectory_buffer_0_steps_is_refused():
    with pytest.raises(UserError, match=r"loop.rollout_steps=0: expected at least 1"):
        TrajectoryBuffer(0, 1, SPEC)


def test_cut_ends_the_last_row_of_every_environment():
    buffer, _ = filled([[True, True]] * 2, 2)
    buffer.cut()
    assert buffer.take().ended.tolist() == [[False, False], [True, True]]
