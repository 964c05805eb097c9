"""Tasks with generated graphs of attributes: restored in mid-episode, they go on as the original, with the same references."""

import io

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from task_graphs import KINDS, Generated, describe

from mbkit.envs.environment import single
from mbkit.types import State

recipes = st.lists(
    st.tuples(st.sampled_from(KINDS), st.lists(st.integers(0, 11), max_size=4), st.integers(0, 40)),
    min_size=1,
    max_size=12,
)
cases = st.tuples(recipes, st.none() | recipes, st.none() | recipes, st.integers(0, 30), st.booleans())


def saved_and_loaded(state: State) -> State:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def check(first: list, later: list | None, other: list | None, before: int, used: bool) -> None:
    """20 steps after a checkpoint at step `before`; `other`: the graph that the restored task has at first; `used`: after some steps."""
    original = single("generated", [Generated(first, later)], 0)
    original.reset()
    actions = torch.zeros(before + 20, 1, dtype=torch.int64)
    for action in actions[:before]:
        original.step(action)
    state = saved_and_loaded(original.state_dict())
    assert original.restart_reason is None
    shape = describe(original.envs[0].objects)
    restored = single("generated", [Generated(other or first, later)], 1)
    if used:
        restored.reset()
        restored.step(actions[0])
    restored.load_state_dict(state)
    assert restored.restart_reason is None
    assert describe(restored.envs[0].objects) == shape
    for action in actions[before:]:
        expected, got = original.step(action), restored.step(action)
        assert torch.equal(expected.next_obs, got.next_obs)
        assert torch.equal(expected.reward, got.reward)
    assert describe(original.envs[0]) == describe(restored.envs[0])
    assert original.state_dict()["inside"] == restored.state_dict()["inside"]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases)
def test_snapshot_generated_tasks_continue_with_the_same_references(case: tuple) -> None:
    check(*case)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases)
def test_snapshot_10000_generated_tasks_continue_with_the_same_references(case: tuple) -> None:
    check(*case)
