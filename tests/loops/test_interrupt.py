"""Signals stop a run after a whole step; a second Ctrl-C stops at once."""

import os
import signal
import threading
import time

import gymnasium
import pytest
import torch
from episodes import Counting

from mbkit import envs
from mbkit.loops import interrupt
from mbkit.loops.interrupt import Interrupted, interrupted, interruptible

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


class Hanging(Counting):
    """Its second step never comes back."""

    def step(self, action):
        while self.t == 1:
            time.sleep(0.01)
        return super().step(action)


gymnasium.register("tests/Hanging-v0", Hanging)


def step_a_hanging_environment_and_send(*numbers: int):
    later(*numbers)
    env = envs.make("tests/Hanging-v0")
    env.reset()
    for _ in range(5):
        env.step(torch.zeros(1, 1))


def later(*numbers: int) -> None:
    """Sends these signals to this process, 0.1 s apart."""

    def send():
        for number in numbers:
            time.sleep(0.1)
            os.kill(os.getpid(), number)

    threading.Thread(target=send).start()


def test_interruptible_first_ctrl_c_says_that_one_more_stops_an_environment_that_hangs(capsys):
    with interruptible() as caught, pytest.raises(KeyboardInterrupt):
        step_a_hanging_environment_and_send(signal.SIGINT, signal.SIGINT)
    assert caught == ["SIGINT"]
    assert capsys.readouterr().err == "\nmbkit: SIGINT: stopping after this step; one more Ctrl-C stops at once\n"


def test_interruptible_sigterm_ends_an_environment_that_hangs(monkeypatch):
    monkeypatch.setattr(interrupt, "PATIENCE", 0.2)
    alarm = signal.getsignal(signal.SIGALRM)
    with interruptible() as caught, pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        step_a_hanging_environment_and_send(signal.SIGTERM)
    assert caught == ["SIGTERM"]
    assert signal.getsignal(signal.SIGALRM) is alarm
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_interruptible_sigterm_waits_for_what_is_no_environment(monkeypatch):
    monkeypatch.setattr(interrupt, "PATIENCE", 0.05)
    with interruptible() as caught:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)  # a fit of the model
    assert caught == ["SIGTERM"]


@pytest.mark.parametrize(("stop", "name"), [(KeyboardInterrupt(), "SIGINT"), (KeyboardInterrupt("SIGTERM"), "SIGTERM")])
def test_interrupted_says_how_to_go_on(stop, name):
    with pytest.raises(Interrupted, match=f"stopped by {name}: try again"), interrupted(lambda: "try again"):
        raise stop
