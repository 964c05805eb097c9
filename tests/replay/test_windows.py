"""Consecutive rows against a plain list of rows: windows, whole episodes, the newest transitions."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from listed_replay import SPEC, WRITES, numbers_of, rows, written

from mbkit.replay.buffer import ReplayBuffer
from mbkit.replay.windows import Newest, Recent, episodes, windows


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 16), WRITES, st.integers(1, 4))
def test_windows_are_all_unbroken_stretches(capacity: int, script: list[Any], length: int) -> None:
    buffer, listed = written(capacity, script)
    chains = [c for row in listed.rows if len(c := listed.chain(row, length)) == length]
    stretches = windows(buffer, length)
    assert stretches.obs.shape == (len(chains), length + 1, 2)
    assert stretches.action.shape == (len(chains), length, 1)
    assert numbers_of(stretches.obs[:, :-1]) == [[r["id"] for r in c] for c in chains]
    assert stretches.obs[:, -1, 0].tolist() == [c[-1]["id"] + 0.5 for c in chains]
    assert stretches.reward.tolist() == [[10.0 * r["id"] for r in c] for c in chains]
    few = windows(buffer, length, limit=2)
    assert len(few.obs) == min(2, len(chains))


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 16), WRITES)
def test_episodes_are_the_whole_ones(capacity: int, script: list[Any]) -> None:
    buffer, listed = written(capacity, script)
    starts = sorted((r for r in listed.rows if r["parent"] is None), key=lambda r: r["column"])
    expected = [c for row in starts if (c := listed.chain(row, 10**6))[-1]["end"]]
    whole = episodes(buffer)
    assert [numbers_of(e.obs) for e in whole] == [[r["id"] for r in c] for c in expected]
    assert [e.terminated.tolist() for e in whole] == [[r["end"] == 2 for r in c] for c in expected]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), WRITES, st.integers(1, 12))
def test_newest_sample_is_the_last_rows_in_order(capacity: int, script: list[Any], n: int) -> None:
    buffer, listed = written(capacity, script)
    numbers = [r["id"] for r in listed.rows]
    if len(numbers) >= n:
        assert numbers_of(Newest(buffer).sample(n).obs) == numbers[-n:]


def test_newest_fewer_rows_than_asked_for_repeats_the_first() -> None:
    buffer = ReplayBuffer(8, SPEC)
    buffer.extend(rows([1, 2], [0, 0]))
    assert numbers_of(Newest(buffer).sample(4).obs) == [1, 1, 1, 2]


def test_recent_sample_is_uniform_over_the_newest_rows() -> None:
    buffer = ReplayBuffer(8, SPEC)
    for start in range(0, 12, 2):
        buffer.extend(rows([start, start + 1], [0, 0]))
    torch.manual_seed(0)
    share = torch.bincount(Recent(buffer, 5).sample(5000).obs[:, 0].long(), minlength=12) / 5000
    torch.testing.assert_close(share, torch.tensor([0.0] * 7 + [0.2] * 5), atol=0.03, rtol=0)


@pytest.mark.parametrize(("limit", "capacity"), [(5, 100), (5, 12), (50, 12), (50, 100), (1, 100)])
def test_recent_sample_keeps_the_fields_of_a_row_together(limit: int, capacity: int) -> None:
    buffer = ReplayBuffer(capacity, SPEC)
    for start in range(0, 20, 2):
        buffer.extend(rows([start, start + 1], [0, 0]))
    drawn = Recent(buffer, limit).sample(200)
    assert torch.equal(drawn.next_obs[:, 0], drawn.obs[:, 0] + 0.5)
    assert torch.equal(drawn.reward, 10 * drawn.obs[:, 0])


def test_recent_more_rows_than_stored_is_uniform_over_all() -> None:
    buffer = ReplayBuffer(8, SPEC)
    buffer.extend(rows([0, 1, 2], [0, 0, 0]))
    assert set(numbers_of(Recent(buffer, 100).sample(200).obs)) == {0, 1, 2}
