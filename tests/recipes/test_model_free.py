"""On-policy data: a row is used at most once, whatever the number of environments and the rate; and mistakes are named."""

import pytest
import torch

from mbkit import envs
from mbkit.config import LoopConfig, compose
from mbkit.errors import UserError
from mbkit.loops import Updates
from mbkit.recipes import model_free
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.windows import Newest
from mbkit.types import EnvSpec

SPEC = EnvSpec(1, 1, torch.device("cpu"))


def used(num_envs: int, batch_size: int, rate: float) -> list[float]:
    """Numbers of the rows that an agent is updated with, over 200 steps of all environments; the rows before the first are -1."""
    buffer, seen, step = ReplayBuffer(10_000, SPEC), [], 0
    source = Newest(buffer)
    due = Updates(object(), source, LoopConfig(warmup_steps=0), SPEC.device, rate=rate).due
    for _ in range(200):
        rows = torch.arange(step, step + num_envs, dtype=torch.float32)
        no = torch.zeros(num_envs, dtype=torch.bool)
        buffer.extend(Experience(rows[:, None], rows[:, None] * 0, rows, rows[:, None], no, no))
        for _ in range(due(step + num_envs) - due(step)):
            seen += source.sample(batch_size).obs[:, 0].tolist()
        step += num_envs
    return seen


@pytest.mark.parametrize("num_envs", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("batch_size", [1, 4, 8])
@pytest.mark.parametrize("rate", [1.0, 0.5, 0.125, 1 / 3, 0.1, 0.03])
def test_what_is_accepted_uses_no_row_twice_and_what_is_refused_would(num_envs, batch_size, rate):
    cfg = LoopConfig(warmup_steps=0, num_envs=num_envs, batch_size=batch_size, updates_per_step=rate)
    rows = used(num_envs, batch_size, rate)
    if len(rows) == len(set(rows)):
        model_free.on_policy_data("toy", cfg, ReplayBuffer(10, SPEC), 0.9)
    else:
        with pytest.raises(UserError, match=r"from each transition once"):
            model_free.on_policy_data("toy", cfg, ReplayBuffer(10, SPEC), 0.9)


@pytest.mark.parametrize("num_envs", [3, 5])
def test_three_or_five_environments_would_use_rows_twice(num_envs):
    with pytest.raises(UserError, match=f"as few as {6 if num_envs == 3 else 5} are new each time; .*loop.num_envs, now {num_envs}"):
        model_free.build(compose("dpg", ["env=Pendulum-v1", f"loop.num_envs={num_envs}"]), envs.make("Pendulum-v1"))


def test_without_updates_nothing_is_used():
    parts = model_free.build(compose("dpg", ["env=Pendulum-v1", "loop.updates_per_step=0"]), envs.make("Pendulum-v1"))
    assert parts.hooks[0].due(10_000) == 0


def test_more_rewards_than_a_newest_row_has_are_refused():
    with pytest.raises(UserError, match=r"loop.n_step=2: dpg learns from the newest transitions, .* expected 1"):
        model_free.build(compose("dpg", ["env=Pendulum-v1", "loop.n_step=2"]), envs.make("Pendulum-v1"))
