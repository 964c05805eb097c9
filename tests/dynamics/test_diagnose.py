"""Diagnostics of models whose truth is known."""

import json

import pytest
import torch
from systems import NOISE, A, B, linear_gaussian

from mbkit.dynamics import diagnose
from mbkit.types import Prediction, Rollout, Trajectory


class Known:
    """The linear-Gaussian system itself, claiming `claim` times the true noise."""

    def __init__(self, claim: float = 1.0, members: int = 2) -> None:
        self.claim, self.members = claim, members

    def predict(self, obs, action):
        mean = (obs @ A + action @ B).expand(self.members, *obs.shape)
        return Prediction(mean, (self.claim * NOISE).square().expand_as(mean))

    def init(self, obs):
        return obs

    def rollout(self, carry, actions):
        path = []
        for t in range(actions.shape[1]):
            carry = carry @ A + actions[:, t] @ B + self.claim * NOISE * torch.randn_like(carry)
            path.append(carry)
        obs = torch.stack(path, 1)
        return Rollout(obs, obs.sum(-1), torch.zeros(obs.shape[:2], dtype=torch.bool))


def windows(count: int, horizon: int) -> Trajectory:
    steps = [linear_gaussian(count)]
    action = torch.rand(horizon, count, 2) * 2 - 1
    obs = [steps[0].obs]
    for t in range(horizon):
        obs.append(obs[-1] @ A + action[t] @ B + NOISE * torch.randn(count, 3))
    path = torch.stack(obs)
    flat = torch.zeros(horizon, count)
    return Trajectory(path[:-1], action, path[1:].sum(-1), path[1:], flat + 1, flat.bool(), flat)


def test_the_truth_is_calibrated():
    torch.manual_seed(0)
    out = diagnose.calibration(Known(), linear_gaussian(20_000))
    assert out["error"] < 0.006
    assert torch.tensor(out["coverage_by_dim"]).shape == (len(out["level"]), 3)
    json.dumps(out)


@pytest.mark.parametrize("claim", [0.5, 2.0])
def test_wrong_confidence_is_seen(claim):
    """Claiming half the noise at level p covers 2 Phi(z_p / 2) - 1."""
    torch.manual_seed(0)
    out = diagnose.calibration(Known(claim), linear_gaussian(20_000))
    level = torch.tensor(out["level"])
    expected = 2 * torch.special.ndtr(claim * torch.special.ndtri((1 + level) / 2)) - 1
    torch.testing.assert_close(torch.tensor(out["coverage"]), expected, atol=0.01, rtol=0)


def test_one_step_error_of_the_truth_is_the_noise():
    torch.manual_seed(0)
    out = diagnose.one_step(Known(), linear_gaussian(20_000))
    torch.testing.assert_close(torch.tensor(out["rmse"]), NOISE, rtol=0.03, atol=0)
    entropy = torch.distributions.Normal(0.0, NOISE).entropy().sum()
    assert out["nll"] == pytest.approx(float(entropy), abs=0.03)
    json.dumps(out)


def test_members_without_variance_do_not_break_the_report():
    out = diagnose.calibration(Known(0.0), linear_gaussian(500))
    assert max(out["coverage"]) < 0.01
    assert diagnose.one_step(Known(0.0), linear_gaussian(500))["nll"] > 1e6


def test_error_against_horizon_equals_the_spread_of_a_model_that_knows():
    torch.manual_seed(0)
    out = diagnose.error_vs_horizon(Known(), windows(3000, 6), particles=50)
    assert out["horizon"] == [1, 2, 3, 4, 5, 6]
    assert torch.tensor(out["rmse_by_dim"]).shape == (6, 3)
    torch.testing.assert_close(torch.tensor(out["rmse_by_dim"][0]), NOISE * (1 + 1 / 50) ** 0.5, rtol=0.05, atol=0)
    torch.testing.assert_close(torch.tensor(out["rmse"]), torch.tensor(out["spread"]), rtol=0.05, atol=0)
    assert out["rmse"] == sorted(out["rmse"])
    assert out["reward_rmse"][0] == pytest.approx(float(NOISE.norm()), rel=0.06)
    json.dumps(out)
