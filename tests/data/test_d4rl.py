"""D4RL's layout: exact both ways, and against plain loops over the rows where successors or timeouts are absent."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import LENGTHS, columns, dataset, same

from mbkit.data import Dataset, read, write
from mbkit.data.d4rl import NAMES
from mbkit.errors import UserError

ENDS = st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["terminal", "timeout", "both"])), min_size=3, max_size=7)


def layout(ends, drop=(), last_unflagged: bool = False) -> dict[str, np.ndarray]:
    """D4RL's columns of episodes with these lengths and ends; observation k of episode i is 100 i + k."""
    rows: dict[str, list] = {name: [] for name in NAMES.values()}
    for i, (length, end) in enumerate(ends):
        for k in range(length):
            last = k == length - 1
            rows["observations"].append([100 * i + k + 1, i])  # never zeros
            rows["next_observations"].append([100 * i + k + 2, i])
            rows["actions"].append([np.sin(k), np.cos(i)])
            rows["rewards"].append(k + 0.5)
            rows["terminals"].append(last and end != "timeout")
            rows["timeouts"].append(last and end != "terminal")
    kinds = {"terminals": bool, "timeouts": bool}
    arrays = {name: np.array(values, kinds.get(name, np.float32)) for name, values in rows.items()}
    if last_unflagged:
        arrays["terminals"][-1] = arrays["timeouts"][-1] = False
    return {name: values for name, values in arrays.items() if name not in drop}


def stored(path, arrays):
    """A file of these columns."""
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


@settings(max_examples=25)
@given(lengths=LENGTHS, choices=st.sampled_from([0, 4]), dtype=st.sampled_from([np.float32, np.float64]), flagged=st.booleans())
def test_write_and_read_is_exact(tmp_path_factory, lengths, choices, dtype, flagged):
    path = tmp_path_factory.mktemp("d4rl") / "data"
    rows = columns(lengths, choices, dtype)
    if not flagged:
        rows = rows._replace(truncated=np.zeros_like(rows.truncated))
    facts = {"choices": choices, "start": 3} if choices else {"action_low": [-1, -2], "action_high": [1, 2]}
    data = Dataset.of(rows, env="Some-v0", source={"ids": lengths, "seeds": [None, *lengths[1:]]}, **facts)
    again = read(write(data, path, to="d4rl"))
    assert again.format == "d4rl"
    assert same(again.columns(), rows)
    assert (again.sha256, again.source, again.env, again.start) == (data.sha256, data.source, "Some-v0", data.start)


def test_write_marks_the_end_of_every_episode(tmp_path):
    rows = columns([2, 3, 2])._replace(truncated=np.zeros(7, bool), terminated=np.zeros(7, bool))
    path = write(Dataset.of(rows, action_low=[-1, -2], action_high=[1, 2]), tmp_path / "data", to="d4rl")
    with h5py.File(path) as file:
        assert np.flatnonzero(file["timeouts"][:]).tolist() == [1, 4, 6]
        assert file["next_observations"][:, 0].tolist() == [1, 2, 1001, 1002, 1003, 2001, 2002]
    assert not read(path).columns().truncated.any()


@settings(max_examples=30)
@given(ends=ENDS, unflagged=st.booleans())
def test_read_with_successors_holds_every_row(tmp_path_factory, ends, unflagged):
    arrays = layout(ends, last_unflagged=unflagged)
    data = read(stored(tmp_path_factory.mktemp("d4rl") / "data", arrays))
    rows = data.columns()
    for role, name in NAMES.items():
        assert np.array_equal(getattr(rows, role), arrays[name])
    assert rows.episode.tolist() == [i for i, (length, _) in enumerate(ends) for _ in range(length)]
    assert data.source == {"format": "d4rl"}


def by_loops(ends, arrays):
    """Rows, successors and flags without next_observations, one row after the other."""
    rows, start, episode = [], 0, 0
    for i, (length, end) in enumerate(ends):
        flagged = arrays["terminals"][start + length - 1] or arrays["timeouts"][start + length - 1]
        cut = end == "timeout" or not flagged
        steps = length - 1 if cut else length
        for k in range(steps):
            last = k == steps - 1
            following = [0, 0] if last and not cut else [100 * i + k + 2, i]
            rows.append((100 * i + k + 1, following, last and not cut, last and (cut or end == "both"), episode))
        episode += steps > 0
        start += length
    return rows


@settings(max_examples=40)
@given(ends=ENDS, unflagged=st.booleans(), chunk=st.integers(1, 9))
def test_read_without_successors_leaves_the_last_row_of_cut_episodes_out(tmp_path_factory, ends, unflagged, chunk):
    arrays = layout(ends, drop=["next_observations"], last_unflagged=unflagged)
    path = stored(tmp_path_factory.mktemp("d4rl") / "data", arrays)
    expected = by_loops(ends, arrays)
    if not expected:
        with pytest.raises(UserError, match="at least one row with a successor"):
            read(path)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mbkit.data.flat.CHUNK", chunk)
        data = read(path)
        rows = data.columns()
        middle = data.between(0, data.episodes).columns()
    assert same(rows, middle)
    assert [row[0] for row in expected] == rows.obs[:, 0].tolist()
    assert [row[1] for row in expected] == rows.next_obs.tolist()
    assert [row[2] for row in expected] == rows.terminated.tolist()
    assert [row[3] for row in expected] == rows.truncated.tolist()
    assert [row[4] for row in expected] == rows.episode.tolist()
    left_out = len(arrays["rewards"]) - len(expected)
    zeros = sum(row[1] == [0, 0] for row in expected)
    assert data.source.get("left_out", 0) == left_out
    assert data.source.get("zero_successors", 0) == zeros
    assert any(note.startswith(f"{left_out} rows are left out") for note in data.notes) == (left_out > 0)
    assert any(note.startswith(f"{zeros} terminal rows have zeros") for note in data.notes) == (zeros > 0)


def test_read_without_successors_names_rows_as_the_file_numbers_them(tmp_path):
    arrays = layout([(3, "timeout"), (2, "timeout"), (3, "terminal")], drop=["next_observations"])
    arrays["rewards"][6] = np.nan
    with pytest.raises(UserError, match=r"reward of row 6 \(episode 2, step 1\): expected finite"):
        read(stored(tmp_path / "data", arrays)).columns()


def test_read_without_timeouts_says_so(tmp_path):
    ends = [(3, "timeout"), (4, "terminal"), (3, "timeout")]
    data = read(stored(tmp_path / "a", layout(ends, drop=["timeouts"])))
    assert data.lengths.tolist() == [3, 4, 3]
    assert not data.columns().truncated.any()
    assert any("no timeouts were recorded: 1 episodes end where next_observations differs" in note for note in data.notes)
    data = read(stored(tmp_path / "b", layout(ends, drop=["timeouts", "next_observations"])))
    assert data.lengths.tolist() == [7, 2]
    assert any("no timeouts were recorded: where an episode was cut cannot be told" in note for note in data.notes)


@pytest.mark.parametrize("drop", [[], ["timeouts"]])
@pytest.mark.parametrize("shift", [-1, 1])
def test_read_of_rolled_successors_is_refused(tmp_path, drop, shift):
    arrays = layout([(5, "terminal"), (6, "timeout"), (4, "terminal")], drop)
    arrays["next_observations"] = np.roll(arrays["next_observations"], shift, 0)
    with pytest.raises(UserError, match=r"next_obs.* of row 0.*of the following row"):
        read(stored(tmp_path / "data", arrays)).columns()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a: a.pop("rewards"), "expected a column 'rewards'"),
        (lambda a: a.update(reward=a.pop("rewards")), "expected a column 'rewards'; did you mean 'reward'"),
        (lambda a: a.update(rewards=a["rewards"][:-1]), "columns of equal lengths, got observations 6, actions 6, rewards 5"),
        (lambda a: a.update(observations=a["observations"][:-1]), "columns of equal lengths"),
        (lambda a: a.update(next_observations=a["next_observations"][:, :1]), r"of one shape, got \[6, 2\] and \[6, 1\]"),
        (lambda a: a.update(observations=a["observations"][:, 0]), r"observations: expected 2 axes, got shape \[6\]"),
        (lambda a: a.update(rewards=np.zeros((6, 2))), r"rewards: expected one number a row, got shape \[6, 2\]"),
        (lambda a: a.update(terminals=np.arange(6)), "terminals of row 2: expected 0 or 1, got 2"),
        (lambda a: a.update(actions=np.array([b"a"] * 6)), "actions: expected numbers"),
        (lambda a: a.update({k: v[:0] for k, v in a.items()}), "at least one row"),
        (lambda a: a.update(actions=np.arange(6)), "expected bounds of the actions, which the file does not have; .*--choices"),
        (lambda a: a.update(actions=3 * a["actions"]), r"expected a number in \[-1, 1\]"),
    ],
)
def test_read_of_odd_columns_is_refused(tmp_path, change, sentence):
    arrays = layout([(2, "terminal"), (4, "timeout")])
    change(arrays)
    with pytest.raises(UserError, match=sentence):
        read(stored(tmp_path / "data", arrays)).columns()


def test_read_takes_bounds_and_choices_from_the_user(tmp_path):
    arrays = layout([(2, "terminal"), (4, "timeout")])
    assert read(stored(tmp_path / "a", arrays)).box[0].tolist() == [-1, -1]
    data = read(tmp_path / "a", low=[-3], high=[1, 2], env="Some-v0")
    assert (data.box[0].tolist(), data.box[1].tolist(), data.env) == ([-3, -3], [1, 2], "Some-v0")
    path = stored(tmp_path / "b", arrays | {"actions": np.arange(6)[:, None]})
    assert read(path, choices=6).columns().action.tolist() == [0, 1, 2, 3, 4, 5]
    for options, sentence in (
        ({"low": [-1]}, "both bounds of the actions, got only low"),
        ({"low": [-1], "high": [1, 1, 1]}, "high: expected 1 or 2 numbers"),
        ({"choices": 3}, "expected whole numbers, since they are discrete, got float32"),
        ({"choices": 3, "low": [-1]}, "got both"),
    ):
        with pytest.raises(UserError, match=sentence):
            read(tmp_path / "a", **options)
    with pytest.raises(UserError, match="the option low has no meaning"):
        read(write(dataset([2, 2]), tmp_path / "c", to="d4rl"), low=[-1])


def test_read_says_what_no_column_holds(tmp_path):
    path = stored(tmp_path / "data", layout([(2, "terminal"), (4, "timeout")]) | {"infos/qpos": np.zeros(6), "metadata/x": np.zeros(2)})
    assert any("left out, since no column of a data set holds them: infos" in note for note in read(path).notes)


def test_read_of_a_foreign_hdf5_file_is_refused(tmp_path):
    path = stored(tmp_path / "data", {"weights": np.zeros(3)})
    with pytest.raises(UserError, match=r"expected a data set in one of the formats .*mbkit, "):
        read(path)
