"""Conservative losses: hand-computed numbers, exactly 3N samples, finite differences of their gradients."""

import math

import pytest
import torch

from mbkit.agents.offline.conservative import (
    MAX_MULTIPLIER,
    conservative_gap,
    conservative_loss,
    log_sum_exp,
    multiplier,
    multiplier_loss,
    proposals,
    sampled_actions,
    shares,
    uniform_actions,
)
from mbkit.networks.policy import TanhGaussian
from mbkit.networks.values import regression_loss
from mbkit.types import Targets


def targets(y):
    return Targets(torch.zeros(len(y), 1), torch.zeros(len(y), 1), y, torch.ones(len(y)))


def test_log_sum_exp_by_hand():
    q = torch.tensor([[0.0, math.log(2)], [1.0, 1.0]])
    log_density = torch.tensor([[0.0, -math.log(3)], [-math.log(2), -math.log(2)]])
    expected = [math.log(1 + 2 * 3), 1 + math.log(4)]  # no -log M: published thresholds of the gap hold
    assert log_sum_exp(q, log_density).tolist() == pytest.approx(expected)


def test_gap_and_loss_by_hand_on_two_states_and_two_critics():
    q, y = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), targets(torch.tensor([0.0, 2.0]))
    level = torch.tensor([[3.0, 3.0], [0.0, 1.0]])
    gap = conservative_gap(level, q)
    assert gap.tolist() == [1.5, 1.0]
    assert torch.equal(conservative_gap(level.mean(1), q), gap)
    squares = (1 + 0) / 2 + (0 + 9) / 2  # full squares
    assert conservative_loss(regression_loss(q, y), gap, 5.0).item() == pytest.approx(squares + 5 * 2.5)


def test_gap_pushes_up_the_recorded_rows_of_a_mixed_batch_alone():
    """COMBO: the mean over recorded rows, sum of real Q / sum of real, whatever the values of model rows; the level is of all states."""
    q, level, real = (
        torch.tensor([[1.0, 2.0, 70.0], [0.0, -1.0, 80.0]]),
        torch.tensor([[3.0, 3.0, 6.0], [0.0, 1.0, 2.0]]),
        torch.tensor([1.0, 1, 0]),
    )
    gap = conservative_gap(level, q, real)
    assert gap.tolist() == pytest.approx([4 - 1.5, 1 + 0.5])
    torch.testing.assert_close(conservative_gap(level.mean(1), q, real), gap)
    torch.testing.assert_close(conservative_gap(level, q, torch.ones(3)), conservative_gap(level, q))
    assert shares(real).tolist() == [0.5, 0.5, 0]


def test_multiplier_loss_by_hand_rises_above_the_threshold_and_falls_below():
    gap = torch.tensor([1.5, 1.0])
    for threshold, rises in ((5.0, True), (7.0, False)):
        log_multiplier = torch.tensor(math.log(2.0), requires_grad=True)
        loss = multiplier_loss(log_multiplier, gap, 5.0, threshold)
        assert loss.item() == pytest.approx(-2 * (5 * 1.25 - threshold))
        (slope,) = torch.autograd.grad(loss, log_multiplier)
        assert (slope.item() < 0) == rises  # descending the loss ascends alpha'
    assert multiplier(torch.tensor(100.0)).item() == MAX_MULTIPLIER


def test_gradients_by_finite_differences():
    torch.manual_seed(0)
    q, samples, log_density = torch.randn(2, 3).double(), torch.randn(2, 3, 4).double(), torch.randn(3, 4).double()
    y = targets(torch.randn(3).double())

    def loss(q, samples):
        return conservative_loss(regression_loss(q, y), conservative_gap(log_sum_exp(samples, log_density), q), 3.0)

    assert torch.autograd.gradcheck(loss, (q.requires_grad_(), samples.requires_grad_()))


# ---------------------------------------------------------------------------------------------------------------------- samples
def policy(obs_dim=2, action_dim=2):
    torch.manual_seed(0)
    return TanhGaussian(obs_dim, action_dim, (8,))


def test_proposals_are_exactly_3n_and_each_has_the_density_that_drew_it():
    net, n = policy(), 6
    obs, next_obs = torch.randn(2, 2), torch.randn(2, 2) + 2
    action, log_density = proposals(net, obs, next_obs, n)
    assert action.shape == (2, 3 * n, 2)
    assert log_density.shape == (2, 3 * n)
    assert action.abs().max() <= 1
    assert not action.requires_grad
    assert not log_density.requires_grad
    assert log_density[:, :n].tolist() == [[pytest.approx(-2 * math.log(2))] * n] * 2
    for start, at in ((n, obs), (2 * n, next_obs)):
        for m in range(start, start + n):
            torch.testing.assert_close(log_density[:, m], net.log_prob(at, action[:, m]), atol=1e-3, rtol=1e-3)


def test_sampled_actions_have_the_distribution_of_the_policy():
    net, obs = policy(), torch.zeros(1, 2)
    action, _ = sampled_actions(net, obs, 20_000)
    many = torch.cat([net.rsample(obs.expand(1000, -1))[0] for _ in range(20)]).detach()
    torch.testing.assert_close(action[0].mean(0), many.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(action[0].std(0), many.std(0), atol=0.02, rtol=0)
    uniform, _ = uniform_actions(action)
    torch.testing.assert_close(uniform[0].std(0), torch.full((2,), 1 / math.sqrt(3)), atol=0.02, rtol=0)


def test_log_sum_exp_of_30_samples_agrees_with_many_more():
    """Q = 3 a in one dimension: log int exp Q = log((e^3 - e^-3) / 3); estimates of 30 samples lie around it, of 30 000 on it."""
    net, obs = policy(2, 1), torch.zeros(400, 2)
    exact = math.log((math.exp(3) - math.exp(-3)) / 3)

    def estimates(n, rows):
        action, log_density = proposals(net, obs[:rows], obs[:rows] + 1, n)
        return log_sum_exp(3 * action[..., 0], log_density) - math.log(3 * n)

    few, many = estimates(10, 400), estimates(10_000, 4)
    assert (many - exact).abs().max() < 0.05
    assert few.exp().mean().log().item() == pytest.approx(exact, abs=0.05)  # unbiased before the logarithm
    assert few.std() > 3 * many.std()
