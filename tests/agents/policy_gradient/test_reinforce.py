"""REINFORCE: weights of steps, score norms against one backward pass per row, and the variances of the baselines."""

from dataclasses import replace

import pytest
import torch
from bandits import CONTINUOUS, DISCRETE, SEVERAL, bandit, greedy_reward
from torch import nn
from toys import WIDE

from mbkit.agents.policy_gradient.reinforce import (
    REINFORCE,
    REINFORCEConfig,
    baseline_loss,
    masked_mean,
    policy_loss,
    squared_scores,
)
from mbkit.errors import UserError
from mbkit.networks.distributions import Categorical
from mbkit.networks.policy import StochasticPolicy
from mbkit.returns import ends_in_window
from mbkit.testing import check_agent, random_trajectory
from mbkit.types import Trajectory

SMALL = REINFORCEConfig(hidden=(16,), lr=2e-2, value_lr=1e-2, value_steps=5, log_std=-0.5)
ENDED = torch.tensor([[0, 0], [1, 0], [0, 0], [0, 0], [1, 0], [0, 0]], dtype=torch.bool)  # [T, M]


def make(spec=WIDE, **options) -> REINFORCE:
    torch.manual_seed(0)
    return REINFORCE(spec, replace(SMALL, **options), gamma=0.9)


def test_step_weights_of_unfinished_episodes_are_0():
    assert make().step_weights(ENDED).tolist() == [[1, 0], [1, 0], [1, 0], [1, 0], [1, 0], [0, 0]]
    assert make(bootstrap=True).step_weights(ENDED).tolist() == [[1, 1]] * 6


def test_step_weights_discounted_are_powers_of_gamma():
    """gamma^t needs the step within the episode, which is unknown if it started before the window."""
    expected = torch.tensor([[0.0, 0], [0, 0], [1, 0], [0.9, 0], [0.81, 0], [0, 0]])
    torch.testing.assert_close(make(discounted=True).step_weights(ENDED), expected)
    expected[5, 0] = 1
    torch.testing.assert_close(make(discounted=True, bootstrap=True).step_weights(ENDED), expected)


def test_returns_end_with_the_episode_or_bootstrap():
    """To the end of the episode; after a truncation 0 is added, or V of the true successor."""
    t = random_trajectory(WIDE, 4, 1)
    ended, discount = torch.tensor([[0], [1], [0], [1]], dtype=torch.bool), torch.tensor([[1.0], [1.0], [1.0], [0.0]])
    t = t._replace(reward=torch.tensor([[1.0], [2.0], [4.0], [8.0]]), ended=ended, discount=discount)
    torch.testing.assert_close(make().returns(t)[:, 0], torch.tensor([2.8, 2.0, 11.2, 8.0]))
    agent = make(bootstrap=True)
    beyond = agent.value(t.next_obs[1]).item()
    torch.testing.assert_close(agent.returns(t)[:, 0], torch.tensor([2.8 + 0.81 * beyond, 2.0 + 0.9 * beyond, 11.2, 8.0]))


def test_update_ignores_steps_of_unfinished_episodes():
    """Neither observations and actions nor rewards of unfinished episodes reach the parameters."""
    t = random_trajectory(WIDE, 6, 2)._replace(ended=ENDED)
    unknown = ~ends_in_window(ENDED)
    other = t._replace(
        obs=torch.where(unknown[..., None], 7.0, t.obs),
        reward=torch.where(unknown, 100.0, t.reward),
        action=torch.where(unknown[..., None], 0.5, t.action),
    )
    agents = [make(baseline=baseline) for baseline in ("optimal", "optimal")]
    for agent, trajectory in zip(agents, (t, other), strict=True):
        agent.update(trajectory)
    torch.testing.assert_close(*(dict(agent.named_parameters()) for agent in agents))


def test_update_without_an_end_changes_no_parameter():
    agent, t = make(baseline="optimal", normalize_value=True), random_trajectory(WIDE, 6, 2)
    before = [p.clone() for p in agent.parameters()]
    metrics = agent.update(t._replace(ended=torch.zeros(6, 2, dtype=torch.bool)))
    assert metrics["actor/counted"] == 0
    torch.testing.assert_close(list(agent.parameters()), before)


def test_masked_mean_without_rows_is_0():
    x = torch.tensor([1.0, 5.0, 100.0])
    assert masked_mean(x, torch.tensor([1.0, 1.0, 0.0])).item() == 3
    assert masked_mean(x, torch.zeros(3)).item() == 0


def test_policy_loss_gradient_equals_the_policy_gradient():
    """Of a softmax over three actions, in float64, for any baseline: p_a (q_a - v), minus where it is a loss."""
    logits = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64, requires_grad=True)
    q, p = torch.tensor([1.0, 5.0, -2.0], dtype=torch.float64), torch.softmax(logits, 0).detach()
    log_prob = Categorical(logits.expand(3, 3)).log_prob(torch.arange(3))
    for baseline in (0.0, 3.7):
        slope = torch.autograd.grad(policy_loss(log_prob, q - baseline, 3 * p), logits, retain_graph=True)[0]
        torch.testing.assert_close(slope, -p * (q - (p * q).sum()))


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS, WIDE], ids=["discrete", "continuous", "wide"])
def test_squared_scores_equal_those_of_one_backward_pass_per_row(spec):
    torch.manual_seed(0)
    policy, obs = StochasticPolicy(spec, (8, 8), log_std=-0.3).double(), torch.randn(12, spec.obs_dim, dtype=torch.float64)
    for p in policy.parameters():
        nn.init.normal_(p, std=0.4)
    action = policy(obs).sample()  # some of them on the sides of the box
    scores = squared_scores(policy, obs, action)
    assert not scores.requires_grad
    for n in range(12):
        slopes = torch.autograd.grad(policy(obs[n : n + 1]).log_prob(action[n : n + 1]).sum(), list(policy.parameters()))
        torch.testing.assert_close(scores[n], torch.stack([g.square().sum() for g in slopes]).sum())
    assert not policy.net[0]._forward_hooks


def test_baseline_loss_is_least_at_the_weighted_mean():
    returns, weight = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 0.0, 3.0])
    baseline = torch.tensor((1.0 + 18.0) / 4, requires_grad=True)
    assert torch.autograd.grad(baseline_loss(baseline.expand(3), returns, weight), baseline)[0].item() == pytest.approx(0, abs=1e-6)
    assert baseline_loss(torch.zeros(3), returns, torch.ones(3)).item() == pytest.approx(41 / 3)


def exact_baselines(policy: nn.Module, obs, q) -> dict[str, torch.Tensor]:
    """At every state [N], from all actions: 0, V = E Q, and b* = E[w Q] / E[w], w = |grad log pi|^2."""
    n, actions = q.shape
    p = policy(obs).log_probs().exp().detach()
    w = torch.stack([squared_scores(policy, obs, torch.full((n,), a)) for a in range(actions)], 1)
    return {"none": torch.zeros(n), "value": (p * q).sum(1), "optimal": (p * w * q).sum(1) / (p * w).sum(1)}


def second_moment(policy: nn.Module, obs, q, baseline) -> torch.Tensor:
    """E_a |grad log pi (Q - b)|^2 at every state [N], over all actions: its variance and a constant, for E_a grad log pi = 0."""
    p = policy(obs).log_probs().exp().detach()
    w = torch.stack([squared_scores(policy, obs, torch.full((len(q),), a)) for a in range(q.shape[1])], 1)
    return (p * w * (q - baseline[:, None]).square()).sum(1)


def test_baseline_lowers_the_variance_from_none_to_value_to_optimal():
    torch.manual_seed(0)
    policy, obs = StochasticPolicy(DISCRETE, (8,)), torch.randn(20, 2)
    for p in policy.parameters():
        nn.init.normal_(p, std=0.7)
    q = torch.randn(20, 3) + 5
    exact = exact_baselines(policy, obs, q)
    moments = [second_moment(policy, obs, q, exact[name]) for name in ("none", "value", "optimal")]
    assert (moments[0] > moments[1]).all()
    assert (moments[1] >= moments[2] - 1e-5).all()
    assert (moments[1] > 1.01 * moments[2]).any()
    for shift in (-0.1, 0.1):
        assert (second_moment(policy, obs, q, exact["optimal"] + shift) > moments[2]).all()


@pytest.mark.parametrize("name", ["value", "optimal"])
def test_fit_learns_the_exact_baseline(name):
    """Of a fixed policy in four states with known rewards: `fit` finds E[Q] and b*."""
    agent = make(DISCRETE._replace(obs_dim=4), baseline="optimal", value_steps=400)
    for p in agent.policy.parameters():
        nn.init.normal_(p, std=0.7)
    states, n = torch.eye(4), 4000
    q = torch.tensor([[4.0, 5.0, 9.0], [6.0, 1.0, 5.0], [2.0, 2.0, 8.0], [5.0, 5.0, 5.0]])
    which = torch.arange(n) % 4
    obs = states[which]
    action = agent.policy(obs).sample()
    returns = q[which, action]
    weight = torch.ones(n) if name == "value" else squared_scores(agent.policy, obs, action)
    network, key = (agent.critic, "critic") if name == "value" else (agent.optimal, "optimal")
    agent.fit(key, network, obs, returns, weight)
    expected = exact_baselines(agent.policy, states, q)
    torch.testing.assert_close(network(states).detach(), expected[name], atol=0.25, rtol=0)
    if name == "optimal":
        assert (expected["optimal"] - expected["value"]).abs().max() > 0.5  # so that the two differ visibly


@pytest.mark.parametrize("baseline", ["none", "optimal"])
def test_bootstrap_without_values_is_refused(baseline):
    with pytest.raises(UserError, match=f"agent.bootstrap=true .* came {baseline}"):
        make(bootstrap=True, baseline=baseline)


def test_anneal_changes_the_learning_rate_of_the_policy_alone():
    agent = make(anneal_lr=True)
    agent.anneal(0.5)
    assert [float(agent.optimizers[name].param_groups[0]["lr"]) for name in ("policy", "critic")] == pytest.approx([1e-2, 1e-2])


@pytest.mark.parametrize(
    "options",
    [
        {"baseline": "none", "discounted": True},
        {"baseline": "optimal", "normalize_value": True},
        {"bootstrap": True, "normalize_obs": True},
    ],
)
def test_reinforce_with_other_settings_keeps_the_contract(options):
    check_agent(lambda spec: REINFORCE(spec, replace(SMALL, **options)))


@pytest.mark.parametrize("baseline", ["none", "value", "optimal"])
@pytest.mark.parametrize(("spec", "worst"), [(DISCRETE, 0.85), (CONTINUOUS, -0.02), (SEVERAL, 0.85)])
def test_reinforce_learns_the_bandit(spec, worst, baseline):
    agent = make(spec, baseline=baseline)
    before = greedy_reward(agent, spec)
    for n in range(100):
        agent.anneal(1 - n / 100)
        agent.update(bandit(agent, spec))
    assert greedy_reward(agent, spec) > worst > before


def with_ends(ends):
    """100 steps of 4 environments, whose episodes are cut after these."""
    torch.manual_seed(1)
    ended = torch.zeros(100, 4, dtype=torch.bool)
    ended[ends] = True
    obs = torch.randn(100, 4, 3)
    return Trajectory(
        obs, torch.randn(100, 4, 2).clamp(-1, 1), 100 + torch.randn(100, 4), obs, torch.ones(100, 4), ended, torch.zeros(100, 4)
    )


def test_update_normalizers_ignores_unknown_returns():
    agent, t = REINFORCE(WIDE, REINFORCEConfig(normalize_value=True)), with_ends([20])
    agent.update(t)
    known = agent.returns(t)[:21]
    torch.testing.assert_close(agent.critic.normalizer.std[0], known.std(correction=0))
    agent = REINFORCE(WIDE, REINFORCEConfig(normalize_value=True))
    agent.update(with_ends([]))
    assert agent.critic.normalizer.count == 0


def test_update_without_an_end_after_others_changes_no_parameter():
    agent = REINFORCE(WIDE, REINFORCEConfig())
    for _ in range(5):
        agent.update(with_ends([20, 40, 99]))
    before = [p.detach().clone() for p in agent.parameters()]
    agent.update(with_ends([]))
    for p, old in zip(agent.parameters(), before, strict=True):
        assert torch.equal(p, old)
