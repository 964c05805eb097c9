"""One writer for a run directory."""

import signal
import subprocess
import sys

import pytest

from mbkit.errors import UserError
from mbkit.recording.lock import FILE, run_lock

HOLDER = """
import sys, time
from mbkit.recording.lock import run_lock
with run_lock(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_run_lock_second_is_refused_and_names_the_process(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match=f"is being trained by process {holder.pid} on "), run_lock(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)  # and its lock is gone, whatever the file says
    holder.wait()
    holder.stdout.close()
    assert str(holder.pid) in (tmp_path / FILE).read_text()
    with run_lock(tmp_path):
        pass


def test_run_lock_is_free_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path):
        raise ZeroDivisionError
    with run_lock(tmp_path), pytest.raises(UserError, match="is being trained by"), run_lock(tmp_path):
        pass


def test_run_lock_of_a_directory_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be written to"), run_lock(tmp_path / "nowhere"):
        pass
