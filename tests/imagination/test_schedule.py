"""Rollout lengths and buffer sizes as the authors' formula gives them."""

import pytest

from mbkit.errors import UserError
from mbkit.imagination.schedule import Schedule

HOPPER = Schedule(1, 15, (20, 150), 1000)


@pytest.mark.parametrize(("epoch", "k"), [(0, 1), (20, 1), (29, 1), (30, 2), (85, 8), (149, 14), (150, 15), (900, 15)])
def test_rollouts_grow_linearly_and_are_rounded_down(epoch, k):
    assert HOPPER.length(1000 * epoch) == k
    assert HOPPER.length(1000 * epoch + 999) == k  # constant within an epoch
    assert k == int(1 + min(max((epoch - 20) / 130, 0), 1) * 14 + 1e-9)


@pytest.mark.parametrize("steps", [0, 250, 10**7])
def test_equal_ends_stay_equal(steps):
    assert Schedule(3, 3, (20, 150), 1000).length(steps) == 3


def test_the_whole_length_is_reached_in_spite_of_rounding():
    for begin in range(5):
        for end in range(begin + 1, 40):
            for last in (2, 7, 25):
                assert Schedule(1, last, (begin, end), 10).length(10 * end) == last


def test_what_is_remembered_is_the_authors_formula():
    assert HOPPER.remembered(15, 400, 1) == int(15 * 100_000 * 1000 / 250)
    assert HOPPER.remembered(25, 100, 5) == 5 * int(25 * 100_000 * 1000 / 1000)
    assert HOPPER.remembered(1, 1e-9, 1) == 1  # at least one row


@pytest.mark.parametrize(
    ("schedule", "culprit"),
    [
        (Schedule(5, 4, (1, 2), 10), "imagination.final_horizon=4"),
        (Schedule(1, 4, (20, 20), 10), "imagination.grow_epochs=.20, 20."),
        (Schedule(1, 4, (20, 3), 10), "imagination.grow_epochs=.20, 3."),
    ],
)
def test_schedules_that_make_no_sense_are_refused(schedule, culprit):
    with pytest.raises(UserError, match=culprit):
        schedule.check()
