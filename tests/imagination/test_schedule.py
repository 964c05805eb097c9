"""Rollout lengths and buffer sizes as the authors' formula gives them."""

import pytest

from mbkit.errors import UserError
from mbkit.imagination.schedule import Schedule

WARMUP = 5000
HOPPER = Schedule(1, 15, (20, 150), 1000, rollouts_per_step=400, retain_epochs=1, fit_every=250, warmup_steps=WARMUP)


@pytest.mark.parametrize(("epoch", "k"), [(0, 1), (20, 1), (29, 1), (30, 2), (85, 8), (149, 14), (150, 15), (900, 15)])
def test_length_grows_linearly_and_is_rounded_down(epoch, k):
    assert HOPPER.length(WARMUP + 1000 * epoch) == k
    assert HOPPER.length(WARMUP + 1000 * epoch + 999) == k  # constant within an epoch
    assert k == int(1 + min(max((epoch - 20) / 130, 0), 1) * 14 + 1e-9)


@pytest.mark.parametrize("steps", [0, 250, 10**7])
def test_length_equal_ends_is_constant(steps):
    assert HOPPER._replace(first=3, last=3).length(WARMUP + steps) == 3


def test_length_last_epoch_is_reached_in_spite_of_rounding():
    for begin in range(5):
        for end in range(begin + 1, 40):
            for last in (2, 7, 25):
                schedule = HOPPER._replace(last=last, epochs=(begin, end), epoch_length=10)
                assert schedule.length(WARMUP + 10 * end) == last


def test_starts_is_rollouts_per_step_times_fit_every():
    assert HOPPER.starts == 100_000


def test_capacity_is_the_authors_formula():
    assert HOPPER.capacity(15) == HOPPER.capacity() == int(15 * 100_000 * 1000 / 250)
    humanoid = HOPPER._replace(last=25, rollouts_per_step=100, retain_epochs=5, fit_every=1000)
    assert humanoid.capacity() == 5 * int(25 * 100_000 * 1000 / 1000)
    assert humanoid.capacity(1) == 5 * 100_000


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"first": 5, "last": 4}, "imagination.final_horizon=4"),
        ({"epochs": (20, 20)}, "imagination.grow_epochs=.20, 20."),
        ({"epochs": (20, 3)}, "imagination.grow_epochs=.20, 3."),
        ({"fit_every": 0}, "loop.fit_every=0"),
        ({"warmup_steps": 0}, "loop.warmup_steps=0"),
    ],
)
def test_check_contradicting_options_are_refused(changes, culprit):
    with pytest.raises(UserError, match=culprit):
        HOPPER._replace(**changes).check()


def test_check_valid_schedule_is_returned():
    assert HOPPER.check() is HOPPER
