"""Which elite predicts which row, as identities."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from systems import SMALL, noiseless, small_ensemble

from mbkit.dynamics.network import Gaussian
from mbkit.dynamics.propagation import mixture, unroll
from mbkit.types import TaskKnowledge


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 23), mode=st.sampled_from(["ts_inf", "ts1", "expectation", "moment_matching"]))
def test_propagation_takes_any_number_of_rows(rows, mode):
    ensemble = small_ensemble(replace(SMALL, propagation=mode), fit=False)
    out = ensemble.rollout(ensemble.init(torch.randn(rows, 3)), torch.zeros(rows, 4, 2))
    assert out.obs.shape == (rows, 4, 3)
    assert out.reward.shape == out.terminated.shape == (rows, 4)
    assert out.terminated.dtype == torch.bool
    assert out.obs.isfinite().all()


def test_ts_infinity_shows_every_candidate_to_every_member():
    """With P = K particles, rows repeated particle-major, particle k of every candidate follows elite k all the way."""
    ensemble = noiseless(small_ensemble())
    candidates, horizon = 5, 4
    obs, actions = torch.randn(candidates, 3), torch.rand(candidates, horizon, 2) * 2 - 1
    out = ensemble.rollout(ensemble.init(obs.repeat(3, 1)), actions.repeat(3, 1, 1)).obs.view(3, candidates, horizon, 3)
    for k, member in enumerate(ensemble.network.elites.tolist()):
        x = obs
        for t in range(horizon):
            x = ensemble.predict(x, actions[:, t]).mean[member, :, :3].detach()
            torch.testing.assert_close(out[k, :, t], x, atol=1e-4, rtol=1e-4)


def test_ts1_deals_members_afresh():
    """Every row is one elite's prediction, and over many steps each elite gets its share of each row."""
    ensemble = noiseless(small_ensemble(replace(SMALL, propagation="ts1")))
    obs, action = torch.randn(7, 3), torch.zeros(7, 2)
    each = ensemble.predict(obs, action).mean[ensemble.network.elites, :, :3]
    hits = torch.zeros(3, 7)
    for _ in range(300):
        near = (ensemble.step(obs, action).obs - each).abs().amax(-1) < 1e-4
        assert near.any(0).all()
        hits += near
    assert (hits > 60).all()  # 100 expected, 8 its standard deviation


def test_expectation_of_one_member_is_the_network():
    ensemble = small_ensemble(replace(SMALL, members=1, elites=1, propagation="expectation"))
    obs, action = torch.randn(9, 3), torch.rand(9, 2)
    out, prediction = ensemble.step(obs, action), ensemble.predict(obs, action)
    torch.testing.assert_close(out.obs, prediction.mean[0, :, :3].detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.reward, prediction.mean[0, :, 3].detach(), atol=1e-5, rtol=1e-5)


def test_mixture_has_the_moments_of_the_members_together():
    mean, std = torch.randn(3, 2, 4), torch.rand(3, 2, 4) + 0.1
    both = mixture(Gaussian(mean, std, None), sampled=True)
    n = 400_000
    draws = (mean + std * torch.randn(n // 3, 3, 2, 4)).flatten(0, 1).view(-1, 2, 4)
    torch.testing.assert_close(both.mean, draws.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(both.std.square(), draws.var(0), atol=0.03, rtol=0.02)


def test_moment_matching_samples_the_gaussian_of_the_mixture():
    ensemble = small_ensemble(replace(SMALL, propagation="moment_matching"))
    obs, action = torch.randn(1, 3), torch.zeros(1, 2)
    p, elites = ensemble.predict(obs, action), ensemble.network.elites
    mean, var = p.mean[elites, 0, :3], p.var[elites, 0, :3]
    draws = ensemble.step(obs.expand(20000, 3), action.expand(20000, 2)).obs
    sigma = (var.mean(0) + mean.var(0, correction=0)).sqrt().detach()
    torch.testing.assert_close(draws.mean(0), mean.mean(0).detach(), atol=float(5 * sigma.max() / 20000**0.5), rtol=0)
    torch.testing.assert_close(draws.std(0), sigma, rtol=0.03, atol=0)


@pytest.mark.parametrize("relative", [0.0, 1.0])
def test_unroll_adds_changes_where_they_are_relative(relative):
    """Outcome (1, 2, t) of each step t: the observation counts up or is the outcome itself; the last number is the reward."""
    steps = []

    def draw(obs, action):
        steps.append(action)
        return torch.tensor([[1.0, 2.0, len(steps)]]), torch.tensor([len(steps) == 2])

    out = unroll(draw, torch.zeros(1, 2), torch.arange(3.0).view(3, 1, 1), torch.full((2,), relative), TaskKnowledge())
    assert torch.cat(steps).flatten().tolist() == [0, 1, 2]
    assert out.obs[:, 0].tolist() == ([[1, 2], [2, 4], [3, 6]] if relative else [[1, 2]] * 3)
    assert out.reward[:, 0].tolist() == [1, 2, 3]
    assert out.terminated[:, 0].tolist() == [False, True, False]


def test_unroll_adds_the_known_part_to_the_learned_reward():
    """Learned 7, known next_obs - 10 action."""
    task = TaskKnowledge(reward_part=lambda obs, action, next_obs: next_obs[:, 0] - 10 * action[:, 0])

    def draw(obs, action):
        return torch.cat((action, torch.full_like(action, 7.0)), -1), None

    out = unroll(draw, torch.zeros(1, 1), torch.arange(3.0).view(3, 1, 1), torch.ones(1), task)
    assert out.obs[:, 0, 0].tolist() == [0, 1, 3]
    assert out.reward[:, 0].tolist() == [7, 7 + 1 - 10, 7 + 3 - 20]
