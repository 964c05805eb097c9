"""The fast copy of the elites equals the networks as written, and the layout of rows loses nothing."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from systems import CPU, SMALL, SPEC, linear_gaussian, small_ensemble

from mbkit.dynamics.ensemble import Ensemble
from mbkit.dynamics.frozen import blocks, bounded_sample, bounded_std, deal, entered
from mbkit.dynamics.network import soft_bounded_logvar
from mbkit.networks.frozen import silu_with_bias


def test_bounded_std_is_that_of_soft_bounded_logvar():
    raw = torch.linspace(-200, 200, 401)
    low, high = torch.tensor(-10.0), torch.tensor(0.5)
    logvar = soft_bounded_logvar(raw, low, high)
    torch.testing.assert_close(bounded_std(raw - high, low.exp(), high.exp()), (0.5 * logvar).exp(), rtol=1e-4, atol=0)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 60), members=st.integers(1, 7))
def test_blocks_follow_the_row_order_and_lose_nothing(rows, members):
    pad = blocks(rows, members, CPU)
    if pad is None:
        assert rows % members == 0
        return
    row = torch.arange(rows)
    size = len(pad.source) // members
    assert torch.equal(pad.source[pad.place], row)
    assert torch.equal(pad.place // size, row * members // rows)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 60), members=st.integers(1, 7))
def test_deal_gives_equal_shares_and_loses_nothing(rows, members):
    hand = deal(rows, members, CPU)
    assert torch.equal(hand.source[hand.place], torch.arange(rows))
    shares = torch.bincount(hand.place // (len(hand.source) // members), minlength=members)
    assert shares.max() - shares.min() <= 1


@pytest.mark.parametrize("scaled", [False, True])
def test_frozen_elites_equal_the_network_as_written(scaled):
    data = linear_gaussian(200)
    data = data._replace(obs=data.obs * 5 + 20, next_obs=data.next_obs * 5 + 20)
    ensemble = small_ensemble(replace(SMALL, scale_targets=scaled), fit=False)
    ensemble.fit(data)
    network, elites = ensemble.network, ensemble.network.elites
    x = ensemble.frozen.inputs(data.obs, data.action)
    mean, std, _ = ensemble.frozen.gaussian(ensemble.frozen(x.expand(3, *x.shape)))
    p = ensemble.predict(data.obs, data.action)
    scale = network.targets.std  # errors are relative to what is predicted
    torch.testing.assert_close((mean[..., :3] + data.obs) / scale[:3], (p.mean[elites, :, :3] / scale[:3]).detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(std / scale, (p.var[elites].sqrt() / scale).detach(), atol=1e-5, rtol=1e-4)


def test_frozen_elites_are_refreshed_in_place():
    ensemble = small_ensemble(fit=False)
    places = [w.data_ptr() for w in ensemble.frozen.layers.weight], ensemble.frozen.var_bounds.data_ptr()
    ensemble.fit(linear_gaussian(200))
    assert places == ([w.data_ptr() for w in ensemble.frozen.layers.weight], ensemble.frozen.var_bounds.data_ptr())


def test_frozen_elites_in_bfloat16_are_close_to_float32():
    exact = small_ensemble(replace(SMALL, hidden=(64, 64), propagation="expectation"))
    coarse = Ensemble(SPEC, replace(exact.cfg, precision="bfloat16"))
    coarse.load_state_dict(exact.state_dict())
    obs, action = torch.randn(500, 3), torch.rand(500, 2)
    error = (coarse.step(obs, action).obs - exact.step(obs, action).obs).abs().max()
    assert 0 < error < 0.02


def sine(obs: torch.Tensor) -> torch.Tensor:
    """A task's own inputs."""
    return torch.cat((obs[..., :1].sin(), obs[..., 1:]), -1)


@pytest.mark.slow
def test_compiled_kernels_equal_the_plain_functions():
    """What is one kernel each on a GPU with Triton, compiled for this processor, for two numbers of rows."""
    low, high, mean, std = torch.full((3,), -1.0), torch.ones(3), torch.randn(5), torch.rand(5) + 0.5
    for rows in (40, 7):
        obs, action, noise = torch.randn(rows, 3), torch.rand(rows, 2), torch.randn(rows, 4)
        outputs, bias = torch.randn(2, rows, 8), torch.randn(2, 1, 8)
        calls = [
            (entered, (obs, action, sine, low, high)),
            (entered, (obs, action, None, low, high, mean, std)),
            (bounded_sample, (outputs[0, :, :4], outputs[0, :, 4:], noise, torch.rand(4), torch.rand(4) + 1)),
            (silu_with_bias, (outputs, bias)),
        ]
        for fn, arguments in calls:
            torch.testing.assert_close(torch.compile(fn, dynamic=True)(*arguments), fn(*arguments))
