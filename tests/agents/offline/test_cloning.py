"""Losses of cloning: hand-computed numbers and finite differences of their gradients."""

import math

import pytest
import torch

from mbkit.agents.offline.base import stochastic_policy
from mbkit.agents.offline.cloning import exp_weights, log_likelihood_loss, squared_error, weighted_log_likelihood_loss
from mbkit.types import EnvSpec

CPU = torch.device("cpu")


def test_squared_error_by_hand_is_a_mean_over_rows_and_dimensions():
    loss = squared_error(torch.tensor([[0.5, -0.5], [0.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert loss.item() == pytest.approx((0.25 + 0.25 + 1) / 4)


def test_exp_weights_by_hand_divide_by_the_temperature_and_are_constants():
    advantage = torch.tensor([1.0, -1.0, 1e4], requires_grad=True)
    weight = exp_weights(advantage, 0.5, 20.0)
    assert weight.tolist() == pytest.approx([math.exp(2), math.exp(-2), 20.0])
    assert not weight.requires_grad


def test_log_likelihood_losses_by_hand():
    log_prob, weight = torch.tensor([-1.0, -3.0]), torch.tensor([2.0, 0.5], requires_grad=True)
    assert log_likelihood_loss(log_prob).item() == 2
    loss = weighted_log_likelihood_loss(log_prob, weight)
    assert loss.item() == pytest.approx((2 + 1.5) / 2)
    assert not loss.requires_grad  # the weights are constants
    assert torch.equal(weighted_log_likelihood_loss(log_prob, torch.ones(2)), log_likelihood_loss(log_prob))


@pytest.mark.parametrize("discrete", [False, True])
def test_gradients_by_finite_differences(discrete):
    torch.manual_seed(0)
    spec = EnvSpec(3, 2, CPU, discrete)
    policy = stochastic_policy(spec, (5,)).double()
    obs, weight = torch.randn(6, 3).double(), torch.rand(6).double()
    action = torch.randint(2, (6,)) if discrete else (2 * torch.rand(6, 2) - 1).double()
    names, params = zip(*policy.named_parameters(), strict=True)

    def loss(*values: torch.Tensor) -> torch.Tensor:
        distribution = torch.func.functional_call(policy, dict(zip(names, values, strict=True)), (obs,))
        return weighted_log_likelihood_loss(distribution.log_prob(action), weight)

    assert torch.autograd.gradcheck(loss, params)
