"""Signals stop a run after a whole step; a second Ctrl-C stops at once."""

import os
import signal
import threading

import pytest

from mbkit.loops.interrupt import interruptible

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", SIGNALS)
def test_interruptible_collects_the_name_and_restores_the_handlers(number):
    before = [signal.getsignal(n) for n in SIGNALS]
    with interruptible() as caught:
        assert caught == []
        os.kill(os.getpid(), number)
        assert caught == [number.name]
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_interruptible_second_ctrl_c_stops_at_once():
    before = [signal.getsignal(n) for n in SIGNALS]
    with interruptible() as caught:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert caught == ["SIGINT"]
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_interruptible_outside_the_main_thread_leaves_signals_to_the_caller():
    caught = []

    def work():
        with interruptible() as names:
            caught.append((names, signal.getsignal(signal.SIGINT)))

    thread, before = threading.Thread(target=work), signal.getsignal(signal.SIGINT)
    thread.start()
    thread.join()
    assert caught == [([], before)]
