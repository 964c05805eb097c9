"""Architectures of critics: members alone and as constants, projections, batch statistics, residual blocks by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mbkit.errors import UserError
from mbkit.networks.critics.batch_norm import EPSILON, MOMENTUM, BatchNorm
from mbkit.networks.critics.simba import Simba
from mbkit.networks.critics.simba_v2 import SimbaV2
from mbkit.networks.form import CriticForm
from mbkit.networks.heads import ActionValues, Critics, target_network
from mbkit.networks.optimizers import polyak_
from mbkit.networks.passes import CriticPass, TakenPass
from mbkit.registry import critics

NAMES = [entry.name for entry in critics]
LOSSES = ["mse", "hl_gauss", "c51"]
MODERN = [BatchNorm, Simba, SimbaV2]


def moved(net: nn.Module) -> nn.Module:
    """The network with random parameters, statistics included."""
    for p in net.parameters():
        p.data.add_(0.1 * torch.rand_like(p))
    return net


@pytest.mark.parametrize("name", NAMES)
def test_members_asked_alone_answer_as_among_all(name):
    net = moved(critics[name].target(3, (4, 16, 16, 2), CriticForm(name)))
    x = torch.randn(7, 4)
    every = net(x)
    assert every.shape == (3, 7, 2)
    torch.testing.assert_close(net(x, members=slice(1, 2)), every[1:2])
    torch.testing.assert_close(net(x.expand(3, 7, 4)), every)


@pytest.mark.parametrize("name", NAMES)
def test_constant_parameters_get_no_gradient_and_inputs_do(name):
    net = moved(critics[name].target(2, (4, 8, 8, 1), CriticForm(name)))
    x = torch.randn(5, 4, requires_grad=True)
    grad = torch.autograd.grad(net(x, fixed=True).sum(), [x])[0]
    torch.testing.assert_close(grad, torch.autograd.grad(net(x).sum(), [x])[0])
    learned = [p for p in net.parameters() if p.requires_grad]
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(net(x, fixed=True).sum(), learned)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", NAMES)
def test_passes_have_the_gradients_of_autograd(name, loss):
    net = Critics(2, 3, 2, (8, 8), CriticForm(name, loss))
    obs, action, slope = torch.randn(6, 3), torch.rand(6, 2), torch.randn(2, 6)
    action.requires_grad_()
    fixed = CriticPass(net, obs, action, fixed=True)
    q = net(obs, action)
    torch.testing.assert_close(fixed.q, q)
    torch.testing.assert_close(fixed.action_gradient(slope), torch.autograd.grad(q, action, slope)[0], rtol=1e-4, atol=1e-5)
    first = CriticPass(net, obs, action, first=True, fixed=True)
    torch.testing.assert_close(first.q[0], net.first(obs, action))
    values = ActionValues(2, 3, 4, (8, 8), CriticForm(name, loss))
    chosen = torch.randint(4, (6,))
    taken = values(obs).gather(-1, chosen.expand(2, 6)[..., None])[..., 0]
    if name != "batch_norm":  # whose training passes go by the statistics of the batch
        one = TakenPass(values, obs, chosen)
        torch.testing.assert_close(one.q, taken)
        learned = [p for p in values.net.parameters() if p.requires_grad]
        for ours, theirs in zip(one.gradients(slope), torch.autograd.grad(taken, learned, slope), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_running_statistics_make_relu_layers_that_equal_the_layers_by_hand():
    net = moved(BatchNorm(1, (3, 5, 4, 2), CriticForm("batch_norm", "mse")))
    x = h = torch.randn(6, 3)

    def norm(n, h):
        return (h - net.mean[n][0]) / (net.var[n][0] + EPSILON).sqrt()

    h = norm(0, h)
    for n in (0, 1):
        h = (norm(n + 1, h @ net.weight[n][0]) * net.gain[n][0] + net.shift[n][0]).relu()
    torch.testing.assert_close(net(x)[0], h @ net.weight[2][0] + net.bias[0])


def test_batch_statistics_normalise_every_layer_and_move_the_running_ones():
    net = BatchNorm(2, (3, 5, 1), CriticForm("batch_norm", "mse"))
    x = 3 + 2 * torch.randn(64, 3)
    before = net(x)
    out = net.joint(x, learn=False)
    assert torch.equal(net(x), before), "statistics moved though they were not to learn"
    standard = (x - x.mean(0)) / (x.var(0, correction=0) + EPSILON).sqrt()
    hidden = standard @ net.weight[0][1]
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + EPSILON).sqrt()
    torch.testing.assert_close(out[1], hidden.relu() @ net.weight[1][1], rtol=1e-4, atol=1e-5)
    net.joint(x, learn=True)
    torch.testing.assert_close(net.mean[0][0, 0], MOMENTUM * x.mean(0))
    torch.testing.assert_close(net.var[0][1, 0], (1 - MOMENTUM) + MOMENTUM * x.var(0, correction=0))


def test_the_order_of_the_two_halves_of_a_batch_does_not_matter():
    obs, action, next_obs, next_action = torch.randn(8, 3), torch.rand(8, 2), torch.randn(8, 3), torch.rand(8, 2)
    net = Critics(2, 3, 2, (8, 8), CriticForm("batch_norm", "mse"))
    torch.manual_seed(0)
    halves = torch.cat((torch.cat((obs, action), -1), torch.cat((next_obs, next_action), -1)))
    torch.testing.assert_close(net.net.joint(halves, False), net.net.joint(halves.roll(8, 0), False).roll(8, 1))
    one = CriticPass(net, obs, action, beside=(next_obs, next_action))
    torch.testing.assert_close(one.out, net.net.joint(halves, False)[:, :8])
    torch.testing.assert_close(net.beside(obs, action, next_obs, next_action), net.net.joint(halves, False)[:, 8:])


def test_target_networks_follow_the_running_statistics():
    net = Critics(1, 3, 2, (8,), CriticForm("batch_norm", "mse"))
    target = target_network(net)
    net.net.joint(torch.randn(32, 5), learn=True)
    polyak_(target, net, 0.5)
    torch.testing.assert_close(target.net.mean[0], net.net.mean[0] / 2)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", [BatchNorm, SimbaV2])
def test_projected_weights_have_norm_one(kind, loss):
    net = moved(kind(2, (3, 8, 8, 5), CriticForm("", loss)))
    net.project_()
    norms = [w.norm(dim=1) for w in net.weight]
    free = loss == "mse"
    for norm in norms[:-1] if free else norms:
        torch.testing.assert_close(norm, torch.ones_like(norm))
    assert not free or not torch.allclose(norms[-1], torch.ones_like(norms[-1]))


def test_simba_by_hand():
    net = moved(Simba(1, (3, 8, 8, 2), CriticForm("simba")))
    x = torch.randn(6, 3)
    h = x @ net.enter[0][0] + net.enter[1][0]
    for n in range(2):
        y = F.layer_norm(h, (8,)) * net.gain[n][0] + net.shift[n][0]
        h = h + (y @ net.up[n][0] + net.up_bias[n][0]).relu() @ net.down[n][0] + net.down_bias[n][0]
    y = F.layer_norm(h, (8,)) * net.gain[2][0] + net.shift[2][0]
    torch.testing.assert_close(net(x)[0], y @ net.leave[0][0] + net.leave[1][0])


def test_simba_v2_by_hand():
    net = moved(SimbaV2(1, (3, 8, 2), CriticForm("simba_v2")))
    x, w = torch.randn(6, 3), [w[0] for w in net.weight]

    def scale(s):
        return s[0][0] * s[1][0]

    h = F.normalize(torch.cat((x, torch.full((6, 1), 3.0)), -1), dim=-1)
    h = F.normalize(scale(net.scale[0]) * (h @ w[0]), dim=-1)
    y = F.normalize((scale(net.scale[1]) * (h @ w[1])).relu() @ w[2], dim=-1)
    b = scale(net.blend[0])
    h = F.normalize((1 - b) * h + b * y, dim=-1)
    torch.testing.assert_close(net(x)[0], (scale(net.scale[2]) * (h @ w[3])) @ w[4] + net.bias[0])


@pytest.mark.parametrize("name", ["simba", "simba_v2"])
def test_residual_blocks_of_different_widths_are_refused(name):
    with pytest.raises(UserError, match=rf"agent.critic={name} has one residual block for each .* equal widths, got \[8, 4\]"):
        critics[name].target(1, (3, 8, 4, 1), CriticForm(name))
