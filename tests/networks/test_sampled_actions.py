"""Critics of many actions at once: the values and gradients of autograd, whatever the chunks, the depth and the reduction."""

import pytest
import torch

from mbkit.networks import sampled_actions
from mbkit.networks.heads import Critics
from mbkit.networks.mlp import EnsembleMLP
from mbkit.networks.sampled_actions import action_level

K, B, M, INPUTS, A = 2, 7, 5, 3, 2


def problem(hidden=(8, 6), dtype=torch.float64):
    torch.manual_seed(0)
    net = EnsembleMLP(K, (INPUTS + A, *hidden, 1)).to(dtype)
    obs, action, log_density = torch.randn(B, INPUTS), 2 * torch.rand(B, M, A) - 1, torch.randn(B, M)
    return net, obs.to(dtype), action.to(dtype), log_density.to(dtype)


def composed(net, obs, action, log_density, weight=None):
    """By torch's own layers, every pair through all of them; the mean over states, or their sum with weights [B]."""
    x = torch.cat((obs[:, None].expand(-1, action.shape[1], -1), action), -1).flatten(0, 1).expand(K, -1, -1)
    for n, (w, b) in enumerate(net.layers):
        x = torch.baddbmm(b, x, w)
        x = x.relu() if n < len(net.layers) - 1 else x
    q = x.view(K, len(obs), -1)
    level = q.mean(2) if log_density is None else (q - log_density).logsumexp(-1)
    return level.mean(1) if weight is None else level @ weight


@pytest.mark.parametrize("rows", [1, 12, 1000])
@pytest.mark.parametrize("hidden", [(8,), (8, 6), (8, 6, 4)])
@pytest.mark.parametrize("reduced", ["logsumexp", "mean"])
@pytest.mark.parametrize("states", [None, torch.tensor([0.5, 0, 0.25, 0, 0, 0.25, 0], dtype=torch.float64)], ids=["all", "weighted"])
def test_action_level_is_that_of_autograd(monkeypatch, rows, hidden, reduced, states):
    monkeypatch.setattr(sampled_actions, "CHUNK_ROWS", rows)
    net, obs, action, log_density = problem(hidden)
    density = log_density if reduced == "logsumexp" else None
    weight, params = torch.tensor([1.0, -3.0], dtype=torch.float64), list(net.parameters())
    level, expected = action_level(net, obs, action, density, None, states), composed(net, obs, action, density, states)
    torch.testing.assert_close(level, expected)
    grads, autograd = (torch.autograd.grad((weight * x).sum(), params) for x in (level, expected))
    for mine, theirs in zip(grads, autograd, strict=True):
        torch.testing.assert_close(mine, theirs)
    with torch.no_grad():
        assert torch.equal(action_level(net, obs, action, density, None, states), level)


@pytest.mark.parametrize("states", [None, torch.rand(B, dtype=torch.float64)], ids=["all", "weighted"])
def test_action_level_gradient_by_finite_differences(states):
    net, obs, action, log_density = problem((4,))
    params = [p for layer in net.layers for p in layer]
    apply = lambda *p: sampled_actions.ActionLevel.apply(obs, action, log_density, torch.float64, states, *p)  # noqa: E731
    assert torch.autograd.gradcheck(apply, params)


def test_action_level_in_bfloat16_is_near_that_in_float32():
    net, obs, action, log_density = problem((64, 64), torch.float32)
    params = list(net.parameters())
    exact, rounded = (action_level(net, obs, action, log_density, dtype) for dtype in (torch.float32, torch.bfloat16))
    torch.testing.assert_close(rounded, exact, atol=0.01, rtol=0)
    assert rounded.dtype == torch.float32
    for mine, theirs in zip(*(torch.autograd.grad(x.sum(), params) for x in (rounded, exact)), strict=True):
        assert (mine - theirs).norm() <= 0.05 * theirs.norm()
        assert mine.dtype == torch.float32


def test_level_of_critics_normalises_observations():
    _, obs, action, log_density = problem(dtype=torch.float32)
    critics = Critics(K, INPUTS, A, (8,))
    plain = critics.level(obs, action, log_density)
    critics.inputs = torch.nn.Linear(INPUTS, INPUTS)
    assert not torch.allclose(critics.level(obs, action, log_density), plain)
    torch.testing.assert_close(critics.level(obs, action, log_density), composed(critics.net, critics.inputs(obs), action, log_density))


def test_other_networks_are_refused():
    _, obs, action, log_density = problem(dtype=torch.float32)
    for options in ({"layer_norm": True}, {"dropout": 0.1}):
        with pytest.raises(ValueError, match="without layer normalisation and dropout"):
            action_level(EnsembleMLP(K, (INPUTS + A, 8, 1), **options), obs, action, log_density)
