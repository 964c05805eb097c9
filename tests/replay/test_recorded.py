"""Batches of a data set against a plain list of episodes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import dataset

from mbkit.replay import recorded
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.recorded import RecordedRows

LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=6)


@pytest.mark.parametrize("choices", [0, 4])
@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS)
def test_rows_know_what_follows_them(choices: int, lengths: list[int]) -> None:
    data = dataset(lengths, choices)
    columns, rows = data.columns(), RecordedRows(data.buffer(data.spec()))
    everything = rows.all()
    last = np.append(np.diff(columns.episode), 1).astype(bool)
    assert everything.row.tolist() == list(range(data.rows))
    assert everything.next_known.tolist() == (~last).astype(float).tolist()
    assert torch.equal(everything.next_action[:-1][~last[:-1]], everything.action[1:][~last[:-1]])
    returns = [columns.reward[t : int(np.flatnonzero(columns.episode == columns.episode[t])[-1]) + 1].sum() for t in range(data.rows)]
    np.testing.assert_allclose(everything.return_to_go, returns, rtol=1e-6, atol=1e-6)
    assert everything.discount.tolist() == (~columns.terminated).astype(float).tolist()


@settings(max_examples=25, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 99))
def test_a_batch_is_rows_of_all(lengths: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    data = dataset(lengths)
    rows = RecordedRows(data.buffer(data.spec()))
    batch, everything = rows.sample(9), rows.all()
    assert batch.real is batch.weight is None
    for name in everything._fields:
        if name not in ("real", "weight"):
            known = batch.next_known > 0 if name == "next_action" else slice(None)  # type: ignore[attr-defined]
            assert torch.equal(getattr(batch, name)[known], getattr(everything, name)[batch.row][known]), name  # type: ignore[attr-defined]


def test_all_rows_are_views_and_finite_in_a_buffer_with_free_rows_too() -> None:
    data = dataset([3, 4])
    buffer = ReplayBuffer(10, data.spec())
    buffer.data.fill_(torch.nan)
    rows = data.buffer(data.spec()).all()
    ended = torch.arange(7) % 7 == 6
    buffer.extend(Experience(rows.obs, rows.action, rows.reward, rows.next_obs, rows.discount == 0, ended), column=0)
    everything = RecordedRows(buffer).all()
    assert everything.next_action.isfinite().all()
    for column in (everything.obs, everything.action, everything.next_obs, everything.next_action):
        assert column.untyped_storage().data_ptr() == buffer.data.untyped_storage().data_ptr()


@pytest.mark.parametrize("chunk", [1, 4, 5, 100])
def test_returns_go_on_over_the_parts_in_which_they_are_summed(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset([3, 9, 1, 6])
    buffer = data.buffer(data.spec())
    whole = recorded.returns_to_go(buffer)
    monkeypatch.setattr(recorded, "CHUNK", chunk)
    torch.testing.assert_close(recorded.returns_to_go(buffer), whole)
