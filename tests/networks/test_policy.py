"""Policies: the squashed density against torch.distributions, and a new policy that is nearly the same everywhere."""

import pytest
import torch

from mbkit.networks.policy import StochasticPolicy, TanhGaussian
from mbkit.types import EnvSpec


def test_tanh_gaussian_log_prob_equals_that_of_torch():
    policy = TanhGaussian(4, 3, (16,)).double()
    obs = torch.randn(50, 4, dtype=torch.float64)
    action, log_prob = policy.rsample(obs)
    mean, log_std = policy(obs)
    squashed = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean, log_std.exp()), torch.distributions.TanhTransform()
    )
    torch.testing.assert_close(log_prob, squashed.log_prob(action).sum(-1), atol=1e-8, rtol=1e-8)


def test_tanh_gaussian_log_prob_of_actions_is_that_of_its_samples_and_finite_on_the_sides():
    torch.manual_seed(0)
    policy, obs = TanhGaussian(4, 3, (16,)).double(), torch.randn(50, 4, dtype=torch.float64)
    action, log_prob = policy.rsample(obs)
    torch.testing.assert_close(policy.log_prob(obs, action), log_prob, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(policy.log_prob(obs, torch.stack((action, action))), log_prob.expand(2, -1))  # several actions a state
    mean, log_std = policy(obs)
    for edge in (1 - 1e-6, 0.99):
        squashed = torch.distributions.TransformedDistribution(
            torch.distributions.Normal(mean, log_std.exp()), torch.distributions.TanhTransform()
        )
        side = squashed.log_prob(torch.full_like(action, edge)).sum(-1)
        torch.testing.assert_close(policy.log_prob(obs, torch.ones_like(action), edge), side)
    assert policy.float().log_prob(obs.float(), -torch.ones(50, 3)).isfinite().all()


def test_stochastic_policy_inputs_and_bounds_of_the_log_standard_deviation():
    policy = StochasticPolicy(EnvSpec(3, 2, torch.device("cpu")), (8,), "relu", log_std=-9.0, log_std_range=(-5.0, 2.0))
    obs = torch.randn(4, 3)
    assert (policy(obs).log_std == -5).all()
    mean = policy(obs).mean
    policy.inputs = torch.nn.Hardtanh(-100, 100)
    assert torch.equal(policy(obs).mean, mean)
    policy.inputs = torch.nn.Threshold(100, 0)  # every observation becomes 0
    assert torch.equal(policy(obs).mean, policy.net(torch.zeros(4, 3)))


def test_stochastic_policy_of_several_actions_has_a_distribution_for_each():
    policy = StochasticPolicy(EnvSpec(3, 5, torch.device("cpu"), True, (3, 2)), (8,))
    obs = torch.randn(4, 3)
    first, second = policy.net(obs).split((3, 2), -1)
    probability = policy(obs).log_probs().exp()
    torch.testing.assert_close(probability[:, 0], first.softmax(-1))
    torch.testing.assert_close(probability[:, 1, :2], second.softmax(-1))
    assert (probability[:, 1, 2] == 0).all()


@pytest.mark.parametrize("discrete", [False, True])
def test_fused_stochastic_policy_equals_the_plain_one_and_so_do_its_gradients(discrete):
    torch.manual_seed(0)
    spec = EnvSpec(3, 2, torch.device("cpu"), discrete)
    fused, plain = (StochasticPolicy(spec, (16, 16), "relu", fused=fused).double() for fused in (True, False))
    layers = list(zip(fused.net.layers, [m for m in plain.net if isinstance(m, torch.nn.Linear)], strict=True))
    for (w, b), layer in layers:
        layer.weight.data, layer.bias.data = w[0].detach().T.clone(), b[0, 0].detach().clone()
    obs, action = torch.randn(100, 3, dtype=torch.float64), (torch.arange(100) % 2 if discrete else torch.rand(100, 2).double())
    log_prob = [policy(obs).log_prob(action) for policy in (fused, plain)]
    torch.testing.assert_close(*log_prob)
    for x in log_prob:
        x.mean().backward()
    for (w, b), layer in layers:
        torch.testing.assert_close(w.grad[0].T, layer.weight.grad)
        torch.testing.assert_close(b.grad[0, 0], layer.bias.grad)


def test_fused_stochastic_policy_refuses_another_activation():
    with pytest.raises(ValueError, match="'relu', not 'tanh'"):
        StochasticPolicy(EnvSpec(3, 2, torch.device("cpu")), (8,), fused=True)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("discrete", [False, True])
def test_stochastic_policy_when_new_is_nearly_the_same_everywhere(discrete, fused):
    torch.manual_seed(0)
    spec = EnvSpec(3, 2, torch.device("cpu"), discrete)
    policy = StochasticPolicy(spec, (32, 32), "relu" if fused else "tanh", log_std=-0.5, fused=fused)
    distribution = policy(torch.randn(100, 3))
    first = distribution.logits.softmax(1) if discrete else distribution.mean
    assert (first - (0.5 if discrete else 0)).abs().max() < 0.05
    assert discrete or torch.equal(distribution.log_std, torch.full((100, 2), -0.5))


def plain_sample(policy, obs, eps):
    """a = tanh(u) and log N(u) - sum log(1 - a^2) by autograd, of the noise eps."""
    mean, log_std = policy(obs)
    u = mean + log_std.exp() * eps
    normal = torch.distributions.Normal(mean, log_std.exp()).log_prob(u)
    return u.tanh(), (normal - (1 - u.tanh().square()).log()).sum(-1)


@pytest.mark.parametrize("constant", [0, 5])
def test_fused_sample_and_its_gradients_equal_autograd_s(constant):
    torch.manual_seed(0)
    policy = TanhGaussian(4, 3, (16, 8), log_std=(-0.3, 0.2)).double()
    with torch.no_grad():
        policy.net.weight[-1].mul_(4)
    obs = torch.randn(20, 4, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(1)
    sample = policy.sampled(obs[constant:].detach(), obs[:constant].detach() if constant else None)
    torch.manual_seed(1)
    action, log_prob = plain_sample(policy, obs, torch.randn(20, 3, dtype=torch.float64))
    log_std = policy(obs)[1]
    assert ((log_std == 0.2) | (log_std == -0.3)).any()  # clamped
    assert not ((log_std == 0.2) | (log_std == -0.3)).all()
    torch.testing.assert_close(sample.first, (action[:constant].detach(), log_prob[:constant].detach()))
    torch.testing.assert_close(sample.second, (action[constant:].detach(), log_prob[constant:].detach()))
    weights = torch.randn(20 - constant, 3, dtype=torch.float64), torch.randn(20 - constant, dtype=torch.float64)
    for weight in (weights, (weights[0], 0 * weights[1]), (0 * weights[0], weights[1])):  # of both, of actions, of log-densities
        loss = (weight[0] * action[constant:]).sum() + (weight[1] * log_prob[constant:]).sum()
        expected = torch.autograd.grad(loss, list(policy.parameters()), retain_graph=True)
        torch.testing.assert_close(sample.gradients(*weight), list(expected), rtol=1e-8, atol=1e-9)


def test_rsample_gradients_equal_autograd_s_in_observations_and_parameters():
    torch.manual_seed(0)
    policy, obs = TanhGaussian(4, 3, (16, 8)).double(), torch.randn(20, 4, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(1)
    ours = policy.rsample(obs)
    torch.manual_seed(1)
    theirs = plain_sample(policy, obs, torch.randn(20, 3, dtype=torch.float64))
    torch.testing.assert_close(ours, theirs)
    for loss in (lambda a, p: (a.sin() + p[:, None]).sum(), lambda a, p: a.sin().sum(), lambda a, p: p.square().sum()):
        grads = [torch.autograd.grad(loss(*each), [obs, *policy.parameters()], retain_graph=True) for each in (ours, theirs)]
        torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-9)


def test_samples_without_gradient_are_those_with_it():
    policy, obs = TanhGaussian(4, 3, (16,)), torch.randn(32, 4)
    torch.manual_seed(1)
    fused = policy.rsample(obs)
    torch.manual_seed(1)
    with torch.no_grad():
        plain = policy.rsample(obs)
    assert torch.equal(fused[0], plain[0])
    torch.testing.assert_close(fused[1], plain[1])
