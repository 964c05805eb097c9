"""Writing in place against scattering: every tensor of the buffer must be the same."""

from copy import deepcopy
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from listed_replay import DISCRETE, SPEC, WRITES, rows

from mbkit.replay import buffer as module
from mbkit.replay.buffer import ReplayBuffer
from mbkit.replay.in_place import FEW, written_in_place
from mbkit.types import EnvSpec


def scattered(buffer: ReplayBuffer, *arguments: Any) -> None:
    """`extend` by the general path."""
    with patch.object(module, "written_in_place", lambda *_: False):
        buffer.extend(*arguments)


def assert_same(one: ReplayBuffer, other: ReplayBuffer) -> None:
    assert one.offered == other.offered
    for name, value in one.state_dict().items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(other.state_dict()[name])), name


@settings(max_examples=100, deadline=None)
@given(capacity=st.integers(4, 12), script=WRITES, discrete=st.booleans())
def test_written_in_place_equals_scattering(capacity: int, script: list[Any], discrete: bool) -> None:
    spec = DISCRETE if discrete else SPEC
    fast, general, number = ReplayBuffer(capacity, spec), ReplayBuffer(capacity, spec), 0
    for steps, column, masked in script:
        batch = rows(list(range(number, number + len(steps))), [end for end, _ in steps], spec)
        mask = torch.tensor([valid for _, valid in steps]) if masked else None
        number += len(steps)
        fast.extend(batch, mask, column)
        scattered(general, batch, mask, column)
        assert_same(fast, general)


@pytest.mark.parametrize("spec", [SPEC, DISCRETE], ids=["continuous", "discrete"])
def test_written_in_place_host_rows_after_a_first_write_is_used(spec: EnvSpec) -> None:
    buffer = ReplayBuffer(8, spec)
    assert not written_in_place(buffer, rows([0, 1], [0, 0], spec), None)  # no column is known yet
    buffer.extend(rows([0, 1], [0, 0], spec))
    assert written_in_place(buffer, rows([2, 3], [0, 2], spec), None)


@pytest.mark.parametrize("case", ["masked", "across the end", "many rows", "other widths"])
def test_written_in_place_other_cases_write_nothing(case: str) -> None:
    buffer, first = ReplayBuffer(50, SPEC), rows(list(range(FEW + 1)), [0] * (FEW + 1))
    buffer.extend(first)
    before = deepcopy(buffer)
    batch, mask = {
        "masked": (rows([1, 2], [0, 0]), torch.tensor([True, False])),
        "across the end": (rows(list(range(20)), [0] * 20), None),
        "many rows": (first, None),
        "other widths": (rows([1], [0])._replace(obs=torch.zeros(1, 3)), None),
    }[case]
    assert not written_in_place(buffer, batch, mask)
    assert_same(buffer, before)
