"""The clock's cadence, and the hooks that only forward calls."""

import pytest
from clocks import ManualClock

from mbkit.loops import Clock, Every, Until


def test_passed_counts_a_multiple_that_a_stride_jumps_over():
    clock, steps = ManualClock(stride=3), []
    while clock.step < 24:
        clock.advance()
        if clock.passed(5):
            steps.append(clock.step)
    assert steps == [6, 12, 15, 21]
    assert not clock.passed(0)


def test_every_runs_at_each_multiple_once_and_0_is_never():
    steps, clock = [], ManualClock(stride=3)
    clock.run(24, [Every(5, lambda: steps.append(clock.step)), Every(0, lambda: steps.append(-1))])
    assert steps == [6, 12, 15, 21]


def test_run_asks_stop_after_whole_strides():
    clock = ManualClock(stride=2)
    clock.stop = lambda: clock.step >= 8
    clock.run(100, [])
    assert clock.step == 8


def test_run_calls_hooks_in_order_after_every_stride():
    calls, clock = [], ManualClock(stride=2)
    clock.run(4, [lambda c: calls.append(("first", c.step)), lambda c: calls.append(("second", c.step))])
    assert calls == [("first", 2), ("second", 2), ("first", 4), ("second", 4)]


def test_until_changes_hooks_after_its_step():
    calls = []
    until = Until(3, [lambda clock: calls.append(("before", clock.step))], [lambda clock: calls.append(("after", clock.step))])
    for step in (1, 3, 4, 6):
        until(ManualClock(step=step))
    assert calls == [("before", 1), ("before", 3), ("after", 4), ("after", 6)]


def test_clock_leaves_the_stride_to_the_loop():
    with pytest.raises(NotImplementedError):
        Clock(1).advance()
