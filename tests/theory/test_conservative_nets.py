"""Continuous CQL(H) networks: densities, divergences and losses."""

import numpy as np
import pytest
import torch

from mbkit.theory import conservative_nets as nets
from mbkit.theory import plants


def test_log_density_and_gaussian_kl_equal_torch_distributions():
    torch.manual_seed(0)
    mean, log_std, other, wide = torch.randn(4, 3, 5, 2)
    p, q = (torch.distributions.Normal(m, s.exp()) for m, s in ((mean, log_std), (other, wide)))
    torch.testing.assert_close(nets.gaussian_kl(mean, log_std, other, wide), torch.distributions.kl_divergence(p, q).sum(-1))
    squashed = torch.distributions.TransformedDistribution(p, torch.distributions.TanhTransform())
    torch.testing.assert_close(nets.log_density(mean, log_std, other), squashed.log_prob(other.tanh()).sum(-1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(nets.unsquash(torch.tensor([0.5, -0.9, 1.0])).tanh(), torch.tensor([0.5, -0.9, nets.MAX_ACTION]))


def test_log_integral_exp_estimates_the_integral():
    a = torch.rand(1, 1, 200_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    level = nets.log_integral_exp(3 * a, torch.full_like(a, -np.log(2)))
    assert level.item() == pytest.approx(np.log((np.exp(3) - np.exp(-3)) / 3), abs=0.01)


def test_critic_loss_lambda_0_is_regression():
    q, y, level = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[9.0, 9.0]])
    assert nets.critic_loss(q, y, level, torch.zeros(1)).item() == pytest.approx(1.25)
    assert nets.critic_loss(q, y, level, torch.ones(1)).item() == pytest.approx(1.25 + 7)
    data = nets.gather(plants.PLANTS[0], [0], 200)
    assert (data.rows.reward + data.shift[:, None]).min() > 0
