"""Variances corrected on held-out rows: the factor that was wrong is recovered, and predictions, rollouts and files carry it."""

from dataclasses import replace

import pytest
import torch
from systems import SMALL, SPEC, linear_gaussian, small_ensemble

from mbkit.dynamics.calibration import log_factor, miscoverage
from mbkit.dynamics.ensemble import Ensemble

CALIBRATED = replace(SMALL, calibrate=True)


@pytest.mark.parametrize("wrong", [-4.0, 0.0, 1.5])
def test_log_factor_recovers_a_factor_of_each_dimension(wrong):
    torch.manual_seed(0)
    error, true = torch.randn(1, 20_000, 2) * torch.tensor([1e-3, 5.0]), 2 * torch.tensor([1e-3, 5.0]).log()
    factor = log_factor(error, (true + wrong).expand(1, 20_000, 2))
    torch.testing.assert_close(factor, torch.full((2,), -wrong), atol=0.26, rtol=0)


def test_miscoverage_of_the_right_variance_is_small_and_in_any_units():
    torch.manual_seed(0)
    error = torch.randn(1, 20_000, 1)
    right = miscoverage(error, torch.ones_like(error))
    assert right < 0.01 < 0.1 < miscoverage(error, 3 * torch.ones_like(error))
    torch.testing.assert_close(miscoverage(1e-6 * error, 1e-6 * torch.ones_like(error)), right)


def test_calibrate_multiplies_the_variances_of_predictions_and_rollouts_and_nothing_else():
    plain, calibrated = small_ensemble(), small_ensemble(CALIBRATED)
    data, factor = linear_gaussian(40), calibrated.network.log_factor
    assert factor.any()
    assert not plain.network.log_factor.any()
    one, other = plain.predict(data.obs, data.action), calibrated.predict(data.obs, data.action)
    assert torch.equal(one.mean, other.mean)
    torch.testing.assert_close(other.var, one.var * factor.exp())
    draws = []
    for model in (plain, calibrated):
        model.frozen.refresh()
        x = model.network.encode(data.obs, data.action).expand(3, -1, -1)
        draws.append(model.frozen.gaussian(model.frozen(x)).std)
    torch.testing.assert_close(draws[1], draws[0] * (0.5 * factor).exp(), rtol=1e-4, atol=0)


def test_calibrate_is_kept_in_dynamics_pt_and_absent_from_older_files(tmp_path):
    first, second = small_ensemble(CALIBRATED), Ensemble(SPEC, SMALL)
    first.save(tmp_path / "dynamics.pt")
    second.load(tmp_path / "dynamics.pt")
    assert torch.equal(second.network.log_factor, first.network.log_factor)
    content = torch.load(tmp_path / "dynamics.pt", weights_only=True)
    for name in ("log_factor", "inputs.low", "inputs.high"):
        del content["state"][name]
    torch.save(content, tmp_path / "older.pt")
    second.load(tmp_path / "older.pt")
    assert not second.network.log_factor.any()
    far = torch.full((1, second.network.input_dim), 1e30)
    assert torch.equal(second.network.inputs.bound(far), far)
