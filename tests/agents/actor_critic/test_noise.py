"""Exploration noise: its stationary law, its correlation in time, and its reset at a new episode."""

import torch

from mbkit.agents.actor_critic.noise import GaussianNoise, OrnsteinUhlenbeck


def test_gaussian_noise_has_its_scale_and_is_uncorrelated():
    noise, like = GaussianNoise(0.3), torch.zeros(20_000, 1)
    first, second = noise(like), noise(like)
    assert abs(first.std().item() - 0.3) < 0.01
    assert abs(torch.corrcoef(torch.cat([first, second], 1).T)[0, 1].item()) < 0.03


def test_ornstein_uhlenbeck_reaches_its_stationary_law():
    scale, theta, like = 0.2, 0.15, torch.zeros(20_000, 1)
    noise = OrnsteinUhlenbeck(scale, theta)
    for _ in range(60):
        now = noise(like)
    assert abs(now.var().item() / (scale**2 / (1 - (1 - theta) ** 2)) - 1) < 0.05
    for lag in (1, 2, 3):
        later = noise(like)
        correlation = torch.corrcoef(torch.cat([now, later], 1).T)[0, 1].item()
        assert abs(correlation - (1 - theta) ** lag) < 0.02


def test_ornstein_uhlenbeck_theta_1_is_gaussian_noise():
    torch.manual_seed(0)
    ours = OrnsteinUhlenbeck(0.2, 1.0)(torch.zeros(5, 2))
    torch.manual_seed(0)
    torch.testing.assert_close(ours, GaussianNoise(0.2)(torch.zeros(5, 2)))


def test_ornstein_uhlenbeck_reset_zeroes_only_new_episodes():
    noise = OrnsteinUhlenbeck(0.2, 0.15)
    noise.reset(torch.ones(3, dtype=torch.bool))  # before the first step there is no state to reset
    before = noise(torch.zeros(3, 2))
    noise.reset(torch.tensor([True, False, True]))
    expected = before.clone()
    expected[[0, 2]] = 0
    torch.testing.assert_close(noise.state, expected)


def test_ornstein_uhlenbeck_state_dict_continues_the_noise():
    noise, like = OrnsteinUhlenbeck(0.2, 0.15), torch.zeros(2, 1)
    noise(like)
    other = OrnsteinUhlenbeck(0.2, 0.15)
    other.load_state_dict(noise.state_dict())
    torch.manual_seed(3)
    expected = noise(like)
    torch.manual_seed(3)
    assert torch.equal(other(like), expected)
