"""Networks: a member is an MLP, the normaliser inverts, Polyak's limits hold, a copy is made when it is due."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mbkit.networks.heads import Critics
from mbkit.networks.kernels import ACTIVATION, MANY_ROWS
from mbkit.networks.mlp import EnsembleMLP, truncated_normal_init_
from mbkit.networks.normalizer import Normalizer
from mbkit.networks.optimizers import copy_when_, params_of, polyak_, restore_optimizer_
from mbkit.networks.policy import TanhGaussian


def plain(net: EnsembleMLP, e: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for w, b in zip(net.weight, net.bias, strict=True):
        linear = nn.Linear(w.shape[1], w.shape[2])
        linear.weight.data, linear.bias.data = w[e].detach().T.clone(), b[e, 0].detach().clone()
        layers += [linear, nn.SiLU() if net.activation == "silu" else nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("rows", [1, 7, 3 * MANY_ROWS])
def test_each_member_is_a_plain_mlp(activation, rows):
    net = EnsembleMLP(3, (4, 16, 16, 2), activation)
    x = torch.randn(3, rows, 4)
    with torch.no_grad():
        out = net(x)
    for e in range(3):
        torch.testing.assert_close(out[e], plain(net, e)(x[e]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(net(x), out, atol=1e-5, rtol=1e-5)  # with gradient another kernel is used
    torch.testing.assert_close(net(x[0])[1], plain(net, 1)(x[0]), atol=1e-5, rtol=1e-5)  # shared rows


def test_gradients_are_those_of_a_plain_mlp():
    net = EnsembleMLP(2, (3, 8, 1), "silu")
    one, x = plain(net, 1), torch.randn(5, 3)
    net(x)[1].sum().backward()
    one(x).sum().backward()
    torch.testing.assert_close(net.weight[0].grad[1], one[0].weight.grad.T)
    assert not net.weight[0].grad[0].any()


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_gradients_are_those_of_linear_layers_member_by_member(activation, members, shared):
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


@pytest.mark.parametrize("options", [{}, {"layer_norm": True}])
def test_first_critic_is_the_first_of_all(options):
    critics = Critics(3, 4, 2, (16, 16), **options)
    obs, action = torch.randn(9, 4), torch.randn(9, 2, requires_grad=True)
    q = critics.first(obs, action)
    torch.testing.assert_close(q, critics(obs, action)[0])
    (mine,), (theirs,) = (torch.autograd.grad(v.sum(), action) for v in (q, critics(obs, action)[0]))
    torch.testing.assert_close(mine, theirs)


def test_squashed_density_is_that_of_torch_distributions():
    policy = TanhGaussian(4, 3, (16,)).double()
    obs = torch.randn(50, 4, dtype=torch.float64)
    action, log_prob = policy.rsample(obs)
    mean, log_std = policy(obs)
    squashed = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean, log_std.exp()), torch.distributions.TanhTransform()
    )
    torch.testing.assert_close(log_prob, squashed.log_prob(action).sum(-1), atol=1e-8, rtol=1e-8)


def test_truncated_normal_init_stays_within_two_sigmas():
    net = truncated_normal_init_(EnsembleMLP(4, (16, 200, 3)))
    for w, b in zip(net.weight, net.bias, strict=True):
        sigma = 0.5 / w.shape[1] ** 0.5
        assert w.abs().max() <= 2 * sigma
        assert 0.8 * sigma < w.std() < 0.95 * sigma  # 0.88 is the spread of a normal cut at two sigmas
        assert not b.any()


def test_normalizer_normalises_and_inverts():
    x = torch.randn(1000, 3) * torch.tensor([1.0, 100.0, 1e-3]) + torch.tensor([0.0, 1e3, -5.0])
    normalizer = Normalizer(3)
    torch.testing.assert_close(normalizer(x), x)
    normalizer.fit(x)
    z = normalizer(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=2e-3, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(3), atol=2e-3, rtol=0)
    torch.testing.assert_close(normalizer.inverse(z), x)


def test_constant_column_keeps_its_scale():
    normalizer = Normalizer(2)
    normalizer.fit(torch.stack((torch.full((9,), 3.0), torch.arange(9.0)), 1))
    assert normalizer.std[0] == 1
    assert normalizer(torch.tensor([[4.0, 0.0]]))[0, 0] == 1


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0])
def test_polyak(tau):
    target, online = EnsembleMLP(2, (3, 4, 1)), EnsembleMLP(2, (3, 4, 1))
    expected = [(1 - tau) * t + tau * o for t, o in zip(target.parameters(), online.parameters(), strict=True)]
    polyak_(target, online, tau)
    for t, e in zip(target.parameters(), expected, strict=True):
        torch.testing.assert_close(t.detach(), e.detach())


def test_optimizer_is_restored_in_place():
    net = EnsembleMLP(1, (3, 4, 1))
    optimizer = torch.optim.Adam(net.parameters(), fused=True)

    def step():
        optimizer.zero_grad()
        F.mse_loss(net(torch.ones(2, 3)), torch.ones(1, 2, 1)).backward()
        optimizer.step()

    step()
    saved = deepcopy(optimizer.state_dict())
    moment = optimizer.state[net.weight[0]]["exp_avg"]
    place = moment.data_ptr()
    step()
    restore_optimizer_(optimizer, saved)
    assert optimizer.state[net.weight[0]]["exp_avg"].data_ptr() == place
    torch.testing.assert_close(optimizer.state[net.weight[0]]["exp_avg"], saved["state"][0]["exp_avg"], rtol=0, atol=0)


@pytest.mark.parametrize("due", [False, True])
def test_a_copy_is_made_when_it_is_due(due):
    online, slow = EnsembleMLP(2, (3, 4, 2)), EnsembleMLP(2, (3, 4, 2))
    before = [p.detach().clone() for p in slow.parameters()]
    copy_when_(slow, online, torch.tensor(due))
    expected = online.parameters() if due else before
    assert all(torch.equal(a, b) for a, b in zip(slow.parameters(), expected, strict=True))


def test_a_copied_module_lists_parameters_of_its_own():
    net = EnsembleMLP(2, (3, 4, 2))
    assert [id(p) for p in params_of(net)] == [id(p) for p in net.parameters()]
    twin = deepcopy(net)
    assert [id(p) for p in params_of(twin)] == [id(p) for p in twin.parameters()]
    assert not {id(p) for p in params_of(twin)} & {id(p) for p in params_of(net)}
