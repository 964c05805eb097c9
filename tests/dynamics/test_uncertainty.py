"""Measures of a prediction against brute force."""

import pytest
import torch

from mbkit.dynamics import uncertainty as u
from mbkit.types import Prediction

E, B, D = 5, 6, 3


@pytest.fixture
def prediction() -> Prediction:
    torch.manual_seed(0)
    return Prediction(torch.randn(E, B, D), torch.rand(E, B, D) + 0.1)


def test_parts_sum_to_the_variance_of_the_mixture(prediction):
    draws = prediction.mean + prediction.var.sqrt() * torch.randn(100_000, E, B, D)
    torch.testing.assert_close(u.total_variance(prediction), draws.flatten(0, 1).var(0), rtol=0.02, atol=0)
    torch.testing.assert_close(u.aleatoric(prediction) + u.epistemic(prediction), u.total_variance(prediction))
    torch.testing.assert_close(u.ensemble_std(prediction).square(), u.total_variance(prediction).sum(-1))


def test_members_that_agree_leave_only_noise(prediction):
    same = Prediction(prediction.mean[:1].expand(E, B, D), prediction.var)
    for measure in (u.epistemic, u.disagreement, u.distance_from_mean, u.ensemble_variance):
        torch.testing.assert_close(measure(same), torch.zeros_like(measure(same)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("members", [1, 2, 4, 5])
def test_disagreement_is_the_largest_distance_of_any_pair(prediction, members):
    mean = prediction.mean[:members]
    brute = (mean[:, None] - mean[None]).norm(dim=-1).amax((0, 1))
    torch.testing.assert_close(u.disagreement(Prediction(mean, prediction.var[:members])), brute)


def test_max_aleatoric_is_the_longest_sigma(prediction):
    brute = torch.stack([s.norm(dim=-1) for s in prediction.var.sqrt()]).amax(0)
    torch.testing.assert_close(u.max_aleatoric(prediction), brute)


def test_distance_from_mean(prediction):
    brute = torch.stack([(m - prediction.mean.mean(0)).norm(dim=-1) for m in prediction.mean]).amax(0)
    torch.testing.assert_close(u.distance_from_mean(prediction), brute)


def test_mixture_nll_is_torchs(prediction):
    y = torch.randn(B, D)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(B, D, E)),
        torch.distributions.Normal(prediction.mean.permute(1, 2, 0), prediction.var.sqrt().permute(1, 2, 0)),
    )
    torch.testing.assert_close(u.mixture_nll(prediction, y), -mixture.log_prob(y))
