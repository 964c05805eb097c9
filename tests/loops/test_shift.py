"""The measures of the shift against counted rows."""

import torch
from clocks import ManualClock
from recorded import dataset

from mbkit.loops.shift import Shift
from mbkit.replay.recorded import RecordedRows


class Constant:
    """An agent that always chooses one action, whose Q is the sum of the action's numbers, or its number."""

    def __init__(self, action: torch.Tensor) -> None:
        self.action = action

    def act(self, obs: torch.Tensor, explore: bool = True) -> torch.Tensor:
        assert not explore
        return self.action.expand(len(obs), *self.action.shape)

    def backup_q(self, obs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        q = action.float() if action.ndim == 1 else action.sum(1)
        return torch.stack([q, q + 1])

    def value(self, obs: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(obs))


def measured(action: torch.Tensor, choices: int = 0) -> dict[str, float]:
    data = dataset([5, 7, 6], choices)
    rows = RecordedRows(data.buffer(data.spec()))
    clock = ManualClock()
    clock.run(10, [Shift(Constant(action), rows, log_every=5)])  # type: ignore[arg-type]
    assert [step for step, _ in clock.recorder.logs] == [5, 10]
    expected = rows.all().action.float().reshape(18, -1).sum(1).mean()
    metrics = clock.recorder.logs[-1][1]
    metrics["critic/overestimation"] += float(expected)
    return metrics


def test_q_of_the_policy_less_q_of_the_data() -> None:
    assert abs(measured(torch.tensor([0.5, 0.25]))["critic/overestimation"] - 0.75) < 1e-5
    assert abs(measured(torch.tensor(2), choices=4)["critic/overestimation"] - 2) < 1e-5


def test_actions_that_no_row_resembles_are_beyond_the_data() -> None:
    assert measured(torch.tensor([0.0, 0.0]))["actor/outside_support"] == 0
    assert measured(torch.tensor([0.0, 1.1]))["actor/outside_support"] == 1
    assert measured(torch.tensor(3), choices=4)["actor/outside_support"] == 0
    assert measured(torch.tensor(5), choices=6)["actor/outside_support"] == 0
    data = dataset([2, 2], choices=6)  # of which two were never taken
    shift = Shift(Constant(torch.tensor(5)), RecordedRows(data.buffer(data.spec())), 1)  # type: ignore[arg-type]
    assert shift.beyond(torch.tensor([0, 3, 5])).tolist() == [False, False, True]
