"""A model does not depend on the units of a dimension, nor of the whole task; dimensions that hardly move do no harm."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.dynamics.network import EnsembleNetwork
from mbkit.dynamics.training import hold_out, resolution, rows
from mbkit.imagination.gate import geometric_js, one_vs_rest
from mbkit.types import EnvSpec, TaskKnowledge, Transition

SPEC = EnvSpec(3, 1, torch.device("cpu"))
TINY = EnsembleConfig(members=2, elites=2, hidden=(16, 16), lr=3e-3, batch=64, max_epochs=15, propagation="expectation")
ONE = torch.ones(3)


def swing(count: int, offset: float = 0.0) -> Transition:
    """A driven pendulum of three numbers, with a learned reward; `offset` moves the second dimension."""
    obs, action = torch.randn(count, 3), torch.rand(count, 1) * 2 - 1
    change = 0.1 * torch.stack((obs[:, 1], 2 * action[:, 0] - obs[:, 0].sin(), obs[:, 0] * obs[:, 1]), 1)
    shift = torch.tensor([0.0, offset, 0.0])
    return Transition(obs + shift, action, (obs + change).sum(1), obs + change + shift, torch.ones(count))


def in_units(data: Transition, units: torch.Tensor, reward: float = 1.0) -> Transition:
    """The same rows with each dimension, and the reward, in other units: new numbers are old ones times `units` [3]."""
    return data._replace(obs=data.obs * units, next_obs=data.next_obs * units, reward=data.reward * reward)


def fitted(data: Transition, cfg: EnsembleConfig = TINY, task: TaskKnowledge = TaskKnowledge()) -> Ensemble:
    """An ensemble whose weights, hold-out and batches are the same for data of the same size."""
    torch.manual_seed(0)
    model = Ensemble(SPEC, cfg, task)
    model.fit(data)
    return model


def relative_error(model: Ensemble, test: Transition) -> torch.Tensor:
    """Error of rollouts and of predictions in standard deviations of the change, [4]: three dimensions and the reward."""
    truth = torch.cat((test.next_obs, test.reward[:, None]), 1)
    unchanged = torch.cat((test.obs, torch.zeros(len(test.obs), 1)), 1)
    step = model.step(test.obs, test.action)
    rolled = torch.cat((step.obs, step.reward[:, None]), 1)
    spread = (truth - unchanged).double().std(0)
    return ((rolled.double() - truth).square().mean(0).sqrt() / spread).float()


@pytest.fixture(scope="module")
def task() -> tuple[Transition, Transition, torch.Tensor]:
    """Training rows, test rows, and the error on them in the units they were written in."""
    torch.manual_seed(1)
    train, test = swing(400), swing(300)
    return train, test, relative_error(fitted(train), test)


@settings(deadline=None, max_examples=12)
@given(exponents=st.lists(st.integers(-6, 6), min_size=4, max_size=4))
def test_fit_has_the_same_relative_error_in_any_units(task, exponents):
    train, test, error = task
    units, reward = 10.0 ** torch.tensor(exponents[:3]), 10.0 ** exponents[3]
    other = relative_error(fitted(in_units(train, units, reward)), in_units(test, units, reward))
    torch.testing.assert_close(other, error, rtol=0.2, atol=0)


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("changes", [{"delta": False}, {"probabilistic": False}, {"propagation": "ts1"}], ids=str)
def test_fit_has_the_same_relative_error_where_the_whole_task_is_in_other_units(unit, changes):
    torch.manual_seed(1)
    train, test, cfg = swing(400), swing(300), replace(TINY, **changes)
    errors = []
    for scale in (1.0, unit):
        model = fitted(in_units(train, scale * ONE, scale), cfg, TaskKnowledge(absolute=(2,)))
        torch.manual_seed(2)
        errors.append(relative_error(model, in_units(test, scale * ONE, scale)))
    torch.testing.assert_close(errors[1], errors[0], rtol=0.2, atol=0)


def test_fit_of_a_dimension_far_from_zero_has_the_same_relative_error(task):
    train, test, error = task
    shift = torch.tensor([0.0, 1e4, 0.0])
    far, moved = (data._replace(obs=data.obs + shift, next_obs=data.next_obs + shift) for data in (train, test))
    torch.testing.assert_close(relative_error(fitted(far), moved), error, rtol=0.2, atol=0)


@pytest.mark.parametrize("constant", [0.0, 5.0, -3e6, 2e-6])
@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-4])
def test_fit_of_a_nearly_constant_dimension_does_no_harm_even_when_it_moves_later(constant, noise):
    """The third dimension is a sensor that rests while data is gathered and jumps by its own size, or by 1, in the test."""
    torch.manual_seed(1)
    train, test = swing(400), swing(300)
    size = abs(constant) if constant else 1.0

    def sensor(data: Transition, jump: float = 0.0) -> Transition:
        values = [constant + jump + size * noise * torch.randn(len(data.obs)) for _ in range(2)]
        columns = [torch.cat((x[:, :2], value[:, None]), 1) for x, value in zip((data.obs, data.next_obs), values, strict=True)]
        return data._replace(obs=columns[0], next_obs=columns[1])

    known = TaskKnowledge(lambda obs, action, next_obs: next_obs[:, 0])
    model = fitted(sensor(train), task=known)
    for jump, allowed in ((0.0, 0.6), (size, 1.5 if noise else 0.6)):  # in standard deviations of the change
        rolled = model.step(*sensor(test, jump)[:2]).obs[:, :2]
        error = (rolled - test.next_obs[:, :2]).square().mean(0).sqrt() / (test.next_obs - test.obs)[:, :2].std(0)
        assert (error < allowed).all(), (jump, error)
        if not noise:  # it rests in the model too: the noise of its prediction is less than float32 resolves
            torch.testing.assert_close(model.step(*sensor(test)[:2]).obs[:, 2], torch.full((300,), constant), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("uncertainty", [one_vs_rest, geometric_js])
def test_gates_measure_the_same_uncertainty_in_any_units(uncertainty):
    torch.manual_seed(1)
    train, test, units = swing(400), swing(100), torch.tensor([1e-6, 1.0, 1e6])
    measured = []
    for scale in (ONE, units):
        data = in_units(test, scale)
        model = fitted(in_units(train, scale))
        measured.append(uncertainty(model.step(data.obs, data.action, predict=True).prediction))
    assert float(torch.corrcoef(torch.stack(measured).log())[0, 1]) > 0.98
    torch.testing.assert_close(measured[1].median(), measured[0].median(), rtol=0.2, atol=0)


@pytest.mark.parametrize("uncertainty", [one_vs_rest, geometric_js])
def test_gates_uncertainty_of_scaled_targets_is_that_of_raw_predictions(uncertainty):
    """Divergences of Gaussians have no units: the constants of M2AC and MACURA mean the same for scaled and raw targets."""
    torch.manual_seed(1)
    model, test = fitted(swing(400)), swing(100)
    scaled = uncertainty(model.step(test.obs, test.action, predict=True).prediction)
    torch.testing.assert_close(scaled, uncertainty(model.predict(test.obs, test.action)), rtol=1e-3, atol=1e-4)


def test_hold_out_scales_targets_and_gives_a_resting_one_what_float32_resolves():
    torch.manual_seed(0)
    network, data = EnsembleNetwork(SPEC, TINY), swing(200)
    resting = data._replace(obs=data.obs.clone().index_fill_(1, torch.tensor([0]), 5), next_obs=data.next_obs.clone())
    resting.next_obs[:, 0] = 5
    train, _ = hold_out(network, rows(network, resting), resolution(network, resting))
    assert network.targets.std[0] == pytest.approx(4 * 2**-23 * 5)
    torch.testing.assert_close(train.y.std(0)[1:], torch.ones(3))
    assert not train.y[:, 0].any()
