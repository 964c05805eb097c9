"""On-policy data: a row is used at most once, whatever the number of environments and the rate; and mistakes are named."""

import pytest
import torch

from mbkit import recipes
from mbkit.config import FreshLoop, compose
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.loops.updates import Cadence
from mbkit.recipes import fresh
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.windows import Newest
from mbkit.types import EnvSpec

SPEC = EnvSpec(1, 1, torch.device("cpu"))


def used(num_envs: int, batch_size: int, rate: float) -> list[float]:
    """Numbers of the rows that an agent is updated on, over 200 steps of all environments."""
    buffer, numbers, step = ReplayBuffer(max(batch_size, num_envs), SPEC), [], 0
    source, due = Newest(buffer), Cadence(rate).due
    for _ in range(200):
        rows = torch.arange(step, step + num_envs, dtype=torch.float32)
        no = torch.zeros(num_envs, dtype=torch.bool)
        buffer.extend(Experience(rows[:, None], rows[:, None] * 0, rows, rows[:, None], no, no))
        for _ in range(due(step + num_envs) - due(step)):
            numbers += source.sample(batch_size).obs[:, 0].tolist()
        step += num_envs
    return numbers


@pytest.mark.parametrize("num_envs", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("batch_size", [1, 4, 8])
@pytest.mark.parametrize("rate", [1.0, 0.5, 0.125, 1 / 3, 0.1, 0.03])
def test_check_accepts_what_uses_no_row_twice_and_refuses_what_would(num_envs, batch_size, rate):
    loop = FreshLoop(num_envs=num_envs, batch_size=batch_size, updates_per_step=rate)
    rows = used(num_envs, batch_size, rate)
    if len(rows) == len(set(rows)):
        fresh.check("toy", loop)
    else:
        with pytest.raises(UserError, match=r"from each transition once"):
            fresh.check("toy", loop)


def wired(*options: str):
    return recipes.build(compose("dpg", ["env=Pendulum-v1", "agent.hidden=[8]", *options]), make("Pendulum-v1"))


@pytest.mark.parametrize("num_envs", [3, 5])
def test_fresh_three_or_five_environments_would_use_rows_twice(num_envs):
    rate = ["loop.batch_size=8", "loop.updates_per_step=0.125"]
    with pytest.raises(UserError, match=f"as few as {6 if num_envs == 3 else 5} are new each time; .*loop.num_envs, now {num_envs}"):
        wired(f"loop.num_envs={num_envs}", *rate)


def test_fresh_without_updates_uses_nothing():
    assert wired("loop.updates_per_step=0").hooks[0].cadence.due(10_000) == 0


def test_fresh_stores_the_newest_transitions_only():
    x = wired("loop.num_envs=4", "loop.batch_size=12", "loop.updates_per_step=0.0625")
    assert x.store.capacity == 12
    assert isinstance(x.hooks[0].source, Newest)
    assert x.hooks[0].source.buffer is x.store


def test_fresh_more_rewards_than_a_newest_row_has_are_refused():
    with pytest.raises(
        UserError, match=r"loop\.n_step has no meaning for dpg, which learns from its newest transitions; of loop\.\* these have one"
    ):
        wired("loop.n_step=2")
