"""Values in a model against closed forms, and the intervals of estimates."""

import math

import pytest
import torch
from line_model import Line

from mbkit.diagnostics.intervals import resampled
from mbkit.diagnostics.model_value import first_states, model_value
from mbkit.errors import UserError

RIGHT = lambda obs: torch.ones(len(obs), 1)  # noqa: E731


@pytest.mark.parametrize("horizon", [1, 3])
def test_discounted_return_by_hand(horizon: int) -> None:
    obs = torch.tensor([[0.0], [0.2]])
    value = model_value(Line(target=0.5), RIGHT, obs, horizon, 0.9, paths=4)
    expected = [sum(-(0.9**t) * (start + 0.1 * (t + 1) - 0.5) ** 2 for t in range(horizon)) for start in (0.0, 0.2)]
    torch.testing.assert_close(value, torch.tensor([expected] * 4))


def test_a_terminated_path_earns_nothing_more() -> None:
    value = model_value(Line(target=0, edge=0.15), RIGHT, torch.zeros(1, 1), 10, 0.5, beyond=lambda obs: torch.full((len(obs),), 99.0))
    torch.testing.assert_close(value, torch.full((10, 1), -(0.1**2) - 0.5 * 0.2**2))


def test_the_value_beyond_the_horizon() -> None:
    value = model_value(Line(target=0), RIGHT, torch.zeros(1, 1), 2, 0.5, beyond=lambda obs: 100 * obs[:, 0], paths=1)
    torch.testing.assert_close(value, torch.tensor([[-0.01 - 0.5 * 0.04 + 0.25 * 20]]))


def test_a_return_that_is_not_finite() -> None:
    with pytest.raises(UserError, match="left the finite numbers"):
        model_value(Line(), lambda obs: torch.full((len(obs), 1), float("inf")), torch.zeros(1, 1), 3, 0.9)


def test_first_states_are_spread_evenly() -> None:
    assert first_states(torch.arange(9.0)[:, None], 5)[:, 0].tolist() == [0, 2, 4, 6, 8]
    assert len(first_states(torch.zeros(7, 2), 7)) == 7


def test_interval_of_normal_values() -> None:
    torch.manual_seed(0)
    values = torch.randn(1, 4000)
    interval = resampled(values)
    assert interval.point == pytest.approx(float(values.double().mean()))
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / math.sqrt(4000), rel=0.1)
    assert resampled(values) == interval


def test_interval_holds_both_members_and_states() -> None:
    members = torch.tensor([[-1.0], [1.0]]).expand(2, 500)
    assert resampled(members).low == pytest.approx(-1)  # one of four resamples takes the same member twice
    assert resampled(members).high == pytest.approx(1)
    assert math.isnan(resampled(torch.ones(1, 1)).low)
