"""NumPy's archives: exact both ways, no pickle, slices of members as the array's own."""

from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import LENGTHS, columns, dataset, same

from mbkit.data import read, write
from mbkit.data.npz import Member
from mbkit.errors import UserError

BOX = {"low": [-1, -2], "high": [1, 2]}


@settings(max_examples=25)
@given(lengths=LENGTHS, choices=st.sampled_from([0, 4]), dtype=st.sampled_from([np.float32, np.float64, np.int32]))
def test_write_and_read_is_exact(tmp_path_factory, lengths, choices, dtype):
    path = tmp_path_factory.mktemp("npz") / "data"
    data = dataset(lengths, choices, dtype, env="Some-v0", source={"ids": lengths}, obs_names=("a", "b"))
    again = read(write(data, path, to="npz"))
    assert again.format == "npz"
    assert same(again.columns(), columns(lengths, choices, dtype))
    assert (again.sha256, again.source, again.env, again.obs_names) == (data.sha256, data.source, "Some-v0", ("a", "b"))


def test_write_is_read_by_numpy(tmp_path):
    path = write(dataset([3, 2, 4]), tmp_path / "data.npz", to="npz")
    with np.load(path, allow_pickle=False) as archive:
        for name, column in columns([3, 2, 4])._asdict().items():
            assert archive[name].dtype == column.dtype
            assert np.array_equal(archive[name], column)


@settings(max_examples=25)
@given(lengths=LENGTHS, compressed=st.booleans(), by_column=st.booleans(), chunk=st.integers(1, 9))
def test_read_of_arrays_that_numpy_wrote(tmp_path_factory, lengths, compressed, by_column, chunk):
    path = tmp_path_factory.mktemp("npz") / "data.npz"
    rows = columns(lengths)
    arrays = {name: np.asfortranarray(column) if by_column else column for name, column in rows._asdict().items()}
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mbkit.data.flat.CHUNK", chunk)
        assert same(read(path, **BOX).columns(), rows)
        assert same(read(path, **BOX).between(1, 3).columns(), dataset(lengths).between(1, 3).columns())


def test_read_without_successors_uses_the_episodes(tmp_path):
    rows = columns([3, 2, 4])._asdict()
    path = tmp_path / "data.npz"
    del rows["next_obs"]
    rows["episode"] = np.repeat([7, 7, 3], [3, 2, 4])  # episodes 0 and 1 are one
    rows["terminated"][:] = [0, 0, 0, 0, 0, 0, 0, 0, 1]
    rows["truncated"][:] = False
    rows["obs"] = np.arange(18.0).reshape(9, 2)
    np.savez(path, **rows)
    data = read(path, **BOX)
    assert data.lengths.tolist() == [4, 4]
    assert data.columns().next_obs[:, 0].tolist() == [2, 4, 6, 8, 12, 14, 16, 0]
    assert data.columns().truncated.tolist() == [False, False, False, True, False, False, False, False]
    assert data.source == {"format": "npz", "left_out": 1, "zero_successors": 1}


def test_read_under_the_names_of_d4rl(tmp_path):
    rows = columns([3, 2, 4])
    names = {"observations": rows.obs, "actions": rows.action / 2, "rewards": rows.reward, "terminals": rows.terminated}
    np.savez(tmp_path / "data.npz", **names, next_observations=rows.next_obs, timeouts=rows.truncated)
    data = read(tmp_path / "data.npz")
    assert np.array_equal(data.columns().next_obs, rows.next_obs)
    assert data.box[0].tolist() == [-1, -1]


def arrays() -> dict:
    """Columns in a dict, to be changed."""
    return dict(columns([3, 2])._asdict())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a: a.update(reward=np.array([None, 1, 2, 3, 4])), "reward: expected numbers, got object"),
        (lambda a: a.update(other=np.array([{}])), "other: expected numbers, got object"),
        (lambda a: a.update(other=np.zeros(3, [("a", "f4")])), "other: expected numbers"),
        (lambda a: a.update(obs=a["obs"].astype(complex)), "obs: expected numbers, got complex128"),
        (lambda a: a.update(obs=a["obs"].astype(str)), "obs: expected numbers, got str"),
        (lambda a: a.update(obs=np.float64(1)), "obs: expected 2 axes"),
        (lambda a: a.update(reward=a["reward"][:4]), "columns of equal lengths"),
        (lambda a: a.pop("action"), "expected a column 'action'"),
        (lambda a: a.update({k: v[:0] for k, v in a.items()}), "at least one row"),
        (lambda a: a["obs"].__setitem__((4, 0), np.nan), r"obs, dimension 0 of row 4 \(episode 1, step 1\)"),
    ],
)
def test_read_of_odd_arrays_is_refused(tmp_path, change, sentence):
    changed = {name: column.copy() for name, column in arrays().items()}
    change(changed)
    np.savez(tmp_path / "data.npz", **changed)
    with pytest.raises(UserError, match=sentence):
        read(tmp_path / "data.npz", **BOX).columns()


def test_read_without_bounds_says_how_to_name_them(tmp_path):
    np.savez(tmp_path / "data.npz", **arrays())
    with pytest.raises(UserError, match=r"expected bounds of the action, which the file does not have; .*--low and --high"):
        read(tmp_path / "data.npz")


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_read_of_a_cut_archive_is_refused(tmp_path, share):
    path = write(dataset([300, 200]), tmp_path / "data.npz", to="npz")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match="damaged or foreign"):
        read(path)


def test_read_of_a_damaged_archive_is_refused(tmp_path):
    path = write(dataset([300, 200]), tmp_path / "data.npz", to="npz")
    content = bytearray(path.read_bytes())
    content[5000] ^= 255
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged or foreign"):
        read(path).columns()


def test_read_of_another_archive_is_refused(tmp_path):
    with ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("text.txt", "hello")
    with pytest.raises(UserError, match="expected a data set in one of the formats"):
        read(tmp_path / "data.zip")


@settings(max_examples=50)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.booleans())
def test_member_slices_are_those_of_the_array(tmp_path_factory, steps, by_column):
    path = tmp_path_factory.mktemp("npz") / "data.npz"
    array = np.arange(60).reshape(20, 3)
    np.savez(path, x=np.asfortranarray(array) if by_column else array)
    with ZipFile(path) as archive:
        member, start = Member(archive, "x.npy"), 0
        for step in steps:  # as files are read: each slice begins at the last row of the one before, or behind it
            assert np.array_equal(member[start : start + step + 2], array[start : start + step + 2])
            start = min(start + step + 1, 18)
