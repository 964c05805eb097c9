"""Measures of models whose errors are known."""

import json

import pytest
import torch
from systems import NOISE, A, B, linear_gaussian

from mbkit.diagnostics import measures
from mbkit.diagnostics.verdict import verdicts
from mbkit.types import Prediction, Rollout, Step, Trajectory, Transition


class Known:
    """The linear-Gaussian system itself, which predicts `claim` times the true noise."""

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


def test_calibration_true_model_has_no_error():
    torch.manual_seed(0)
    out = measures.calibration(Known(), linear_gaussian(20_000))
    assert out["error"] < 0.006
    assert torch.tensor(out["coverage_by_dim"]).shape == (len(out["level"]), 3)
    json.dumps(out)


@pytest.mark.parametrize("claim", [0.5, 2.0])
def test_calibration_wrong_noise_has_its_coverage(claim):
    """The interval of level p of half the noise covers 2 Phi(z_p / 2) - 1."""
    torch.manual_seed(0)
    out = measures.calibration(Known(claim), linear_gaussian(20_000))
    level = torch.tensor(out["level"])
    expected = 2 * torch.special.ndtr(claim * torch.special.ndtri((1 + level) / 2)) - 1
    torch.testing.assert_close(torch.tensor(out["coverage"]), expected, atol=0.01, rtol=0)


def test_one_step_true_model_has_the_error_of_the_noise():
    torch.manual_seed(0)
    out = measures.one_step(Known(), linear_gaussian(20_000))
    torch.testing.assert_close(torch.tensor(out["rmse"]), NOISE, rtol=0.03, atol=0)
    entropy = torch.distributions.Normal(0.0, NOISE).entropy().sum()
    assert out["nll"] == pytest.approx(float(entropy), abs=0.03)
    json.dumps(out)


def test_calibration_deterministic_members_cover_nothing():
    out = measures.calibration(Known(0.0), linear_gaussian(500))
    assert max(out["coverage"]) < 0.01
    assert measures.one_step(Known(0.0), linear_gaussian(500))["nll"] > 1e6


def test_error_vs_horizon_true_model_equals_its_spread():
    torch.manual_seed(0)
    out = measures.error_vs_horizon(Known(), windows(3000, 6), particles=50)
    assert out["horizon"] == [1, 2, 3, 4, 5, 6]
    assert torch.tensor(out["rmse_by_dim"]).shape == (6, 3)
    torch.testing.assert_close(torch.tensor(out["rmse_by_dim"][0]), NOISE * (1 + 1 / 50) ** 0.5, rtol=0.05, atol=0)
    torch.testing.assert_close(torch.tensor(out["rmse"]), torch.tensor(out["spread"]), rtol=0.05, atol=0)
    assert out["rmse"] == sorted(out["rmse"])
    assert out["reward_rmse"][0] == pytest.approx(float(NOISE.norm()), rel=0.06)
    json.dumps(out)


def test_error_vs_horizon_model_of_a_system_mostly_at_rest_beats_no_change_in_the_root_mean_square():
    """Nine windows of ten do not move, where no change is a perfect prediction; the model is exact but for a small offset."""
    still = torch.zeros(40, 4, 1)
    action = still.clone()
    action[::10] = 1.0
    path = action.cumsum(1)
    obs = torch.cat((still[:, :1], path), 1).transpose(0, 1)
    flat = torch.zeros(4, 40)
    held_out = Trajectory(obs[:-1], action.transpose(0, 1), flat, obs[1:], flat + 1, flat.bool(), flat)
    out = measures.error_vs_horizon(Line(drift=1e-3), held_out, particles=1)
    assert out["median"][0] > out["baseline"][0] == 0
    assert out["rmse"][0] < out["no_change"][0]
    scale = measures.spread(path.view(-1, 1))
    torch.testing.assert_close(torch.tensor(out["no_change"]), torch.arange(1.0, 5) * 0.1**0.5 / scale)
    assert verdicts({"horizon": {"steps": out.pop("horizon"), **out}}) == []


class Line:
    """x' = x + a + drift, reward x' + bonus, terminated where x' > wall; members lie at +-`disagreement`, 7 times that from x = 4."""

    def __init__(self, drift: float = 0.0, bonus: float = 0.0, wall: float = torch.inf, disagreement: float = 0.0) -> None:
        self.drift, self.bonus, self.wall, self.disagreement = drift, bonus, wall, disagreement

    def init(self, obs):
        return obs

    def step(self, carry, action):
        obs = carry + action + self.drift
        return Step(obs, obs, obs[:, 0] + self.bonus, obs[:, 0] > self.wall)

    def rollout(self, carry, actions):
        obs = carry[:, None] + (actions + self.drift).cumsum(1)
        return Rollout(obs, obs[..., 0] + self.bonus, obs[..., 0] > self.wall)

    def predict(self, obs, action):
        mean = obs + action + self.drift
        disagreement = torch.where(obs < 4, self.disagreement, 7 * self.disagreement)
        return Prediction(torch.stack((mean - disagreement, mean + disagreement)), torch.ones(2, *mean.shape))


def line_windows(steps: int = 4, wall: float = torch.inf) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """First observations of two windows, their actions, their real rewards (0 after the end)."""
    obs, action = torch.tensor([[0.0], [2.0]]), torch.ones(steps, 2, 1)
    path = obs[:, 0] + torch.arange(1.0, steps + 1)[:, None]
    return obs, action, torch.where((path > wall).cumsum(0) - (path > wall).int() == 0, path, 0)


def gap(model: Line, wall: float = torch.inf, particles: int = 3, counted: torch.Tensor | None = None) -> dict:
    obs, action, reward = line_windows(wall=wall)
    path = measures.model_path(model, obs.repeat(particles, 1), lambda t, _: action[t].repeat(particles, 1), 4)
    return measures.return_gap(path, reward, counted, gamma=0.5)


@pytest.mark.parametrize("wall", [torch.inf, 3.5])
def test_return_gap_true_model_has_none(wall):
    out = gap(Line(wall=wall), wall)
    assert out["mean"] == out["abs"] == [0.0] * 4
    assert out["steps"] == [1, 2, 3, 4]
    json.dumps(out)


def test_return_gap_biased_reward_is_the_geometric_sum_of_its_bias():
    assert gap(Line(bonus=2.0))["mean"] == [2.0, 3.0, 3.5, 3.75]
    out = gap(Line(bonus=-2.0))
    assert out["mean"] == [-2.0, -3.0, -3.5, -3.75]
    assert out["abs"] == [2.0, 3.0, 3.5, 3.75]


def test_return_gap_drift_adds_up_along_the_path():
    """After t steps x is t too large: 1 + 2/2 + 3/4 + 4/8."""
    assert gap(Line(drift=1.0))["mean"] == [1.0, 2.0, 2.75, 3.25]


def test_return_gap_model_without_termination_counts_later_rewards():
    """Wall at 3.5: the window from 0 earns 1, 2, 3, 4; that from 2 earns 3, 4 and ends, where the model goes on with 5 and 6."""
    out = gap(Line(), wall=3.5)
    assert out["mean"] == [0.0, 0.0, 5 / 4 / 2, (5 / 4 + 6 / 8) / 2]
    earlier = torch.tensor([[True, True], [True, True], [True, False], [True, False]])
    assert gap(Line(), wall=3.5, counted=earlier)["mean"] == [0.0] * 4


def test_return_gap_opposite_signs_cancel_in_the_mean_only():
    path = measures.ModelPath(torch.zeros(1, 2, 1), torch.zeros(1, 2, 1), torch.tensor([[1.0, -1.0]]), torch.ones(1, 2).bool())
    out = measures.return_gap(path, torch.zeros(1, 2), None, 0.9)
    assert (out["mean"], out["abs"], out["predicted"], out["real"]) == ([0.0], [1.0], [0.0], [0.0])


def test_epistemic_along_is_in_spreads_of_the_data_over_living_rows():
    """Two members at +-0.6 have the variance 0.36; the outcomes -3 and 3 have a spread of 3."""
    flat = torch.zeros(2)
    data = Transition(torch.zeros(2, 1), torch.zeros(2, 1), flat, torch.tensor([[-3.0], [3.0]]), flat)
    obs, action, _ = line_windows()
    path = measures.model_path(Line(wall=3.5), obs, lambda t, _: action[t], 4)
    assert path.alive.tolist() == [[True, True], [True, True], [True, False], [True, False]]
    out = measures.epistemic_along(Line(disagreement=0.6), path, data)
    assert out["mean"] == pytest.approx([0.2] * 4)  # the row that ended at 4 would raise the last two
    assert measures.epistemic_along(Line(), path, data)["mean"] == [0.0] * 4


def test_spread_constant_column_is_1():
    x = torch.tensor([[1.0, 7.0, 0.0], [3.0, 7.000001, 0.0]])
    assert measures.spread(x).tolist() == [1.0, 1.0, 1.0]
