"""Variances corrected on held-out rows: the factor that was wrong is recovered, and predictions, rollouts and files carry it."""

from dataclasses import replace

import pytest
import torch
from systems import SMALL, SPEC, linear_gaussian, small_ensemble

from mbkit.diagnostics.measures import calibration
from mbkit.dynamics.calibration import (
    LEVELS,
    QUANTILES,
    centrality,
    coverage,
    holdout_miscoverage,
    identity,
    level_map,
    log_factor,
    miscoverage,
    recalibrated,
)
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
        x = model.frozen.inputs(data.obs, data.action).expand(3, -1, -1)
        draws.append(model.frozen.gaussian(model.frozen(x)).std)
    torch.testing.assert_close(draws[1], draws[0] * (0.5 * factor).exp(), rtol=1e-4, atol=0)


def test_calibrate_is_kept_in_dynamics_pt_and_absent_from_older_files(tmp_path):
    first, second = small_ensemble(CALIBRATED), Ensemble(SPEC, SMALL)
    first.save(tmp_path / "dynamics.pt")
    second.load(tmp_path / "dynamics.pt")
    assert torch.equal(second.network.log_factor, first.network.log_factor)
    assert torch.equal(second.network.levels, first.network.levels)
    content = torch.load(tmp_path / "dynamics.pt", weights_only=True)
    for name in ("log_factor", "levels", "inputs.low", "inputs.high"):
        del content["state"][name]
    torch.save(content, tmp_path / "older.pt")
    second.load(tmp_path / "older.pt")
    assert not second.network.log_factor.any()
    far = torch.full((1, second.network.input_dim), 1e30)
    assert torch.equal(second.network.inputs.bound(far), far)


def constant_errors(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Errors [1, B, 2] of a task without noise: nearly constant on half of the rows, which no Gaussian is; log-variances of 1."""
    error = torch.cat((0.7 + 0.01 * torch.randn(rows // 2, 2), 3 * torch.randn(rows - rows // 2, 2)))
    return error[torch.randperm(rows)][None], torch.zeros(1, rows, 2)


def test_level_map_calibrates_errors_that_no_factor_can():
    torch.manual_seed(0)
    (error, logvar), (fresh, _) = constant_errors(400), constant_errors(4000)
    factor = log_factor(error, logvar)
    scaled = (0.5 * (logvar + factor)).exp()
    levels = level_map(centrality(error, scaled))
    inside = centrality(fresh, scaled[:, :1])
    before, after = ((coverage(x) - LEVELS[:, None]).abs().mean(0) for x in (inside, recalibrated(inside, levels)))
    assert (before > 0.07).all()
    assert (after < 0.04).all()
    assert holdout_miscoverage(error, logvar) < 0.05


def test_recalibrated_by_the_identity_changes_nothing_and_by_any_map_keeps_the_order():
    torch.manual_seed(0)
    inside = torch.rand(300, 2)
    torch.testing.assert_close(recalibrated(inside, identity(2)), inside)
    levels = level_map(torch.rand(57, 2) ** 3)
    order = inside[:, 0].argsort()
    assert (recalibrated(inside, levels)[order, 0].diff() >= 0).all()
    ends = recalibrated(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), levels)
    assert ends.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_level_map_by_hand():
    levels = level_map(torch.linspace(0, 0.5, 101)[:, None])  # all outcomes inside the 50 % interval
    torch.testing.assert_close(levels[:-1, 0], torch.linspace(0, 0.5, QUANTILES + 1)[:-1])
    torch.testing.assert_close(recalibrated(torch.tensor([[0.25]]), levels), torch.tensor([[0.5]]))


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_held_out_rows_are_no_error(rows):
    error, logvar = torch.randn(2, rows, 3), torch.zeros(2, rows, 3)
    levels = level_map(centrality(error, torch.ones_like(error)))
    assert (levels.diff(dim=0) >= 0).all()
    assert holdout_miscoverage(error, logvar).isnan() == (rows == 1)


@pytest.mark.parametrize("level", [0.05, 0.5, 0.9, 1.0])
def test_intervals_hold_what_recalibrated_says(level):
    model, data = small_ensemble(CALIBRATED), linear_gaussian(500)
    low, high = model.intervals(data.obs, data.action, level)
    p = model.predict(data.obs, data.action)
    y = torch.cat((data.next_obs, data.reward[:, None]), 1)[:, : low.shape[1]]
    inside = model.recalibrated(centrality(y - p.mean, p.var.sqrt())) <= level
    assert ((low <= y) & (y <= high) == inside).float().mean() > 0.995
    assert (low <= high).all()


def test_ensemble_without_correction_states_the_gaussians_own_levels():
    model, data = small_ensemble(), linear_gaussian(200)
    measured = calibration(model, data)
    assert measured["error"] == pytest.approx(measured["uncorrected"], abs=1e-6)
    corrected = calibration(small_ensemble(CALIBRATED), data)
    assert corrected["error"] != corrected["uncorrected"]
