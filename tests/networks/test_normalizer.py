"""Normalisers invert themselves, and running statistics equal those of all rows together."""

import torch

from mbkit.networks.normalizer import Normalizer, RunningNormalizer


def test_normalizer_normalises_and_inverts():
    x = torch.randn(1000, 3) * torch.tensor([1.0, 100.0, 1e-3]) + torch.tensor([0.0, 1e3, -5.0])
    normalizer = Normalizer(3)
    torch.testing.assert_close(normalizer(x), x)
    normalizer.fit(x)
    z = normalizer(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=2e-3, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(3), atol=2e-3, rtol=0)
    torch.testing.assert_close(normalizer.inverse(z), x)


def test_normalizer_constant_column_keeps_its_scale():
    normalizer = Normalizer(2)
    normalizer.fit(torch.stack((torch.full((9,), 3.0), torch.arange(9.0)), 1))
    assert normalizer.std[0] == 1
    assert normalizer(torch.tensor([[4.0, 0.0]]))[0, 0] == 1


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


def test_running_normalizer_keeps_constant_columns_and_clips_others():
    normalizer = RunningNormalizer(2)
    normalizer.update(torch.tensor([[3.0, 0.0], [3.0, 2.0]]))
    torch.testing.assert_close(normalizer(torch.tensor([[4.0, 100.0]])), torch.tensor([[1.0, 10.0]]))
