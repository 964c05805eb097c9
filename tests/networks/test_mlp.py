"""EnsembleMLP against plain networks, member by member; initialisations."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mbkit.networks.kernels import ACTIVATION, MANY_ROWS
from mbkit.networks.mlp import EnsembleMLP, mlp, orthogonal_init_, truncated_normal_init_


def plain(net: EnsembleMLP, e: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for w, b in zip(net.weight, net.bias, strict=True):
        linear = nn.Linear(w.shape[1], w.shape[2])
        linear.weight.data, linear.bias.data = w[e].detach().T.clone(), b[e, 0].detach().clone()
        layers += [linear, nn.SiLU() if net.activation == "silu" else nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("rows", [1, 7, 3 * MANY_ROWS])
def test_ensemble_mlp_member_equals_a_plain_mlp(activation, rows):
    net = EnsembleMLP(3, (4, 16, 16, 2), activation)
    x = torch.randn(3, rows, 4)
    with torch.no_grad():
        out = net(x)
    for e in range(3):
        torch.testing.assert_close(out[e], plain(net, e)(x[e]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(net(x), out, atol=1e-5, rtol=1e-5)  # with gradient another kernel is used
    torch.testing.assert_close(net(x[0])[1], plain(net, 1)(x[0]), atol=1e-5, rtol=1e-5)  # shared rows


def test_ensemble_mlp_gradients_equal_those_of_a_plain_mlp():
    net = EnsembleMLP(2, (3, 8, 1), "silu")
    one, x = plain(net, 1), torch.randn(5, 3)
    net(x)[1].sum().backward()
    one(x).sum().backward()
    torch.testing.assert_close(net.weight[0].grad[1], one[0].weight.grad.T)
    assert not net.weight[0].grad[0].any()


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_ensemble_mlp_gradients_equal_those_of_linear_layers(activation, members, shared):
    """Outputs and gradients of weights, biases and inputs at an agent's sizes, against F.linear on every member by itself."""
    net = EnsembleMLP(members, (5, 64, 64, 2), activation)
    x = torch.randn(256, 5) if shared else torch.randn(members, 256, 5)
    push = torch.randn(members, 256, 2) / 256
    mine = x.clone().requires_grad_()
    ((out := net(mine)) * push).sum().backward()
    act, weights, biases, other = ACTIVATION[activation], [], [], x.clone().requires_grad_()
    rows = []
    for e in range(members):
        h = other if shared else other[e]
        w = [p[e].detach().T.contiguous().requires_grad_() for p in net.weight]
        b = [p[e, 0].detach().clone().requires_grad_() for p in net.bias]
        for n in range(3):
            h = F.linear(h, w[n], b[n])
            h = act(h) if n < 2 else h
        rows.append(h)
        weights.append(w)
        biases.append(b)
    (torch.stack(rows) * push).sum().backward()
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(out, torch.stack(rows), **close)
    torch.testing.assert_close(mine.grad, other.grad, **close)
    for n in range(3):
        torch.testing.assert_close(net.weight[n].grad, torch.stack([w[n].grad.T for w in weights]), **close)
        torch.testing.assert_close(net.bias[n].grad[:, 0], torch.stack([b[n].grad for b in biases]), **close)


def test_truncated_normal_init_weights_lie_within_two_sigmas():
    net = truncated_normal_init_(EnsembleMLP(4, (16, 200, 3)))
    for w, b in zip(net.weight, net.bias, strict=True):
        sigma = 0.5 / w.shape[1] ** 0.5
        assert w.abs().max() <= 2 * sigma
        assert 0.8 * sigma < w.std() < 0.95 * sigma  # 0.88 is the spread of a normal cut at two sigmas
        assert not b.any()


def test_mlp_weights_are_orthogonal_and_biases_zero():
    net = mlp((6, 16, 16, 3), last_gain=0.01)
    for n, gain in ((2, math.sqrt(2)), (4, 0.01)):
        w = net[n].weight
        torch.testing.assert_close(w @ w.T, gain**2 * torch.eye(len(w)), atol=1e-5, rtol=1e-5)
        assert not net[n].bias.any()
    assert len(net) == 5  # no activation behind the last layer


def test_orthogonal_init_of_every_member_is_that_of_mlp():
    net = orthogonal_init_(EnsembleMLP(2, (6, 16, 16, 3)), last_gain=0.01)
    for n, gain in ((1, math.sqrt(2)), (2, 0.01)):
        for w in net.weight[n]:
            torch.testing.assert_close(w.T @ w, gain**2 * torch.eye(w.shape[1]), atol=1e-5, rtol=1e-5)
        assert not net.bias[n].any()
    assert not torch.equal(net.weight[1][0], net.weight[1][1])
