"""Branched rollouts against transitions listed by hand, gates, and an ensemble with targets on different scales."""

import pytest
import torch

from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.errors import UserError
from mbkit.imagination.branch import Verdict, branch
from mbkit.replay.model_buffer import ModelBuffer
from mbkit.types import EnvSpec, Prediction, Step, Transition

CPU = torch.device("cpu")
SPEC = EnvSpec(2, 1, CPU)


class Counting:
    """obs = (row, time); a row terminates at its own time and breaks at its own time."""

    def __init__(self, ends: dict[int, int] | None = None, breaks: dict[int, int] | None = None) -> None:
        self.ends, self.breaks = ends or {}, breaks or {}

    def init(self, obs):
        return obs

    def step(self, obs, action, predict=False):
        following = obs + torch.tensor([0.0, 1.0])
        row, time = following.nan_to_num(-1).long().unbind(1)
        broken = torch.tensor([self.breaks.get(int(r), 99) <= int(t) for r, t in zip(row, time, strict=True)]) | obs.isnan().any(1)
        terminated = torch.tensor([self.ends.get(int(r), 99) == int(t) for r, t in zip(row, time, strict=True)])
        following = torch.where(broken[:, None], torch.nan, following)
        members = torch.stack([following, following])
        prediction = Prediction(members, torch.ones_like(members)) if predict else None
        return Step(following, following, 10 * following[:, 0] + following[:, 1], terminated, prediction)


def roll(model, rows: int = 4, k: int = 3, gate=None, capacity: int = 100):
    buffer = ModelBuffer(capacity, SPEC)
    start = torch.stack([torch.arange(float(rows)), torch.zeros(rows)], 1)
    counts = branch(model, lambda obs: obs[:, :1] / 10, start, k, buffer, gate)
    return buffer.all(), [int(x) for x in counts]


def stored(rows: Transition) -> list[tuple[int, int]]:
    """(row, time before the step) of every stored transition."""
    return [(int(row), int(t)) for row, t in rows.obs]


def test_branch_stores_every_step_of_every_row_in_order():
    rows, counts = roll(Counting())
    assert stored(rows) == [(row, t) for t in range(3) for row in range(4)]
    assert counts == [12, 12, 0]
    assert torch.equal(rows.next_obs, rows.obs + torch.tensor([0.0, 1.0]))
    assert torch.equal(rows.action, rows.obs[:, :1] / 10)
    assert torch.equal(rows.reward, 10 * rows.next_obs[:, 0] + rows.next_obs[:, 1])
    assert rows.discount.tolist() == [1] * 12  # the end of a rollout is no end of an episode


def test_branch_terminated_rows_have_discount_0_and_store_nothing_more():
    rows, counts = roll(Counting(ends={1: 1, 2: 2}))
    assert stored(rows) == [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (2, 1), (3, 1), (0, 2), (3, 2)]
    assert rows.discount.tolist() == [1, 0, 1, 1, 1, 0, 1, 1, 1]
    assert counts == [9, 9, 0]


def test_branch_rows_that_are_not_finite_are_neither_stored_nor_continued():
    rows, counts = roll(Counting(breaks={0: 1, 3: 2}))
    assert stored(rows) == [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 2), (2, 2)]
    assert all(bool(x.isfinite().all()) for x in rows[:5])
    assert counts == [4 + 3 + 2, 7, 2]


def test_branch_gate_masks_ends_and_penalises():
    def gate(prediction, alive, step, k):
        row = prediction.mean[0, :, 0]
        assert k == 3
        return Verdict(row != 0, (row != 2) | (step > 0), row / 4)  # row 0 is masked but goes on; row 2 ends after its first step

    rows, counts = roll(Counting(ends={3: 2}), gate=gate)
    assert stored(rows) == [(1, 0), (2, 0), (3, 0), (1, 1), (3, 1), (1, 2)]
    assert torch.equal(rows.reward, 10 * rows.next_obs[:, 0] + rows.next_obs[:, 1] - rows.obs[:, 0] / 4)
    assert counts == [4 + 3 + 2, 6, 0]


def test_branch_penalty_that_is_not_finite_stores_nothing():
    rows, _ = roll(Counting(), k=1, gate=lambda p, alive, step, k: Verdict(alive, alive, torch.tensor([0.0, torch.inf, torch.nan, 1.0])))
    assert stored(rows) == [(0, 0), (3, 0)]


def test_branch_asks_for_predictions_only_with_a_gate():
    asked = []

    class Watched(Counting):
        def step(self, obs, action, predict=False):
            asked.append(predict)
            return super().step(obs, action, predict)

    roll(Watched(), k=2)
    roll(Watched(), k=1, gate=lambda p, alive, step, k: Verdict(alive, alive, torch.zeros(4)))
    assert asked == [False, False, True]


def test_branch_gate_without_predictions_names_the_model():
    class Silent(Counting):
        def step(self, obs, action, predict=False):
            return super().step(obs, action)

    with pytest.raises(UserError, match="Silent returns none"):
        roll(Silent(), gate=lambda p, alive, step, k: Verdict(alive, alive, torch.zeros(4)))


def test_branch_shapes_do_not_depend_on_terminations():
    shapes = []

    class Watched(Counting):
        def step(self, obs, action, predict=False):
            shapes.append(tuple(obs.shape))
            return super().step(obs, action, predict)

    roll(Watched(ends=dict.fromkeys(range(4), 1)), k=3)
    assert shapes == [(4, 2)] * 3


SCALES = torch.tensor([1e-2, 1.0, 1e3])


def linear(rows: int) -> Transition:
    """Three coordinates on scales a hundred thousand apart; each follows from the one before it and from the action."""
    obs, action = torch.randn(rows, 3), torch.rand(rows, 1) * 2 - 1
    following = 0.6 * obs.roll(1, 1) + 0.5 * action
    return Transition(obs * SCALES, action, following[:, 0], following * SCALES, torch.ones(rows))


@pytest.mark.parametrize("delta", [True, False])
def test_scale_targets_true_is_accurate_in_every_coordinate_of_the_rollouts(delta):
    torch.manual_seed(0)
    spec, data, errors = EnvSpec(3, 1, CPU), linear(400), {}
    for scaled in (False, True):
        torch.manual_seed(1)
        cfg = EnsembleConfig(
            members=2, elites=2, hidden=(32,), lr=3e-3, batch=64, max_epochs=25, delta=delta, scale_targets=scaled, propagation="ts1"
        )
        model, buffer = Ensemble(spec, cfg), ModelBuffer(500, spec)  # with a learned reward
        model.fit(data)
        torch.manual_seed(2)
        branch(model, lambda obs: torch.rand(len(obs), 1) * 2 - 1, data.obs[:250], 2, buffer)
        rows = buffer.all()
        truth = 0.6 * (rows.obs / SCALES).roll(1, 1) + 0.5 * rows.action
        errors[scaled] = (rows.next_obs / SCALES - truth).square().mean(0).sqrt()
    assert errors[True].max() < 0.5  # in units of each coordinate, whatever its scale
    assert errors[True][0] < 0.5 * errors[False][0]  # raw targets: the smallest coordinate has next to no weight in the loss


def test_branch_k_4_continues_from_step_to_step():
    rows, _ = roll(Counting(), rows=1, k=4)
    assert torch.equal(rows.obs[1:], rows.next_obs[:-1])
