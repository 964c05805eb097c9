"""How often an agent is updated, on what, and how a diverged one is named."""

import pytest
import torch
from clocks import ManualClock

from mbkit.config import FreshLoop, OfflineLoop, ReplayLoop
from mbkit.errors import UserError
from mbkit.loops import Updates
from mbkit.loops.updates import Cadence

CPU = torch.device("cpu")


class Counting:
    """A learner that counts its updates; its loss is NaN from the 50th on."""

    cycle = 1

    def __init__(self) -> None:
        self.updates = 0

    def update(self, batch):
        self.updates += 1
        return {"critic/loss": torch.tensor(0.0 if self.updates < 50 else torch.nan)}


class Sizes:
    """A source that lists the sizes of the batches drawn from it."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def sample(self, n):
        self.sizes.append(n)


@pytest.mark.parametrize(("rate", "num_envs", "expected"), [(1.0, 1, 20), (0.25, 1, 5), (2.0, 3, 40), (0.1, 1, 2), (0.3, 4, 6)])
def test_updates_per_step_counts_from_the_end_of_the_warm_up(rate, num_envs, expected):
    """After the warm-up of 10 steps, until the first step at or beyond 30."""
    clock, agent, source = ManualClock(num_envs), Counting(), Sizes()
    cfg = ReplayLoop(warmup_steps=10, updates_per_step=rate, num_envs=num_envs, batch_size=32)
    clock.run(30, [Updates("toy", agent, source, cfg, CPU)])
    assert agent.updates == expected
    assert source.sizes == [32] * expected


@pytest.mark.parametrize(("rate", "num_envs", "expected"), [(4, 1, 40), (0.25, 1, 2), (2.5, 3, 27), (None, 1, 30), (0, 1, 0)])
def test_updates_rate_replaces_updates_per_step(rate, num_envs, expected):
    clock, agent = ManualClock(num_envs), Counting()
    clock.run(20, [Updates("toy", agent, Sizes(), ReplayLoop(warmup_steps=10, updates_per_step=3), CPU, rate=rate)])
    assert agent.updates == expected  # (20 - 10) rate, or (21 - 10) rate rounded down


def test_updates_of_fresh_transitions_need_no_warm_up():
    clock, agent = ManualClock(), Counting()
    clock.run(8, [Updates("toy", agent, Sizes(), FreshLoop(updates_per_step=0.5), CPU)])
    assert agent.updates == 4


def test_updates_prefix_begins_the_names_of_metrics():
    clock = ManualClock()
    clock.run(1, [Updates("toy", Counting(), Sizes(), FreshLoop(), CPU, prefix="model_updates/")])
    ((step, metrics),) = clock.recorder.logs
    assert step == 1
    assert set(metrics) == {"model_updates/critic/loss", "model_updates/updates_per_second"}


def test_updates_diverged_agent_is_named_once_per_log_every():
    clock, agent = ManualClock(), Counting()
    hook = Updates("toy", agent, Sizes(), ReplayLoop(warmup_steps=0, log_every=20), CPU)
    clock.run(59, [hook])
    with pytest.raises(UserError, match="toy diverged: critic/loss is nan at step 60, expected a finite number"):
        clock.run(60, [hook])


def test_updates_batch_larger_than_the_memory_is_named():
    source = Sizes()
    source.sample = lambda n: torch.empty(10**15)
    with pytest.raises(UserError, match=r"an update of loop.batch_size=7 rows needs more memory"):
        ManualClock().run(1, [Updates("toy", Counting(), source, FreshLoop(batch_size=7), CPU)])


@pytest.mark.parametrize(("rate", "warmup", "at_once", "expected"), [(1, 0, 1, 10), (0.3, 0, 1, 3), (1, 4, 4, 4), (1, 20, 1, 0)])
def test_cadence_due_is_in_groups_and_never_negative(rate, warmup, at_once, expected):
    assert Cadence(rate, warmup, at_once).due(10) == expected


def test_only_the_last_of_several_updates_at_once_measures():
    agent, measured = Counting(), []
    agent.update = lambda batch: measured.append(agent.measures) or {"critic/loss": torch.zeros(())}
    hook = Updates("toy", agent, Sizes(), OfflineLoop(updates_at_once=4), CPU)
    ManualClock(4).run(8, [hook])
    assert measured == [False, False, False, True] * 2
