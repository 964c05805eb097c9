"""Gates against torch.distributions, numpy's percentiles and rankings by hand."""

from itertools import combinations

import numpy as np
import pytest
import torch
from torch.distributions import Categorical as Weights
from torch.distributions import Independent, MixtureSameFamily, Normal, kl_divergence

from mbkit.imagination.gate import M2AC, MACURA, Confidence, geometric_js, least_uncertain, one_vs_rest, percentile, stored_share
from mbkit.types import Prediction


def prediction(members: int = 5, rows: int = 40, dims: int = 3, offset: float = 0.0) -> Prediction:
    torch.manual_seed(members)
    return Prediction(offset + torch.randn(members, rows, dims), torch.rand(members, rows, dims) + 0.1)


@pytest.mark.parametrize("members", [2, 3, 5, 6])
def test_one_vs_rest_is_the_mean_divergence_from_the_merged_others(members):
    p, total = prediction(members), torch.zeros(40)
    for e in range(members):
        others = [i for i in range(members) if i != e]
        parts = Normal(p.mean[others].permute(1, 2, 0), p.var[others].sqrt().permute(1, 2, 0))
        rest = MixtureSameFamily(Weights(torch.ones(40, 3, members - 1)), parts)
        total += kl_divergence(Normal(p.mean[e], p.var[e].sqrt()), Normal(rest.mean, rest.variance.sqrt())).sum(-1)
    torch.testing.assert_close(one_vs_rest(p), total / members)


@pytest.mark.parametrize("members", [2, 3, 5, 6])
def test_geometric_js_is_the_mean_divergence_of_the_geometric_mean_from_two_members(members):
    p, total = prediction(members), torch.zeros(40)
    for i, j in combinations(range(members), 2):
        precision = (1 / p.var[i] + 1 / p.var[j]) / 2
        mean = (p.mean[i] / p.var[i] + p.mean[j] / p.var[j]) / 2 / precision
        middle = Independent(Normal(mean, precision.rsqrt()), 1)
        for e in (i, j):
            total += kl_divergence(middle, Independent(Normal(p.mean[e], p.var[e].sqrt()), 1)) / 2
    torch.testing.assert_close(geometric_js(p), total / (members * (members - 1) / 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("measure", [one_vs_rest, geometric_js])
def test_one_vs_rest_and_geometric_js_equal_members_are_0_in_any_order(measure):
    p = prediction()
    same = Prediction(p.mean[:1].repeat(5, 1, 1), p.var[:1].repeat(5, 1, 1))
    torch.testing.assert_close(measure(same), torch.zeros(40), rtol=0, atol=1e-5)
    u, order = measure(p), torch.randperm(5)
    assert u.min() > 0
    torch.testing.assert_close(measure(Prediction(p.mean[order], p.var[order])), u)


@pytest.mark.parametrize("measure", [one_vs_rest, geometric_js])
def test_one_vs_rest_and_geometric_js_tiny_variances_far_from_zero_are_accurate(measure):
    p = Prediction(100 + 1e-2 * prediction().mean, 1e-4 * prediction().var)
    exact = Prediction(p.mean.double(), p.var.double())
    torch.testing.assert_close(measure(p).double(), measure(exact), rtol=1e-3, atol=1e-3)


def test_stored_share_shrinks_with_the_step():
    assert stored_share(0, 1, 0.5) == 0.5
    assert [stored_share(h, 4, 0.5) for h in range(4)] == [(4 - h) / (2 * 5) for h in range(4)]


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.3, 3), (0.31, 4), (0.5, 5), (1.0, 10)])
def test_least_uncertain_are_chosen_among_alive_rows(share, count):
    u = torch.tensor([5.0, 1, 9, 3, 7, 2, 8, 4, 6, 10, 0, 0.5, torch.nan, torch.inf])
    alive = torch.arange(14) < 10
    chosen = least_uncertain(u, alive, share)
    assert chosen.tolist() == (alive & (u <= count)).tolist()
    everything = least_uncertain(u, torch.ones(14, dtype=torch.bool), 1.0)
    assert everything.tolist() == u.isfinite().tolist()
    assert least_uncertain(torch.ones(6), torch.ones(6, dtype=torch.bool), 0.5).sum() == 3  # ties are broken


@pytest.mark.parametrize("q", [0.0, 37.5, 50.0, 95.0, 100.0])
def test_percentile_equals_numpys(q):
    u, alive = torch.randn(101).exp(), torch.rand(101) < 0.7
    assert float(percentile(u, alive, q)) == pytest.approx(np.percentile(u[alive].numpy(), q), rel=1e-5)


def test_m2ac_stores_the_least_uncertain_and_continues_the_others():
    p, alive = prediction(), torch.arange(40) < 30
    u = one_vs_rest(p)
    verdict = M2AC(0.5, 0.25, hard_stop=False)(p, alive, 1, 4)
    assert int(verdict.store.sum()) == 9  # 0.3 of 30
    assert u[verdict.store].max() < u[alive & ~verdict.store].min()
    assert not verdict.store[30:].any()
    assert verdict.go_on.all()
    torch.testing.assert_close(verdict.penalty, 0.25 * u)
    ending = M2AC(0.5, 0.25, hard_stop=True)(p, alive, 1, 4)
    assert torch.equal(ending.go_on, verdict.store)


def test_macura_ends_rows_above_the_running_mean_of_first_steps():
    alive, u = torch.ones(40, dtype=torch.bool), []
    gate = MACURA(1.5, 50.0, torch.device("cpu"))
    for round_, p in enumerate([prediction(3), prediction(4)]):
        u.append(geometric_js(p))
        kappa = 1.5 * np.mean([np.percentile(x.numpy(), 50) for x in u])
        first = gate(p, alive, 0, 10)
        assert first.store.tolist() == (u[-1] < kappa).tolist(), round_
        assert torch.equal(first.go_on, first.store)
        assert 0 < int(first.store.sum()) < 40
        deeper = Prediction(2 * p.mean, p.var)
        assert gate(deeper, alive, 1, 10).store.tolist() == (geometric_js(deeper) < kappa).tolist()  # later steps don't move kappa
        assert not first.penalty.any()


def test_macura_state_dict_round_trip_continues_identically():
    one, other, alive = MACURA(5.0, 95.0, torch.device("cpu")), MACURA(5.0, 95.0, torch.device("cpu")), torch.ones(40, dtype=torch.bool)
    one(prediction(3), alive, 0, 2)
    other.load_state_dict(one.state_dict())
    one(prediction(4), alive, 0, 2)
    other(prediction(4), alive, 0, 2)
    assert torch.equal(one.total / one.rounds, other.total / other.rounds)


def test_macura_round_without_finite_numbers_does_not_move_kappa():
    gate, alive, p = MACURA(5.0, 95.0, torch.device("cpu")), torch.ones(40, dtype=torch.bool), prediction(3)
    broken = Prediction(p.mean, torch.zeros_like(p.var))
    assert not gate(broken, alive, 0, 2).store.any()
    gate(p, alive, 0, 2)
    gate(broken, alive, 0, 2)
    assert float(gate.total / gate.rounds) == pytest.approx(5 * np.percentile(geometric_js(p).numpy(), 95), rel=1e-5)


def test_confidence_weighs_rows_by_the_standard_deviation_of_the_mixture():
    """Two members at +-d with variance v have the standard deviation sqrt(v + d^2)."""
    d, v, scale = torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([[16.0, 4.0], [0.0, 0.0]]), torch.tensor([10.0, 1.0])
    p = Prediction(torch.stack((d, -d)), torch.stack((v, v)))
    verdict = Confidence(scale)(p, torch.tensor([True, False]), 0, 3)
    sigma = (5 / 10 + 2 / 1) / 2
    torch.testing.assert_close(verdict.weight, torch.tensor([1 / (1 + sigma), 1.0]))
    assert verdict.store.all()
    assert verdict.go_on.all()
    assert not verdict.penalty.any()
    again = Confidence(10 * scale)(Prediction(10 * p.mean, 100 * p.var), torch.ones(2, dtype=torch.bool), 0, 3)
    torch.testing.assert_close(again.weight, verdict.weight)  # in any units
