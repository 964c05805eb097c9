"""n-step sums against a plain list of rows."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from listed_replay import DISCRETE, SPEC, WRITES, rows, written
from torch import Tensor

from mbkit.replay.buffer import ReplayBuffer
from mbkit.replay.n_step import NStep


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 12), WRITES, st.integers(1, 5))
def test_n_step_at_equals_sums_along_the_episode(capacity: int, script: list[Any], steps: int) -> None:
    buffer, listed = written(capacity, script)
    batch = NStep(buffer, steps, 0.9).at(buffer.order())
    for i, row in enumerate(listed.rows):
        chain = listed.chain(row, steps)
        k = len(chain)
        assert batch.reward[i].item() == pytest.approx(sum(0.9**j * 10 * r["id"] for j, r in enumerate(chain)), rel=1e-5)
        assert batch.discount[i].item() == pytest.approx(0.9 ** (k - 1) * (chain[-1]["end"] != 2))
        assert batch.next_obs[i, 0].item() == chain[-1]["id"] + 0.5
        assert batch.obs[i, 0].item() == row["id"]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), WRITES, st.integers(1, 5), st.booleans())
def test_n_step_bonus_is_added_from_the_second_step_on(capacity: int, script: list[Any], steps: int, discrete: bool) -> None:
    """r_0 + sum_{j >= 1} 0.9^j (r_j + bonus(s_j, a_j)) along the episode; successor and discount are those without it."""
    spec = DISCRETE if discrete else SPEC
    buffer, listed = written(capacity, script, spec)
    plain = NStep(buffer, steps, 0.9).at(buffer.order())
    batch = NStep(buffer, steps, 0.9, lambda obs, action: 100 + obs[:, 0] + action.reshape(-1)).at(buffer.order())
    assert batch.reward.shape == plain.reward.shape
    for i, row in enumerate(listed.rows):
        chain = [r["id"] for r in listed.chain(row, steps)]
        paid = [100 + n + (n % 5 if discrete else n / 1000) for n in chain]
        expected = 10 * chain[0] + sum(0.9**j * (10 * n + paid[j]) for j, n in enumerate(chain) if j)
        assert batch.reward[i].item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(batch.discount, plain.discount)
    assert torch.equal(batch.next_obs, plain.next_obs)


def test_n_step_bonus_is_called_with_stored_rows_only() -> None:
    """The row behind the ring, where masked rows are written, may hold an action that does not exist; no policy is called with it."""
    buffer = ReplayBuffer(8, DISCRETE)
    buffer.extend(rows([1, 2], [0, 0], DISCRETE))
    buffer.extend(rows([3, 4], [0, 0], DISCRETE)._replace(action=torch.tensor([77, 4])), torch.tensor([False, True]))

    def bonus(obs: Tensor, action: Tensor) -> Tensor:
        assert (action < 5).all()
        return action.float()

    assert NStep(buffer, 4, 0.9, bonus).sample(64).reward.isfinite().all()
