"""Noise against its closed forms and scipy; elites and refits against any mixture of NaN and infinite scores."""

import itertools
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mbkit.planning.sampling import better, coloured_normal, colouring, join, refit, rounds, top, truncated_normal


def test_truncated_normal_moments_match_scipy():
    torch.manual_seed(0)
    draws = truncated_normal(torch.empty(()), 200_000).double().numpy()
    oracle = stats.truncnorm(-2, 2)
    assert np.abs(draws).max() <= 2 + 1e-6
    for power in (1, 2, 3, 4):
        error = 5 * np.std(draws**power) / math.sqrt(draws.size)
        assert np.mean(draws**power) == pytest.approx(oracle.moment(power), abs=error)
    assert stats.kstest(draws, oracle.cdf).pvalue > 1e-3


@pytest.mark.parametrize("horizon", [1, 2, 7, 24, 25])
def test_colouring_exponent_0_is_the_identity(horizon):
    torch.testing.assert_close(colouring(horizon, 0.0, torch.float64, torch.device("cpu")), torch.eye(horizon, dtype=torch.float64))


@pytest.mark.parametrize("exponent", [0.25, 1.0, 2.0, 3.5])
def test_colouring_spectrum_has_the_slope_of_the_exponent(exponent):
    filter_ = colouring(64, exponent, torch.float64, torch.device("cpu"))
    torch.testing.assert_close(filter_.square().sum(1), torch.ones(64, dtype=torch.float64))  # unit variance at every step
    power = torch.fft.rfft(filter_, dim=0).abs().square().sum(1)[1:]
    frequency = torch.fft.rfftfreq(64, dtype=torch.float64)[1:]
    slope = stats.linregress(frequency.log(), power.log()).slope
    assert slope == pytest.approx(-exponent, abs=1e-6)


def test_coloured_normal_draws_have_the_slope_and_are_independent_over_actions():
    torch.manual_seed(0)
    noise = coloured_normal(torch.zeros(2, 50, 3), 2000, 2.0)
    power = torch.fft.rfft(noise, dim=2).abs().square().mean((0, 1, 3))[1:]
    frequency = torch.fft.rfftfreq(50)[1:]
    assert stats.linregress(frequency.log(), power.log()).slope == pytest.approx(-2, abs=0.05)
    assert torch.corrcoef(noise[..., 0, :].flatten(0, 1).T).fill_diagonal_(0).abs().max() < 0.1
    assert noise.std() == pytest.approx(1, abs=0.03)


SCORES = st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=6, max_size=6)


@settings(deadline=None, max_examples=200)
@given(SCORES, st.integers(1, 6), st.floats(0, 1))
def test_top_and_refit_use_finite_scores_only(scores, elites, momentum):
    score = torch.tensor([scores])
    population = torch.linspace(-1, 1, 6).view(1, 6, 1, 1)
    mean, var = torch.full((1, 1, 1), 0.3), torch.full((1, 1, 1), 0.2)
    chosen, chosen_score = top(population, score, elites)
    new_mean, new_var = refit(chosen, chosen_score, mean, var, momentum)
    finite = [(s, x) for s, x in zip(scores, population.flatten().tolist(), strict=True) if math.isfinite(s)]
    best = sorted((s for s, _ in finite), reverse=True)[:elites]
    assert [s for s in chosen_score[0].tolist() if math.isfinite(s)] == best
    value = {x: s for s, x in finite}
    members = [x for x, s in zip(chosen.flatten().tolist(), chosen_score[0].tolist(), strict=True) if math.isfinite(s)]
    assert all(value[x] == s for x, s in zip(members, best, strict=True))
    want_mean = momentum * 0.3 + (1 - momentum) * np.mean(members) if members else 0.3
    want_var = momentum * 0.2 + (1 - momentum) * np.var(members) if members else 0.2
    assert new_mean.item() == pytest.approx(want_mean, abs=1e-6)
    assert new_var.item() == pytest.approx(want_var, abs=1e-6)


def test_better_tie_or_minus_infinity_returns_the_old():
    old, new = torch.zeros(3, 1, 1), torch.ones(3, 2, 1, 1)
    actions, score = better(old, torch.tensor([1.0, 1.0, -torch.inf]), new, torch.tensor([[2.0, 0], [1, 0], [-torch.inf, -torch.inf]]))
    assert actions.flatten().tolist() == [1, 0, 0]
    assert score.tolist() == [2, 1, -torch.inf]


def test_join_proposals_are_clipped_to_the_box_without_nan():
    joined = join(torch.full((1, 2, 1, 1), 1.0000001), torch.tensor([torch.nan, 7.0, -torch.inf]).view(1, 3, 1, 1))
    assert joined.flatten().tolist() == [1, 1, 0, 1, -1]


def test_rounds_without_budget_reads_no_clock(monkeypatch):
    monkeypatch.setattr(time, "perf_counter", lambda: pytest.fail("clock read"))
    assert list(rounds(4, None, torch.empty(()))) == [0, 1, 2, 3]


def test_rounds_budget_stops_before_the_iteration_that_would_overrun(monkeypatch):
    clock = itertools.count()  # one second per reading, so per round
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    assert list(rounds(9, 3000.0, torch.empty(()))) == [0, 1, 2]
    assert list(rounds(9, 0.001, torch.empty(()))) == [0]
    assert list(rounds(2, 3000.0, torch.empty(()))) == [0, 1]
