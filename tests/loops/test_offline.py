"""The offline loop: strides of updates, the rest at the end, schedules, and the same hooks as online."""

from collections.abc import Callable

import pytest
import torch
from clocks import StoredMetrics

from mbkit.config import OfflineLoop
from mbkit.loops import Every, Offline, Updates
from mbkit.types import Metrics, Transition


class Counting:
    """A learner that counts its updates, and the shares of the run that it was told of."""

    cycle = 1

    def __init__(self) -> None:
        self.updates, self.shares = 0, list[float]()

    def update(self, batch: Transition) -> Metrics:
        self.updates += 1
        return {"critic/loss": torch.tensor(float(self.updates))}

    def anneal(self, remaining: float) -> None:
        self.shares.append(remaining)


class Nothing:
    """A source of empty batches."""

    def sample(self, n: int) -> Transition:
        return Transition(*torch.zeros(5, n))


def run(steps: int, at_once: int, until: int | None = None, hook: Callable[[], None] = lambda: None) -> tuple[Offline, Counting]:
    """A loop of `steps` updates, with a hook every 10 of them."""
    clock, agent = Offline(steps, at_once), Counting()
    clock.recorder = StoredMetrics()
    cfg = OfflineLoop(batch_size=2, updates_at_once=at_once)
    clock.run(until or steps, [Updates("toy", agent, Nothing(), cfg, torch.device("cpu"), steps=steps), Every(10, hook)])
    return clock, agent


@pytest.mark.parametrize(("steps", "at_once"), [(30, 1), (30, 7), (5, 7), (1, 1), (64, 8)])
def test_every_update_is_made_whatever_the_stride(steps: int, at_once: int) -> None:
    clock, agent = run(steps, at_once)
    assert (clock.step, agent.updates) == (steps, steps)
    assert agent.shares == pytest.approx([1 - begin / steps for begin in range(0, steps, at_once)])


def test_a_hook_is_called_for_every_multiple_that_a_stride_passes() -> None:
    calls = list[int]()
    run(35, 7, hook=lambda: calls.append(1))
    assert len(calls) == 3  # at 14, 21 and 35, past 10, 20 and 30


def test_state_goes_on_where_it_was_taken() -> None:
    first, _ = run(40, 7, until=14)
    second = Offline(40, 7)
    second.load_state_dict(first.state_dict())
    second.recorder = StoredMetrics()
    agent = Counting()
    second.run(40, [Updates("toy", agent, Nothing(), OfflineLoop(updates_at_once=7), torch.device("cpu"), steps=40)])
    assert (first.step, second.step, agent.updates) == (14, 40, 26)
    assert agent.shares[0] == pytest.approx(1 - 14 / 40)
