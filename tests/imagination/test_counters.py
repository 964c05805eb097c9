"""Counters: sums by name, read once."""

import torch

from mbkit.imagination.counters import Counters


def counts(*numbers: int) -> list[torch.Tensor]:
    return [torch.tensor(n) for n in numbers]


def test_take_returns_the_sums_since_the_last_call():
    counters = Counters("asked", "broken")
    counters.add(*counts(8, 1))
    counters.add(*counts(4, 0))
    assert counters.take() == {"asked": 12.0, "broken": 1.0}
    assert counters.take() == {"asked": 0.0, "broken": 0.0}


def test_add_large_counts_are_exact():
    counters = Counters("rows")
    for n in (2**40, 1):  # beyond what float32 can hold
        counters.add(*counts(n))
    assert counters.take() == {"rows": 2**40 + 1}


def test_state_dict_round_trip_is_a_copy_loaded_in_place():
    counters, other = Counters("rows"), Counters("rows")
    counters.add(*counts(3))
    state, values = counters.state_dict(), other.values
    counters.add(*counts(4))
    other.load_state_dict(state)
    assert other.values is values
    assert other.take() == {"rows": 3.0}
    assert counters.take() == {"rows": 7.0}
