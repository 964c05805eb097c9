"""Losses of a regularised critic: derivatives and admissible rewards."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from tabular_problems import OFFLINE

from mbkit.errors import UserError
from mbkit.tabular.critic_losses import LOSSES, MSE, Loss, shift_rewards
from mbkit.tabular.critic_regularisation import (
    joint_fixed_point,
)
from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import random_policy
from mbkit.tabular.one_step import improve

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_loss_slope_is_the_ratio_of_derivatives(loss: Loss) -> None:
    q, y, h = RNG.uniform(0.5, 3, 100), RNG.uniform(0.5, 3, 100), 1e-6
    slope = (loss.value(q + h, y) - loss.value(q - h, y)) / (loss.penalty(q + h) - loss.penalty(q - h))
    np.testing.assert_allclose(slope, loss.slope(q, y), atol=1e-7)


def test_check_rewards_not_positive_names_the_smallest_reward(caplog: pytest.LogCaptureFixture) -> None:
    negative = replace(OFFLINE, R=OFFLINE.R - 0.5)
    beta = random_policy(negative, RNG)
    smallest = f"{negative.R.min():g}"
    with pytest.raises(UserError, match=f"cross_entropy needs rewards > 0; the smallest is {smallest}"):
        joint_fixed_point(negative, beta, 1.0)
    assert np.isfinite(joint_fixed_point(negative, beta, 10.0, MSE).pi).all()
    with caplog.at_level(logging.WARNING):
        shifted = shift_rewards(negative, 0.1)
    assert "rewards shifted by" in caplog.text
    assert abs(shifted.R.min() - 0.1) < 1e-15
    joint_fixed_point(shifted, beta, 1.0)
    with pytest.raises(UserError, match="cross_entropy needs rewards > 0; the smallest is 0"):
        joint_fixed_point(replace(OFFLINE, R=np.zeros((20, 4))), beta, 1.0)
    with pytest.raises(UserError, match="needs Q > 0 on the data"):
        improve(beta, negative.R)


@pytest.mark.parametrize("smallest", [0.0, -1.0, float("nan")])
def test_shift_rewards_not_positive_is_refused(smallest):
    with pytest.raises(UserError, match=r"smallest=.*expected a number > 0"):
        shift_rewards(garnet(6, 2, 2), smallest)
