"""Formats are told apart by what a file holds."""

import shutil
import subprocess
import sys

import pytest
from recorded import dataset

from mbkit.data import read, write
from mbkit.errors import UserError


def test_read_does_not_look_at_the_name(tmp_path):
    path = write(dataset([2, 3]), tmp_path / "data.h5")
    other = shutil.copy(path, tmp_path / "data.csv")
    assert read(other).sha256 == read(path).sha256


def test_read_of_no_data_set_is_refused(tmp_path):
    text = tmp_path / "notes.h5"
    text.write_text("nothing of the kind")
    empty = tmp_path / "empty.npz"
    empty.touch()
    for path, sentence in ((text, "got something else"), (empty, "got nothing"), (tmp_path / "absent.h5", "there is no file")):
        with pytest.raises(UserError, match=sentence):
            read(path)


def test_read_of_an_option_without_meaning_is_refused(tmp_path):
    path = write(dataset([2, 3]), tmp_path / "data.h5")
    assert read(path, low=None).rows == 5
    with pytest.raises(UserError, match="format mbkit: the option low has no meaning"):
        read(path, low=[0])


def test_write_in_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot write format 'mkbit'; did you mean 'mbkit'"):
        write(dataset([2]), tmp_path / "data.h5", to="mkbit")
    with pytest.raises(UserError, match="is a directory"):
        write(dataset([2]), tmp_path)
    with pytest.raises(UserError, match="cannot be written"):
        write(dataset([2]), tmp_path / "absent" / "data.h5")
    assert list(tmp_path.iterdir()) == []


def test_import_needs_neither_torch_nor_h5py():
    code = "import sys, mbkit.data; print([name for name in ('torch', 'h5py', 'gymnasium') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
