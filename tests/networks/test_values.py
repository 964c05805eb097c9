"""Outputs of critics as values: gradients, distributions of targets by closed forms and brute force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal

from mbkit.networks.form import CriticForm
from mbkit.networks.values import ATOMS, BOUND, SIGMA, Distributional, Squared, outputs_of
from mbkit.types import Targets


def categorical(scale: float = 1.0) -> Distributional:
    outputs = Distributional()
    outputs.scale.fill_(scale)
    return outputs.double()


def targets(y: torch.Tensor, weight: torch.Tensor | None = None, probs: torch.Tensor | None = None) -> Targets:
    return Targets(y[:, None], y[:, None], y, weight, None, probs)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outputs", [Squared(), Squared(huber=True), categorical(3.0)], ids=["mse", "huber", "hl_gauss"])
def test_slopes_are_the_gradients_of_autograd(outputs, weighted):
    out = 3 * torch.randn(2, 6, outputs.width, dtype=torch.float64, requires_grad=True)
    y = targets(5 * torch.randn(6, dtype=torch.float64), torch.rand(6, dtype=torch.float64) if weighted else None)
    expected = torch.autograd.grad(outputs.loss(out, y), out)[0]
    torch.testing.assert_close(outputs.loss_slopes(out.detach(), y), expected)
    slope = torch.randn(2, 6, dtype=torch.float64)
    expected = torch.autograd.grad(outputs.values(out), out, slope)[0]
    torch.testing.assert_close(outputs.slopes(out.detach(), slope), expected)


def test_names_of_losses():
    assert isinstance(outputs_of(CriticForm(loss="mse")), Squared)
    assert outputs_of(CriticForm(loss="huber")).huber
    assert isinstance(outputs_of(CriticForm(loss="c51")), Distributional)


@given(y=st.floats(-30, 30), scale=st.floats(0.1, 10))
def test_mass_round_a_target_is_that_of_a_normal_distribution_within_the_support(y, scale):
    outputs = categorical(scale)
    mass = outputs.around(torch.tensor([y], dtype=torch.float64))[0]
    centre, half = min(max(y / float(outputs.scale), -BOUND), BOUND), outputs.step / 2
    normal = Normal(torch.tensor(centre, dtype=torch.float64), SIGMA * outputs.step)
    by_hand = normal.cdf(outputs.support + half) - normal.cdf(outputs.support - half)
    torch.testing.assert_close(mass, by_hand / by_hand.sum(), rtol=1e-5, atol=1e-7)
    assert mass.sum().item() == pytest.approx(1)


@given(y=st.floats(-BOUND, BOUND), scale=st.floats(0.1, 1000))
def test_a_known_value_is_recovered_within_a_bin(y, scale):
    outputs = categorical(scale)
    for mass in (
        outputs.around(torch.tensor([y * scale], dtype=torch.float64)),
        outputs.projected(torch.full((1, ATOMS), 1 / ATOMS).double(), torch.tensor([y * scale]).double(), torch.zeros(1).double()),
    ):
        assert abs(outputs.values(mass.clamp(min=1e-30).log()).item() - y * scale) <= outputs.step * scale


@settings(max_examples=50)
@given(shift=st.floats(-8, 8), factor=st.floats(0, 1), seed=st.integers(0, 1000))
def test_projection_by_brute_force(shift, factor, seed):
    outputs = categorical(2.0)
    probs = torch.rand(1, ATOMS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    probs /= probs.sum()
    expected = [0.0] * ATOMS
    for z, p in zip(outputs.support.tolist(), probs[0].tolist(), strict=True):
        place = (min(max(shift / 2 + factor * z, -BOUND), BOUND) + BOUND) / outputs.step
        low = min(int(place), ATOMS - 2)
        expected[low] += p * (1 - (place - low))
        expected[low + 1] += p * (place - low)
    came = outputs.projected(probs, torch.tensor([shift], dtype=torch.float64), torch.tensor([factor], dtype=torch.float64))
    torch.testing.assert_close(came[0], torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9)
    assert came.sum().item() == pytest.approx(1)


def test_a_projection_within_the_support_keeps_the_mean():
    outputs, probs = categorical(4.0), torch.rand(3, ATOMS, dtype=torch.float64).softmax(-1)
    shift, factor = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), torch.tensor([0.9, 0.5, 0.0], dtype=torch.float64)
    came = outputs.values(outputs.projected(probs, shift, factor).log())
    torch.testing.assert_close(came, shift + factor * outputs.values(probs.log()), atol=1e-6, rtol=0)


def test_share_of_targets_beyond_the_support():
    outputs = categorical(2.0)
    assert outputs.outside(targets(torch.tensor([9.9, -10.1, 10.1, 0.0], dtype=torch.float64))).item() == 0.5


def test_a_projection_of_what_is_no_number_is_no_number_and_leaves_the_other_rows():
    outputs, nan = categorical(2.0), float("nan")
    probs, factor = torch.full((3, ATOMS), 1 / ATOMS, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    came = outputs.projected(probs, torch.tensor([0.0, nan, float("inf")], dtype=torch.float64), factor)
    torch.testing.assert_close(came[0], probs[0])
    assert came[1].isnan().any()
    assert came[2, -1] == pytest.approx(1)
