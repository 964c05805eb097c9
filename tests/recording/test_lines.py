"""Lines that are appended whole, or refused with a sentence: a full disk, a deleted or moved file."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys

import pytest

from mbkit.errors import UserError
from mbkit.recording.lines import Lines


def test_lines_cut_an_incomplete_last_line_and_append(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st')
    lines = Lines(path)
    lines.write({"step": 2})
    lines.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize(("position", "missing", "rows"), [(12, 0, 1), (15, 0, 1), (24, 0, 2), (10**6, 10**6 - 24, 2), (3, 0, 0)])
def test_truncate_keeps_whole_lines_and_counts_what_is_missing(tmp_path, position, missing, rows):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    lines = Lines(path)
    assert lines.truncate(position) == missing
    assert len(path.read_text().splitlines()) == rows
    lines.close()


@pytest.mark.parametrize("lose", [os.remove, lambda path: os.rename(path, f"{path}.old"), lambda path: shutil.rmtree(path.parent)])
def test_write_to_a_file_that_is_gone_is_refused(tmp_path, lose):
    (tmp_path / "run").mkdir()
    path = tmp_path / "run/metrics.jsonl"
    lines = Lines(path)
    lines.write({"step": 1})
    lose(path)
    with pytest.raises(UserError, match="was deleted or moved while the run wrote to it"):
        lines.write({"step": 2})
    with pytest.raises(UserError, match="was deleted or moved"):
        lines.position()
    lines.close()


def test_write_to_a_file_that_was_replaced_is_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = Lines(path)
    path.rename(tmp_path / "old")
    path.write_text("")
    with pytest.raises(UserError, match="was deleted or moved"):
        lines.write({"step": 2})
    lines.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_write_that_the_system_refuses_is_one_sentence_and_leaves_whole_lines(tmp_path, number):
    path = tmp_path / "metrics.jsonl"
    lines = Lines(path)
    lines.write({"step": 1})
    file = lines._file

    class Full:
        """Takes three bytes, then none."""

        left = 3

        def write(self, data):
            taken, self.left = file.write(data[: self.left]), 0
            if not taken:
                raise OSError(number, os.strerror(number))
            return taken

        def __getattr__(self, name):
            return getattr(file, name)

    lines._file = Full()
    with pytest.raises(UserError, match=rf"metrics.jsonl cannot be written \({os.strerror(number)}\)"):
        lines.write({"step": 2})
    lines.close()
    assert path.read_text() == '{"step": 1}\n'


def test_write_beyond_the_systems_limit_is_one_sentence(tmp_path):
    code = f"""
import resource
from pathlib import Path
from mbkit.errors import UserError
from mbkit.recording import Recorder
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
try:
    with Recorder({str(tmp_path)!r}) as recorder:
        for step in range(100):
            recorder.log(step, {{"b": 1.0}})
            recorder.event(step, {{"a": 1.0}})
except UserError as error:
    print(error)
"""
    assert resource.RLIMIT_FSIZE
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.startswith(f"{tmp_path / 'metrics.jsonl'} cannot be written (File too large)")
    assert all(json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())


def test_lines_path_that_is_a_directory_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        Lines(tmp_path)
