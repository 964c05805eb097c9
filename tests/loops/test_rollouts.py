"""How the model buffer is filled, and what is said where the model or the gate lets nothing through."""

import pytest
import torch
from clocks import ManualClock

from mbkit.config import ModelLoop
from mbkit.errors import UserError
from mbkit.imagination.branch import Verdict
from mbkit.imagination.schedule import Schedule
from mbkit.loops import ModelFits, ModelRollouts
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.model_buffer import ModelBuffer
from mbkit.types import EnvSpec, Prediction, Step

SPEC = EnvSpec(1, 1, torch.device("cpu"))
LOOP = ModelLoop(warmup_steps=6, fit_every=2)
GROWING = Schedule(1, 3, (0, 2), epoch_length=4, rollouts_per_step=5, retain_epochs=1, fit_every=2, warmup_steps=6)


class Line:
    """obs + 1; every row whose place is below `broken` gives numbers that are not finite."""

    def __init__(self, broken: int = 0) -> None:
        self.broken = broken

    def init(self, obs):
        return obs

    def step(self, obs, action, predict=False):
        following = torch.where(torch.arange(len(obs))[:, None] < self.broken, torch.inf, obs + 1)
        members = torch.stack([following, following])
        return Step(
            following, following, following[:, 0], torch.zeros(len(obs), dtype=torch.bool), Prediction(members, torch.ones_like(members))
        )

    def fit(self, data):
        return {}


def filling(model: Line, schedule: Schedule = GROWING, gate=None) -> tuple[ModelRollouts, ModelBuffer, ReplayBuffer]:
    """The hook, its model buffer and its replay of five states."""
    data = ReplayBuffer(100, SPEC)
    zeros, no = torch.zeros(5, 1), torch.zeros(5, dtype=torch.bool)
    data.extend(Experience(zeros, zeros, zeros[:, 0], zeros, no, no))
    buffer = ModelBuffer(1000, SPEC)
    return ModelRollouts(model, lambda obs: obs, data, buffer, schedule, gate), buffer, data


def test_model_rollouts_follow_each_fit_with_the_length_of_the_schedule():
    model = Line()
    hook, buffer, data = filling(model)
    clock, sizes = ManualClock(), []
    clock.run(16, [ModelFits(model, data, LOOP, then=[hook]), lambda clock: sizes.append(len(buffer))])
    rounds = [(step, values) for step, values in clock.recorder.events if "imagination/rows" in values]
    assert [step for step, _ in rounds] == [6, 8, 10, 12, 14, 16]
    assert [values["imagination/horizon"] for _, values in rounds] == [1, 1, 2, 2, 3, 3]  # epochs of 4 steps after the warm-up
    # one epoch's rows are stored: k * 5 starts per step * 4 steps
    assert [values["imagination/rows"] for _, values in rounds] == [10, 20, 40, 40, 60, 60]
    assert sizes[:5] == [0] * 5
    assert all(values["imagination/kept"] == 1 and values["imagination/broken"] == 0 for _, values in rounds)


def test_model_rollouts_of_several_epochs_are_stored():
    model = Line()
    hook, buffer, data = filling(model, GROWING._replace(last=1, epochs=(0, 1), retain_epochs=3))
    ManualClock().run(39, [ModelFits(model, data, LOOP, then=[hook])])
    assert len(buffer) == 3 * 5 * 4


def test_model_rollouts_leave_out_broken_rows_and_record_their_share():
    hook, buffer, _ = filling(Line(broken=4))
    clock = ManualClock(step=6)
    hook(clock)
    assert len(buffer) == 6
    assert clock.recorder.events[0][1]["imagination/broken"] == pytest.approx(0.4)
    assert all(bool(x.isfinite().all()) for x in buffer.all()[:5])


def test_model_rollouts_of_a_diverged_model_are_an_error_that_leaves_the_data_alone():
    hook, buffer, data = filling(Line(broken=6))
    before, clock = [x.clone() for x in data.all()[:5]], ManualClock(step=6)
    with pytest.raises(UserError, match="the model diverged: 6 of 10 model steps are not finite at step 6"):
        hook(clock)
    assert all(torch.equal(x, y) for x, y in zip(before, data.all()[:5], strict=True))
    assert all(bool(x.isfinite().all()) for x in buffer.all()[:5])
    assert not clock.recorder.events


def test_model_rollouts_with_a_gate_that_lets_nothing_pass_are_an_error():
    no = torch.zeros(10, dtype=torch.bool)
    hook, _, _ = filling(Line(), gate=lambda p, alive, step, k: Verdict(no, no, torch.zeros(10)))
    with pytest.raises(UserError, match=r"no model transition is stored at step 6: of 10 offered, 0 are not finite"):
        hook(ManualClock(step=6))


def test_model_rollouts_refuse_more_starts_than_the_buffer_holds():
    with pytest.raises(UserError, match=r"ask for 10000000000 start states at once, but imagination.memory_gb holds 200000000 rows"):
        filling(Line(), GROWING._replace(rollouts_per_step=5 * 10**9))


def test_model_rollouts_beyond_the_memory_are_an_error_in_a_sentence():
    hook, _, data = filling(Line())
    data.sample = lambda n: torch.empty(10**15)
    with pytest.raises(UserError, match=r"a round of model rollouts from 10 states .* needs more memory than the device has") as caught:
        hook(ManualClock(step=6))
    assert "\n" not in str(caught.value)
    data.sample = lambda n: torch.zeros(2) @ torch.zeros(3)
    with pytest.raises(RuntimeError, match="size"):  # a mistake of ours stays one
        hook(ManualClock(step=6))
