"""MPPI: its noise against PDDM's recursion, its weights at the limits of the temperature."""

import torch

from mbkit.planning.mppi import candidates_around, path_integral


def test_candidates_around_spread_is_proportional_to_sigma():
    torch.manual_seed(0)
    one, two = (candidates_around(torch.zeros(1, 20, 2), 20_000, sigma, 0.6).std((0, 1)) for sigma in (0.2, 0.4))
    torch.testing.assert_close(two, 2 * one, rtol=0.03, atol=0)


def test_candidates_around_noise_follows_the_recursion():
    beta, mean = 0.6, torch.zeros(1, 5, 1)
    torch.manual_seed(1)
    noise = candidates_around(mean, 3, 0.5, beta)
    torch.manual_seed(1)
    white = torch.randn(1, 3, 5, 1)
    before = torch.zeros(1, 3, 1)
    for t in range(5):
        before = beta * white[:, :, t] + (1 - beta) * before
        torch.testing.assert_close(noise[:, :, t], 0.5 * before)


def test_path_integral_temperature_limits_are_the_mean_and_the_best():
    population, score = torch.randn(2, 9, 3, 1), torch.randn(2, 9)
    mean = torch.zeros(2, 3, 1)
    torch.testing.assert_close(path_integral(population, score, mean, 1e6), population.mean(1), atol=1e-5, rtol=0)
    cold = population[torch.arange(2), score.argmax(1)]
    torch.testing.assert_close(path_integral(population, score, mean, 1e-5), cold)
    torch.testing.assert_close(
        path_integral(population, score - 1e4, mean, 1.0), path_integral(population, score, mean, 1.0), rtol=0.02, atol=1e-2
    )
