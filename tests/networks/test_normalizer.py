"""Normalisers invert themselves, and running statistics equal those of all rows together."""

import pytest
import torch

from mbkit.networks.normalizer import InputNormalizer, Normalizer, RunningNormalizer


def test_normalizer_normalises_and_inverts():
    x = torch.randn(1000, 3) * torch.tensor([1.0, 100.0, 1e-3]) + torch.tensor([0.0, 1e3, -5.0])
    normalizer = Normalizer(3)
    torch.testing.assert_close(normalizer(x), x)
    normalizer.fit(x)
    z = normalizer(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=2e-3, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(3), atol=2e-3, rtol=0)
    torch.testing.assert_close(normalizer.inverse(z), x)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_normalizer_constant_column_is_scaled_by_its_size(unit):
    normalizer = Normalizer(3)
    rest = torch.full((9,), 4.0) * unit
    rest[0] *= 1 + 2**-22  # a rounding is no signal
    normalizer.fit(torch.stack((rest, torch.arange(9.0), torch.zeros(9)), 1))
    torch.testing.assert_close(normalizer(torch.tensor([[5.0 * unit, 4.0, 0.0]])), torch.tensor([[0.25, 0.0, 0.0]]))
    assert normalizer.std[2] == 1


def test_normalizer_floor_is_the_least_standard_deviation():
    normalizer = Normalizer(2)
    normalizer.fit(torch.tensor([[0.0, 5.0], [2.0, 5.0]]), floor=torch.tensor([1e-3, 1e-3]))
    torch.testing.assert_close(normalizer.std, torch.tensor([2**0.5, 1e-3]))


def test_normalizer_spread_beside_a_large_mean_is_exact():
    x = 1e5 + torch.randn(2000, 1, dtype=torch.float64)
    normalizer = Normalizer(1).double()
    normalizer.fit(x)
    torch.testing.assert_close(normalizer.std, x.std(0))


def test_input_normalizer_keeps_columns_within_twice_the_datas_range_but_for_free_ones():
    normalizer = InputNormalizer(3, free=1)
    raw = torch.randn(5, 3) * 1e6
    assert torch.equal(normalizer(raw), raw)  # the identity before it is fitted
    normalizer.fit(torch.tensor([[1.0, 7.0, 0.0], [3.0, 7.0, 1.0]]))
    far = torch.tensor([[-100.0, 1e9, 50.0], [100.0, -1e9, -50.0]])
    assert normalizer.bound(far).tolist() == [[-1.0, 7.0, 50.0], [5.0, 7.0, -50.0]]
    assert normalizer(far)[:, 1].tolist() == [0.0, 0.0]  # a constant column says nothing
    inside = torch.tensor([[-1.0, 7.0, 9.0], [5.0, 7.0, -9.0]])
    assert torch.equal(normalizer.bound(inside), inside)
    assert normalizer(torch.full((1, 3), torch.nan)).isnan().all()


def test_running_normalizer_statistics_equal_those_of_all_rows():
    torch.manual_seed(0)
    parts = [torch.randn(n, 3) * torch.tensor([1.0, 100.0, 1e-3]) + 1000 * k for k, n in enumerate((1, 7, 500, 2))]
    normalizer, everything = RunningNormalizer(3), torch.cat(parts).double()
    assert torch.equal(
        normalizer(parts[2][:, :1].expand(-1, 3) / 1000), parts[2][:, :1].expand(-1, 3) / 1000
    )  # the identity before the first update
    for part in parts:
        normalizer.update(part)
    torch.testing.assert_close(normalizer.mean, everything.mean(0).float())
    torch.testing.assert_close(normalizer.std, everything.std(0, correction=0).float())
    z = (everything - everything.mean(0)) / everything.std(0, correction=0)
    torch.testing.assert_close(normalizer(everything.float()), z.clamp(-10, 10).float(), atol=1e-3, rtol=1e-3)


def test_running_normalizer_scales_constant_columns_by_their_size_and_clips_others():
    normalizer = RunningNormalizer(2)
    normalizer.update(torch.tensor([[4.0, 0.0], [4.0, 2.0]]))
    torch.testing.assert_close(normalizer(torch.tensor([[5.0, 100.0]])), torch.tensor([[0.25, 10.0]]))


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_running_normalizer_is_the_same_in_any_units(unit):
    rows, results = torch.randn(50, 2), []
    for scale in (1.0, unit):
        normalizer = RunningNormalizer(2)
        normalizer.update(rows * scale)
        results.append(normalizer(rows * scale))
    torch.testing.assert_close(*results)
