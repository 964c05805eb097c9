"""Replays of mbrl-lib: its own files, wrapped rings, and those before its version 0.2."""

import numpy as np
import pytest

from mbkit.data import read, write
from mbkit.errors import UserError

BOX = {"low": [-1, -2], "high": [1, 2]}


def steps(lengths, first=0):
    """Rows (obs, action, next_obs, reward, terminated, truncated); observation k of episode i is 1000 i + k, even episodes terminate."""
    for i, length in enumerate(lengths, first):
        for k in range(length):
            last = k == length - 1
            obs, next_obs = np.full(3, 1000.0 * i + k), np.full(3, 1000.0 * i + k + 1)
            yield obs, np.array([np.sin(k), 2 * np.cos(k)]), next_obs, i + 0.1 * k, last and i % 2 == 0, last and i % 2 == 1


@pytest.mark.parametrize("trajectories", [None, 10])
def test_read_of_its_own_file(tmp_path, trajectories):
    replays = pytest.importorskip("mbrl.util.replay_buffer")
    buffer = replays.ReplayBuffer(100, (3,), (2,), max_trajectory_length=trajectories)
    rows = list(steps([4, 3, 5]))
    for row in rows:
        buffer.add(*row)
    buffer.save(tmp_path)
    data = read(tmp_path / "replay_buffer.npz", **BOX, env="Some-v0")
    assert (data.format, data.lengths.tolist(), data.env) == ("mbrl-lib", [4, 3, 5], "Some-v0")
    got = data.columns()
    for values, n in ((got.obs, 0), (got.action, 1), (got.next_obs, 2), (got.reward, 3), (got.terminated, 4), (got.truncated, 5)):
        np.testing.assert_allclose(values, np.array([row[n] for row in rows]), rtol=1e-6)
    assert read(write(data, tmp_path / "data.h5")).sha256 == data.sha256


def test_read_of_a_wrapped_ring_cuts_where_successors_break(tmp_path):
    replays = pytest.importorskip("mbrl.util.replay_buffer")
    buffer = replays.ReplayBuffer(9, (3,), (2,))
    for row in steps([4, 3, 5]):
        buffer.add(*row)
    buffer.save(tmp_path)
    data = read(tmp_path / "replay_buffer.npz", **BOX)
    assert data.columns().obs[:, 0].tolist() == [2002, 2003, 2004, 3, 1000, 1001, 1002, 2000, 2001]
    assert data.lengths.tolist() == [3, 1, 3, 2]
    assert data.columns().terminated.tolist() == [False, False, True, True, False, False, False, False, False]


def saved(path, lengths=(4, 3), **changes):
    """A file as mbrl-lib before version 0.2 wrote it."""
    obs, action, next_obs, reward, terminated, truncated = (np.array(column) for column in zip(*steps(lengths), strict=True))
    columns = {"obs": obs, "next_obs": next_obs, "action": action, "reward": reward, "done": terminated | truncated, **changes}
    np.savez(path, **{name: column for name, column in columns.items() if column is not None})
    return path


def test_read_of_an_old_file_takes_done_as_terminated(tmp_path):
    data = read(saved(tmp_path / "replay_buffer.npz"), **BOX)
    assert data.columns().terminated.nonzero()[0].tolist() == [3, 6]
    assert any("done is taken as terminated" in note for note in data.notes)


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        ({}, {}, "expected bounds of the action"),
        ({"reward": np.zeros(3)}, BOX, r"columns of equal lengths, got .*reward \[3\]"),
        ({"reward": np.array([None] * 7)}, BOX, "reward: expected numbers, got object"),
        ({"trajectory_indices": np.array([[0, 9]])}, BOX, "trajectory_indices: expected pairs of rows from 0 to 7"),
        ({"done": None, "trajectory_indices": np.array([])}, BOX, "expected a column 'terminated' or 'done', got neither"),
        ({"obs": np.zeros((7, 2))}, BOX, "columns of equal lengths"),
    ],
)
def test_read_of_odd_files_is_refused(tmp_path, changes, options, sentence):
    with pytest.raises(UserError, match=sentence):
        read(saved(tmp_path / "replay_buffer.npz", **changes), **options).columns()
