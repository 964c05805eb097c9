"""Passes whose backward pass is called directly give autograd's numbers: bit for bit, since the arithmetic is the same."""

import pytest
import torch

from mbkit.networks.form import CriticForm
from mbkit.networks.heads import ActionValues, Critics, taken
from mbkit.networks.mlp import EnsembleMLP
from mbkit.networks.passes import CriticPass, LikelihoodPass, Pass, PolicyPass, q_pass, values_pass
from mbkit.networks.policy import Deterministic, StochasticPolicy
from mbkit.types import EnvSpec, Targets

OPTIONS = [{}, {"layer_norm": True}]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("options", [*OPTIONS, {"activation": "silu"}])
def test_pass_gradients_are_autograd_s(options):
    net, x = EnsembleMLP(2, (4, 16, 8, 3), **options), torch.randn(20, 4)
    forward, out = Pass(net, x), net(x)
    slope = torch.randn_like(out)
    assert torch.equal(forward.out, out)
    assert not forward.out.requires_grad
    expected = torch.autograd.grad(out, list(net.parameters()), slope)
    assert all(map(torch.equal, forward.gradients(slope), expected))


@pytest.mark.parametrize("critic", ["mlp", "layer_norm"])
@pytest.mark.parametrize("first", [False, True])
def test_critic_pass_is_the_critics_and_its_gradients_autograd_s(first, critic):
    critics, obs, action = Critics(3, 4, 2, (16, 8), CriticForm(critic)), torch.randn(20, 4), torch.randn(20, 2, requires_grad=True)
    critics.inputs = torch.nn.Hardtanh()
    forward = CriticPass(critics, obs, action.detach(), first, fixed=True)
    q = critics(obs, action)[:1] if first else critics(obs, action)
    torch.testing.assert_close(forward.q, q.detach())
    slope = torch.randn_like(q)
    torch.testing.assert_close(forward.action_gradient(slope), torch.autograd.grad(q, action, slope, retain_graph=True)[0])
    if not first:
        grads = CriticPass(critics, obs, action.detach()).gradients(slope)
        torch.testing.assert_close(list(grads), list(torch.autograd.grad(q, list(critics.parameters()), slope)), rtol=0, atol=0)


def test_values_pass_is_that_of_all_actions():
    values, obs = ActionValues(2, 4, 3, (16,)), torch.randn(20, 4)
    q = values(obs)
    forward, slope = values_pass(values, obs), torch.randn_like(q)
    assert torch.equal(forward.out, q)
    assert all(map(torch.equal, forward.gradients(slope), torch.autograd.grad(q, list(values.parameters()), slope)))


def test_policy_pass_is_the_policy_and_its_gradients_autograd_s():
    policy, obs = Deterministic(4, 2, (16, 8)), torch.randn(20, 4)
    policy.inputs = torch.nn.Hardtanh()
    forward, action = PolicyPass(policy, obs), policy(obs)
    slope = torch.randn_like(action)
    assert torch.equal(forward.action, action)
    assert all(map(torch.equal, forward.gradients(slope), torch.autograd.grad(action, list(policy.parameters()), slope)))


@pytest.mark.parametrize("discrete", [False, True])
def test_taken_or_state_action_pass_by_the_kind_of_critics(discrete):
    critics = ActionValues(2, 4, 3, (16,)) if discrete else Critics(2, 4, 3, (16,))
    obs, action = torch.randn(20, 4), torch.randint(3, (20,)) if discrete else torch.randn(20, 3)
    q = taken(critics(obs), action) if discrete else critics(obs, action)
    forward, slope = q_pass(critics, Targets(obs, action, torch.zeros(len(obs)))), torch.randn_like(q)
    torch.testing.assert_close(forward.q, q.detach(), rtol=0, atol=0)
    assert all(map(torch.equal, forward.gradients(slope), torch.autograd.grad(q, list(critics.parameters()), slope)))


@pytest.mark.parametrize("log_std", [0.3, -9.0])
@pytest.mark.parametrize("discrete", [False, True])
def test_likelihood_pass_gradients_are_autograd_s(discrete, log_std):
    """Of actions inside the box and on both of its sides; a log standard deviation outside its range has no gradient."""
    spec = EnvSpec(4, 3, torch.device("cpu"), discrete)
    policy = StochasticPolicy(spec, (16, 8), "relu", log_std=log_std, log_std_range=(-1.0, 2.0), fused=True).double()
    for w, _ in policy.net.layers:
        w.data.mul_(3)
    obs, weight = torch.randn(60, 4, dtype=torch.float64), torch.rand(60, dtype=torch.float64)
    action = torch.randint(3, (60,)) if discrete else (2 * torch.randn(60, 3, dtype=torch.float64)).clamp(-1, 1)
    forward, plain = LikelihoodPass(policy, obs), policy(obs)
    torch.testing.assert_close(forward.distribution, type(plain)(*(field.detach() for field in plain)))
    loss = -(weight * plain.log_prob(action)).mean()
    expected = torch.autograd.grad(loss, list(policy.parameters()))
    torch.testing.assert_close(list(forward.gradients(action, weight)), list(expected))
