"""mbkit's own files: exact round trips, whole or not at all, and what is refused."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import LENGTHS, columns, dataset, same

from mbkit.data import Dataset, read, write
from mbkit.errors import UserError


@settings(max_examples=25)
@given(lengths=LENGTHS, choices=st.sampled_from([0, 4]), dtype=st.sampled_from([np.float32, np.float64, np.int16]))
def test_write_and_read_is_exact(tmp_path_factory, lengths, choices, dtype):
    path = tmp_path_factory.mktemp("native") / "data.h5"
    facts = {"env": "Some-v0", "env_kwargs": {"a": 1}, "obs_names": ("x", "y"), "source": {"ids": lengths}, "notes": ["n"]}
    data = dataset(lengths, choices, dtype, **facts)
    again = read(write(data, path))
    assert again.format == "mbkit"
    assert same(again.columns(), columns(lengths, choices, dtype))
    assert again.sha256 == data.sha256
    for name in ("env", "env_kwargs", "obs_names", "action_names", "choices", "start", "has_reward", "source", "notes", "episodes"):
        assert getattr(again, name) == getattr(data, name)
    if not choices:
        assert np.array_equal(again.box, data.box)


def test_read_of_many_chunks_is_exact(tmp_path, monkeypatch):
    lengths = [5, 1, 9, 2, 30]
    monkeypatch.setattr("mbkit.data.dataset.CHUNK", 4)
    path = write(dataset(lengths), tmp_path / "data.h5")
    assert same(read(path).columns(), columns(lengths))
    assert same(read(path).between(1, 4).columns(), dataset(lengths).between(1, 4).columns())


def test_write_stores_successors_once(tmp_path):
    path = write(dataset([3, 2]), tmp_path / "data.h5")
    with h5py.File(path) as file:
        assert "next_obs" not in file
        assert file["final_obs"][:, 0].tolist() == [3, 1002]
        assert all(item.fletcher32 for item in file.values())


def test_write_provenance_longer_than_an_attribute_may_be(tmp_path):
    data = dataset([1, 1], source={"seeds": list(range(50_000))})
    assert read(write(data, tmp_path / "data.h5")).source == data.source


def test_write_of_a_bad_row_leaves_what_was_there(tmp_path):
    path = write(dataset([3, 2]), tmp_path / "data.h5")
    before = path.read_bytes()
    rows = columns([3, 2])
    rows.reward[4] = np.nan
    with pytest.raises(UserError, match=r"reward of row 4 \(episode 1, step 1\): expected finite numbers, got nan"):
        write(Dataset.of(rows, action_low=[-1, -2], action_high=[1, 2]), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def edited(path, change):
    """The file after `change` was applied to it."""
    with h5py.File(path, "r+") as file:
        change(file)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: f.__delitem__("reward"), "expected a column 'reward'"),
        (lambda f: f.attrs.__setitem__("format", "mbkit data 99"), "expected format 'mbkit data 1', got 'mbkit data 99'"),
        (lambda f: (f.__delitem__("reward"), f.create_dataset("reward", data=np.zeros(4))), "columns of equal lengths, got .*reward 4"),
        (lambda f: (f.__delitem__("reward"), f.create_dataset("reward", data=np.zeros((5, 2)))), r"reward: expected shape \[5\]"),
        (lambda f: (f.__delitem__("obs"), f.create_dataset("obs", data=["a"] * 5)), "obs: expected numbers"),
        (lambda f: f["length"].__setitem__(0, 4), "add up to its 5 rows"),
        (lambda f: (f.__delitem__("about"), f.create_dataset("about", data=np.frombuffer(b"{}", "u1"))), "expected the entries env"),
        (lambda f: (f.__delitem__("about"), f.create_dataset("about", data=np.frombuffer(b"{", "u1"))), "not valid JSON"),
        (lambda f: (f.__delitem__("obs"), f.__setitem__("obs", h5py.ExternalLink("other.h5", "x"))), "'obs' to be a dataset of this file"),
    ],
)
def test_read_of_edited_files_is_refused(tmp_path, change, sentence):
    path = write(dataset([3, 2]), tmp_path / "data.h5")
    edited(path, change)
    with pytest.raises(UserError, match=sentence) as refusal:
        read(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_read_of_a_damaged_file_is_refused(tmp_path):
    path = write(dataset([300, 200]), tmp_path / "data.h5")
    with h5py.File(path) as file:
        chunk = file["obs"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged, cut or foreign"):
        read(path).columns()


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_read_of_a_cut_file_is_refused(tmp_path, share):
    path = write(dataset([300, 200]), tmp_path / "data.h5")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match="damaged, cut or foreign"):
        read(path)
