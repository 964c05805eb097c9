"""A2C: its gradient against the policy gradient in closed form, its targets by hand, one step on each trajectory."""

from dataclasses import replace

import pytest
import torch
from bandits import CONTINUOUS, DISCRETE, SEVERAL, bandit, greedy_reward
from torch import nn
from toys import WIDE

from mbkit.agents.base import descend
from mbkit.agents.policy_gradient.a2c import A2C, A2CConfig, policy_loss
from mbkit.agents.policy_gradient.on_policy import value_loss
from mbkit.networks.distributions import Categorical
from mbkit.testing import check_agent, random_trajectory

SMALL = A2CConfig(hidden=(16,), lr=1e-2, log_std=-0.5)


def make(spec=WIDE, **options) -> A2C:
    torch.manual_seed(0)
    return A2C(spec, replace(SMALL, **options), gamma=0.9)


def test_policy_loss_gradient_equals_the_policy_gradient():
    """Of a softmax over three actions, each as often as its probability: p_a (q_a - v), minus where it is a loss."""
    logits = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64, requires_grad=True)
    q, p = torch.tensor([1.0, 5.0, -2.0], dtype=torch.float64), torch.softmax(logits, 0).detach()
    value = (p * q).sum()
    log_prob = Categorical(logits.expand(3, 3)).log_prob(torch.arange(3))
    slope = torch.autograd.grad(policy_loss(3 * p * log_prob, q - value), logits)[0]  # 3 p: the mean becomes the expectation
    torch.testing.assert_close(slope, -p * (q - value))


def test_policy_loss_and_value_loss_take_advantage_and_target_as_constants():
    log_prob, value = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    torch.autograd.backward([policy_loss(log_prob, 2 * value + 1), value_loss(torch.zeros(3, requires_grad=True), value)])
    assert value.grad is None
    torch.testing.assert_close(log_prob.grad, torch.full((3,), -1 / 3))


def connected(steps: int = 4):
    """One environment without ends: the successor of a step is the next observation."""
    t = random_trajectory(WIDE, steps, 1)
    next_obs = torch.cat((t.obs[1:], torch.randn(1, 1, 3)))
    return t._replace(ended=torch.zeros(steps, 1, dtype=torch.bool), discount=torch.ones(steps, 1), next_obs=next_obs)


def test_advantage_lambda_1_is_the_return_to_the_end_less_the_value():
    """Lambda 1, the paper's; lambda 0 is the one-step error."""
    agent, t = make(normalize_value=True), connected()
    agent.critic.rescale(torch.tensor([10.0, 30.0]))
    value, last = agent.value(t.obs[:, 0]), agent.value(t.next_obs[-1])
    to_go = t.reward[2] + 0.9 * t.reward[3] + 0.81 * last
    torch.testing.assert_close(agent.advantage(t, value)[2:3], to_go - value[2])
    one_step = t.reward[:, 0] + 0.9 * agent.value(t.next_obs[:, 0]) - value
    torch.testing.assert_close(make_like(agent, gae_lambda=0.0).advantage(t, value), one_step)


def make_like(agent: A2C, **options) -> A2C:
    other = make(normalize_value=True, **options)
    other.load_state_dict(agent.state_dict())
    return other


@pytest.mark.parametrize("normalize_advantage", [False, True])
def test_update_is_one_step_on_the_sum_of_losses(normalize_advantage):
    """L_pi + c L_V - entropy, written out, on a copy."""
    options = {
        "normalize_obs": True,
        "normalize_value": True,
        "normalize_advantage": normalize_advantage,
        "entropy_coef": 0.1,
        "value_coef": 0.7,
    }
    agent, other, t = make(**options), make(**options), random_trajectory(WIDE, 6, 3)
    for one in (agent, other):
        one.update_normalizers(random_trajectory(WIDE, 20, 3, seed=5), torch.linspace(-3, 20, 60))
    metrics = agent.update(t)
    rows = other.with_advantages(t, 1.0)
    weight = (rows.advantage - rows.advantage.mean()) / rows.advantage.std(correction=0) if normalize_advantage else rows.advantage
    distribution = other.policy(rows.obs)
    error = ((other.critic(rows.obs) - rows.target) / other.critic.normalizer.std).square().mean()
    loss = -(distribution.log_prob(rows.action) * weight).mean() + 0.7 * error - 0.1 * distribution.entropy().mean()
    descend(other.optimizers["networks"], loss, other.cfg.max_grad_norm)
    torch.testing.assert_close(dict(agent.policy.named_parameters()), dict(other.policy.named_parameters()), atol=1e-5, rtol=1e-4)
    assert metrics["critic/loss"].item() == pytest.approx(error.item(), rel=1e-4)
    assert agent.normalizer.count == other.normalizer.count + 18


def test_update_by_the_entropy_alone_raises_the_entropy():
    agent = make(DISCRETE, entropy_coef=1.0, value_coef=1e-9)
    nn.init.normal_(agent.policy.net[-1].weight)
    t = bandit(agent, DISCRETE)
    t = t._replace(reward=agent.value(t.obs.flatten(0, 1)).view_as(t.reward))  # no advantage, at first
    before = agent.policy(t.obs).entropy().mean()
    for _ in range(5):
        agent.update(t)
    assert agent.policy(t.obs).entropy().mean() > before + 0.01


def test_anneal_half_the_run_halves_the_learning_rate():
    agent = make(anneal_lr=True)
    agent.anneal(0.5)
    assert float(agent.optimizers["networks"].param_groups[0]["lr"]) == pytest.approx(5e-3)


@pytest.mark.parametrize("options", [{"normalize_obs": True, "normalize_value": True, "normalize_advantage": True}, {"gae_lambda": 0.9}])
def test_a2c_with_other_settings_keeps_the_contract(options):
    check_agent(lambda spec: A2C(spec, replace(SMALL, **options)))


@pytest.mark.parametrize(("spec", "worst"), [(DISCRETE, 0.9), (CONTINUOUS, -0.02), (SEVERAL, 0.9)])
def test_a2c_learns_the_bandit(spec, worst):
    agent = make(spec, entropy_coef=0.0)
    before = greedy_reward(agent, spec)
    for n in range(300):
        agent.anneal(1 - n / 300)
        agent.update(bandit(agent, spec, 8, 8))
    assert greedy_reward(agent, spec) > worst > before
