"""Data sets in memory: rows in chunks, fingerprints, scaling, and the replay buffer they fill."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import LENGTHS, about, columns, dataset, observations, same

from mbkit.data import Columns, Dataset
from mbkit.data.columns import joined
from mbkit.envs.spaces import ActionMap
from mbkit.errors import UserError


@settings(max_examples=30)
@given(lengths=LENGTHS, rows=st.integers(1, 20), choices=st.sampled_from([0, 4]))
def test_chunks_are_the_rows_in_order(lengths, rows, choices):
    data = dataset(lengths, choices)
    chunks = list(data.chunks(rows))
    assert all(len(chunk.reward) == rows for chunk in chunks[:-1])
    assert same(joined(chunks), columns(lengths, choices))
    assert same(data.columns(), columns(lengths, choices))
    assert (data.rows, data.episodes) == (sum(lengths), len(lengths))


def test_sha256_depends_on_every_column_and_not_on_chunks(monkeypatch):
    rows = columns([3, 2, 4])
    expected = dataset([3, 2, 4]).sha256
    chunks = Dataset.raw
    monkeypatch.setattr(Dataset, "raw", lambda self, rows: chunks(self, 2))
    assert dataset([3, 2, 4]).sha256 == expected
    changed = rows.reward.copy()
    changed[5] += 1
    others = [rows._replace(reward=changed), rows._replace(reward=rows.reward.astype(np.float32)), rows._replace(truncated=rows.terminated)]
    assert len({expected, *(Dataset.of(other, **about()).sha256 for other in others)}) == 4


@settings(max_examples=25)
@given(low=st.floats(-5, 0), width=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_scaled_is_the_inverse_of_the_environments_map(low, width, seed):
    from gymnasium import spaces

    box = spaces.Box(np.float32([low, -1]), np.float32([low + width, 1]))
    data = Dataset.of(columns([2, 2, 2])._replace(action=np.zeros((6, 2)) + box.low), action_low=box.low, action_high=box.high)
    wanted = torch.rand(50, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    scaled = data.scaled(ActionMap(box, "test")(wanted))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, wanted.numpy(), atol=1e-5)
    assert np.array_equal(data.scaled(np.stack([box.low, box.high])), [[-1, -1], [1, 1]])


def test_scaled_choices_begin_at_0():
    data = dataset([2, 2], choices=4)
    assert data.scaled(np.array([3, 6], np.int32)).tolist() == [0, 3]
    assert data.spec().action_dim == 4


@settings(max_examples=25)
@given(lengths=LENGTHS, choices=st.sampled_from([0, 4]), rows=st.integers(1, 9))
def test_buffer_links_rows_of_one_episode_over_chunks(lengths, choices, rows):
    data = dataset(lengths, choices)
    chunks = data.chunks
    data.chunks = lambda: chunks(rows)
    replay = data.buffer(data.spec())
    batch, expected = replay.all(), columns(lengths, choices)
    assert np.array_equal(batch.obs, expected.obs.astype(np.float32))
    assert np.array_equal(batch.next_obs, expected.next_obs.astype(np.float32))
    assert np.array_equal(batch.action, data.scaled(expected.action))
    assert np.array_equal(batch.reward, expected.reward.astype(np.float32))
    assert np.array_equal(batch.discount, 1 - expected.terminated)
    last = np.append(np.diff(expected.episode), 1) != 0
    following = np.where(last, data.rows, np.arange(1, data.rows + 1))
    assert replay.link[:-1].tolist() == following.tolist()


def test_buffer_of_other_dimensions_is_refused():
    data = dataset([2, 2])
    with pytest.raises(UserError, match=r"has 2 observation dimensions and 2 continuous.*expected 3 observation"):
        data.buffer(data.spec()._replace(obs_dim=3))
    with pytest.raises(UserError, match="expected 2 observation dimensions and 2 discrete actions"):
        data.buffer(data.spec()._replace(discrete=True))


def test_buffer_beyond_memory_names_size_and_advice(monkeypatch):
    def full(*arguments):
        raise UserError("loop.buffer_size=4 needs too much")

    monkeypatch.setattr("mbkit.data.dataset.ReplayBuffer", full)
    with pytest.raises(UserError, match=r"its 4 rows need 240 bytes, more than cpu has; .*--episodes A:B"):
        dataset([2, 2]).buffer(dataset([2, 2]).spec())


def test_between_renumbers_episodes_and_their_facts():
    data = dataset([3, 1, 2, 4], source={"ids": [5, 6, 7, 8], "other": 1})
    part = data.between(1, 3)
    assert part.columns().episode.tolist() == [0, 1, 1]
    assert part.columns().obs[:, 0].tolist() == [1000, 2000, 2001]
    assert part.source == {"ids": [6, 7], "other": 1, "episodes": [1, 3]}
    assert part.place(1) == "row 4 (episode 1, step 0)"
    assert part.between(1, 2).columns().obs[:, 0].tolist() == [2000, 2001]
    for first, stop in ((0, 5), (2, 2), (-1, 2)):
        with pytest.raises(UserError, match="0 <= A < B <= 4"):
            data.between(first, stop)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"reward": np.zeros(3)}, "columns of equal lengths"),
        ({"obs": np.zeros(4)}, r"observations \[N, O\]"),
        ({"episode": np.array([0, 0, 2, 2])}, "numbered 0, 1, 2"),
        ({"episode": np.array([1, 1, 2, 2])}, "numbered 0, 1, 2"),
    ],
)
def test_of_odd_columns_is_refused(change, sentence):
    with pytest.raises(UserError, match=sentence):
        Dataset.of(columns([2, 2])._replace(**change), **about())


def test_of_nothing_is_refused():
    empty = Columns(*(column[:0] for column in columns([2, 2])))
    with pytest.raises(UserError, match="at least one episode"):
        Dataset.of(empty, **about())


@pytest.mark.parametrize("bounds", [{}, {"action_low": [0, 0], "action_high": [1]}, {"action_low": [0], "action_high": [np.inf]}])
def test_of_actions_without_bounds_is_refused(bounds):
    with pytest.raises(UserError, match="bounds of the actions"):
        Dataset.of(columns([2, 2]), **bounds)


def test_observations_are_those_that_the_pages_show():
    assert observations(1, 2)[:, 0].tolist() == [1000, 1001, 1002]


@pytest.mark.parametrize(
    ("facts", "sentence"), [({"obs_names": ("x",)}, "obs_names: expected 2 names or none"), ({"choices": 10**9}, "at most")]
)
def test_of_facts_that_do_not_fit_is_refused(facts, sentence):
    with pytest.raises(UserError, match=sentence):
        dataset([2, 2], **{"choices": 0, **facts})


def test_whole_episodes_are_cut_where_episodes_end():
    data = dataset([3, 1, 2, 4])
    chunks = data.chunks
    data.chunks = lambda: chunks(2)
    parts = list(data.whole_episodes())
    assert [part.episode.tolist() for part in parts] == [[0] * 3, [1], [2] * 2, [3] * 4]
    assert same(joined(parts), columns([3, 1, 2, 4]))


def test_listed_is_one_value_for_each_episode():
    data = dataset([3, 1], source={"ids": [4, 5], "seeds": [1, 2, 3]})
    assert (data.listed("ids"), data.listed("seeds"), data.listed("none")) == ([4, 5], [None, None], [None, None])
