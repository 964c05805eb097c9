"""One writer for a run directory."""

import fcntl
import signal
import subprocess
import sys
import threading

import pytest

from mbkit.errors import Interrupted, UserError
from mbkit.recording.lock import FILE, failure, failure_noted, is_training, run_lock

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


def test_is_training_while_the_lock_is_held_and_looking_takes_it_from_nobody(tmp_path):
    assert is_training(tmp_path) is False
    with run_lock(tmp_path):
        assert is_training(tmp_path) is True
    assert is_training(tmp_path) is False
    with run_lock(tmp_path):
        pass


def test_run_lock_waits_for_a_look_from_outside(tmp_path):
    (tmp_path / FILE).touch()
    with open(tmp_path / FILE) as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.03, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        with run_lock(tmp_path):
            pass


@pytest.mark.parametrize(
    ("error", "told"),
    [(UserError("the disk is full"), "the disk is full"), (KeyError("obs"), "KeyError: 'obs'"), (Interrupted("stopped by SIGINT"), "")],
)
def test_failure_is_what_ended_the_run_until_it_goes_on(tmp_path, error, told):
    with pytest.raises(type(error)), run_lock(tmp_path), failure_noted(tmp_path):
        raise error
    assert failure(tmp_path) == told
    with run_lock(tmp_path):
        assert failure(tmp_path) == ""
    assert failure(tmp_path) == ""


def test_failure_noted_leaves_the_lock_as_it_is(tmp_path):
    with run_lock(tmp_path):
        with pytest.raises(UserError), failure_noted(tmp_path):
            raise UserError("it ended")
        assert is_training(tmp_path)
