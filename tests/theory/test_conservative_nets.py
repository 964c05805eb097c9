"""Continuous CQL(H) networks: losses, and results that do not depend on where their parts are defined."""

import numpy as np
import pytest
import torch

from mbkit.theory import conservative_nets as nets
from mbkit.theory import plants

GAPS = [0.778897, 0.702588, 0.514467]
SUMS = [-34.01407, 10.00432, -48.58319, -12.32574]  # of all parameters: critics, actors, regression, log-Q


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


def test_train_and_one_step_actors_keep_their_first_numbers():
    """A few updates of every network, as they were when every formula stood in the module itself (float32, to rounding)."""
    torch.manual_seed(0)
    data = nets.gather(plants.PLANTS[0], [0, 1], 200)
    networks = nets.train(data, np.array([0.1, 1.0, 10.0]), 0.9, 60, 3)
    regression, log_q = nets.one_step_actors(data, networks.critics, 0.9, 40, 4)
    sums = [
        sum(float(p.detach().double().sum()) for p in module.parameters())
        for module in (networks.critics, networks.actors, regression, log_q)
    ]
    assert networks.gaps.ravel()[:3] == pytest.approx(GAPS, rel=1e-4)
    assert sums == pytest.approx(SUMS, rel=1e-4)
