"""When a model is fitted, what precedes and follows a fit, and when a model counts as diverged."""

from types import SimpleNamespace

import pytest
import torch
from clocks import ManualClock

from mbkit.config import ModelLoop, PlanLoop
from mbkit.errors import UserError
from mbkit.imagination.counters import Counters
from mbkit.loops import CountersRead, ModelFits, PlanScores
from mbkit.loops.model import check_model


class Fitted:
    """A model that lists the data of its fits, and the replay it is fitted to."""

    def __init__(self) -> None:
        self.fits: list[str] = []

    def all(self):
        return "data"

    def fit(self, data):
        self.fits.append(data)
        return {"model/loss": torch.tensor(0.5)}


def steps_of_calls(calls: list[int]):
    """A hook that lists the steps of its calls."""
    return lambda clock: calls.append(clock.step)


@pytest.mark.parametrize(
    ("every", "num_envs", "ends", "expected"),
    [
        (0, 1, {5, 12, 20}, [10, 12, 20]),  # when the warm-up is over, then at the end of each episode
        (0, 1, {10, 20}, [10, 20]),  # an episode that ends with the warm-up is fitted once
        (4, 1, {15}, [10, 12, 16, 20]),  # every fourth step, whatever the episodes do
        (5, 3, set(), [12, 15, 21]),  # strides that jump over a multiple count as reaching it
    ],
)
@pytest.mark.parametrize("loop", [ModelLoop, PlanLoop])
def test_model_fits_are_due_after_the_warm_up_then_at_their_cadence(loop, every, num_envs, ends, expected):
    clock, model = ManualClock(num_envs, ends), Fitted()
    clock.run(20, [ModelFits(model, model, loop(warmup_steps=10, fit_every=every))])
    assert [step for step, _ in clock.recorder.events] == expected
    assert model.fits == ["data"] * len(expected)
    assert all(set(values) == {"model/loss", "time/fit_seconds"} for _, values in clock.recorder.events)


def test_model_fits_calls_first_before_and_then_after_each_fit():
    clock, model, fits = ManualClock(), Fitted(), []
    hook = lambda clock: fits.append((clock.step, len(model.fits)))  # noqa: E731
    clock.run(9, [ModelFits(model, model, ModelLoop(warmup_steps=3, fit_every=4), first=[hook], then=[hook])])
    assert fits == [(3, 0), (3, 1), (4, 1), (4, 2), (8, 2), (8, 3)]


def test_model_fits_fit_false_calls_the_others_and_fits_nothing():
    clock, model, before, after = ManualClock(), Fitted(), [], []
    cfg = ModelLoop(warmup_steps=3, fit_every=4, fit=False)
    clock.run(9, [ModelFits(model, model, cfg, [steps_of_calls(before)], [steps_of_calls(after)])])
    assert model.fits == []
    assert before == after == [3, 4, 8]


@pytest.mark.parametrize(("broken", "asked"), [(0, 0), (0, 10), (5, 10)])
def test_check_model_up_to_half_of_the_answers_may_break(broken, asked):
    check_model(broken, asked, "model steps", 7)


def test_check_model_most_answers_broken_is_an_error():
    with pytest.raises(UserError, match=r"the model diverged: 6 of 10 targets are not finite at step 7, .* a smaller dynamics.lr is safer"):
        check_model(6, 10, "targets", 7, safer="dynamics.lr")


def test_counters_read_records_shares_since_the_last_call():
    counters, clock = Counters("rows", "steps", "asked", "broken"), ManualClock(step=5)
    hook = CountersRead(counters, "targets", "dynamics.lr")
    hook(clock)  # nothing was asked
    assert clock.recorder.events == []
    counters.add(*map(torch.tensor, (10, 25, 40, 10)))
    hook(clock)
    assert clock.recorder.events == [(5, {"imagination/broken": 0.25, "imagination/steps": 2.5})]
    hook(clock)
    assert len(clock.recorder.events) == 1


def test_counters_read_most_answers_broken_is_an_error():
    counters = Counters("asked", "broken")
    counters.add(torch.tensor(32), torch.tensor(32))
    with pytest.raises(UserError, match="the model diverged: 32 of 32 model steps are not finite at step 30"):
        CountersRead(counters, "model steps", "dynamics.lr")(ManualClock(step=30))


def planning(score: list[float] | None) -> SimpleNamespace:
    """An actor whose plans have this score [M], or that has none yet."""
    return SimpleNamespace(score=None if score is None else torch.tensor(score))


def test_plan_scores_are_logged_after_the_warm_up_once_there_is_a_plan():
    clock, actor = ManualClock(ends={6}), planning(None)
    hook = PlanScores(actor, PlanLoop(warmup_steps=3))
    clock.run(4, [hook])
    actor.score = torch.tensor([1.0, 3.0])
    clock.run(7, [hook])
    assert clock.recorder.logs == [(5, {"plan/score": 2.0}), (7, {"plan/score": 2.0})]  # at 6 the plan's episode had just ended


def test_plan_scores_without_a_finite_one_end_the_run_at_log_every():
    clock = ManualClock()
    hook = PlanScores(planning([-torch.inf, 1.0, -torch.inf]), PlanLoop(warmup_steps=0, log_every=5))
    clock.run(4, [hook])
    with pytest.raises(UserError, match=r"the model diverged: 2 of 3 plans' scores are not finite at step 5"):
        clock.run(5, [hook])


def test_plan_scores_that_were_dropped_are_read_a_step_later():
    clock = ManualClock(ends={5})
    hook = PlanScores(planning([-torch.inf]), PlanLoop(warmup_steps=0, log_every=5))
    clock.run(5, [hook])
    with pytest.raises(UserError, match=r"1 of 1 plans' scores are not finite at step 6"):
        clock.run(6, [hook])
