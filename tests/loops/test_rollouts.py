"""When the model buffer is filled, with what, and what is said where the model or the gate lets nothing through."""

import pytest
import torch

from mbkit.config import LoopConfig
from mbkit.errors import UserError
from mbkit.imagination.branch import Verdict
from mbkit.imagination.schedule import Schedule
from mbkit.loops import Imagine
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.model_buffer import ModelBuffer
from mbkit.types import EnvSpec, Prediction, Step

SPEC = EnvSpec(1, 1, torch.device("cpu"))
GROWING = Schedule(1, 3, (0, 2), 4)


class Loop:
    """What the hook sees of a loop with one environment."""

    def __init__(self) -> None:
        self.env = type("Env", (), {"num_envs": 1})()
        self.step, self.episode_ended, self.events = 0, False, []
        self.recorder = type("Recorder", (), {"event": lambda _, step, values: self.events.append((step, values))})()

    def passed(self, every: int) -> bool:
        return self.step % every == 0


class Model:
    """obs + 1; every row whose place is below `broken` gives numbers that are not finite."""

    def __init__(self, broken: int = 0) -> None:
        self.broken = broken

    def init(self, obs):
        return obs

    def step(self, obs, action):
        following = torch.where(torch.arange(len(obs))[:, None] < self.broken, torch.inf, obs + 1)
        members = torch.stack([following, following])
        return Step(
            following, following, following[:, 0], torch.zeros(len(obs), dtype=torch.bool), Prediction(members, torch.ones_like(members))
        )


def made(model: Model, starts: int = 10, schedule: Schedule = GROWING, retain: int = 1):
    data = ReplayBuffer(100, SPEC)
    zeros, no = torch.zeros(5, 1), torch.zeros(5, dtype=torch.bool)
    data.extend(Experience(zeros, zeros, zeros[:, 0], zeros, no, no))
    memory = ModelBuffer(1000, SPEC)
    hook = Imagine(model, lambda obs: obs, data, memory, schedule, LoopConfig(warmup_steps=6, fit_every=2), starts)
    hook.retain_epochs = retain
    return hook, memory, data


def test_it_imagines_whenever_a_fit_was_due_with_the_length_of_the_schedule():
    hook, memory, _ = made(Model())
    loop, filled = Loop(), []
    for loop.step in range(1, 17):
        hook(loop)
        filled.append(len(memory))
    assert [step for step, _ in loop.events] == [6, 8, 10, 12, 14, 16]
    assert [values["imagination/horizon"] for _, values in loop.events] == [1, 1, 2, 2, 3, 3]  # epochs of 4 steps after the warm-up
    # one epoch's rows are remembered: k * 5 starts per step * 4 steps
    assert [values["imagination/rows"] for _, values in loop.events] == [10, 20, 40, 40, 60, 60]
    assert filled[:5] == [0] * 5
    assert all(values["imagination/kept"] == 1 and values["imagination/broken"] == 0 for _, values in loop.events)


def test_rows_of_several_epochs_are_remembered():
    hook, memory, _ = made(Model(), schedule=Schedule(1, 1, (0, 1), 4), retain=3)
    loop = Loop()
    for loop.step in range(1, 40):
        hook(loop)
    assert len(memory) == 3 * 5 * 4


def test_some_broken_rows_are_left_out_and_told():
    hook, memory, _ = made(Model(broken=4))
    loop = Loop()
    loop.step = 6
    hook(loop)
    assert len(memory) == 6
    assert loop.events[0][1]["imagination/broken"] == pytest.approx(0.4)
    assert all(bool(x.isfinite().all()) for x in memory.all())


def test_a_diverged_model_is_an_error_that_leaves_the_data_alone():
    hook, memory, data = made(Model(broken=6))
    before, loop = [x.clone() for x in data.all()], Loop()
    loop.step = 6
    with pytest.raises(UserError, match="the model diverged: 6 of 10 imagined steps are not finite at step 6"):
        hook(loop)
    assert all(torch.equal(x, y) for x, y in zip(before, data.all(), strict=True))
    assert all(bool(x.isfinite().all()) for x in memory.all())
    assert not loop.events


def test_a_gate_that_lets_nothing_pass_is_an_error():
    hook, _, _ = made(Model())
    no = torch.zeros(10, dtype=torch.bool)
    hook.gate = lambda p, alive, step, k: Verdict(no, no, torch.zeros(10))
    loop = Loop()
    loop.step = 6
    with pytest.raises(UserError, match="no imagined step is remembered at step 6"):
        hook(loop)


def test_states_that_do_not_fit_are_an_error_in_a_sentence():
    with pytest.raises(UserError, match=r"ask for 10000000000 start states at once, but imagination.memory_gb holds 200000000 rows"):
        made(Model(), starts=10**10)
    hook, _, data = made(Model())
    loop = Loop()
    loop.step = 6

    def sample(n):
        torch.empty(10**15)

    data.sample = sample
    with pytest.raises(UserError, match=r"imagining from 10 states at once .* needs more memory than the device has") as caught:
        hook(loop)
    assert "\n" not in str(caught.value)
    data.sample = lambda n: torch.zeros(2) @ torch.zeros(3)
    with pytest.raises(RuntimeError, match="size"):  # a mistake of ours stays one
        hook(loop)
