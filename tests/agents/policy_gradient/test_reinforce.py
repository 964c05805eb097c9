"""REINFORCE: which steps count and for how much, score norms against one backward pass per row, and the baselines' variances."""

from dataclasses import replace

import pytest
import torch
from bandits import CHOICES, NUMBERS, bandit, greedy_pay
from torch import nn
from toys import WIDE

from mbkit.agents.policy_gradient.reinforce import (
    REINFORCE,
    REINFORCEConfig,
    average,
    baseline_loss,
    begun,
    finished,
    policy_loss,
    squared_scores,
    times,
)
from mbkit.errors import UserError
from mbkit.networks.distributions import Categorical
from mbkit.networks.policy import make_policy
from mbkit.testing import check_agent, random_trajectory
from mbkit.types import Trajectory

SMALL = REINFORCEConfig(hidden=(16,), lr=2e-2, value_lr=1e-2, value_steps=5, log_std=-0.5)
ENDED = torch.tensor([[0, 0], [1, 0], [0, 0], [0, 0], [1, 0], [0, 0]], dtype=torch.bool)  # [T, M]


def make(spec=WIDE, **options) -> REINFORCE:
    torch.manual_seed(0)
    return REINFORCE(spec, replace(SMALL, **options), gamma=0.9)


def by_hand(ended):
    """Step by step: does the episode end within the window, did it begin there, and at which step of it are we."""
    steps, envs = ended.shape
    ends, begins, clock = torch.zeros(steps, envs, dtype=torch.bool), torch.zeros(steps, envs, dtype=torch.bool), []
    for i in range(envs):
        t, fresh = 0, False
        for k in range(steps):
            ends[k, i], begins[k, i] = bool(ended[k:, i].any()), fresh
            clock.append(t)
            t, fresh = (0, True) if ended[k, i] else (t + 1, fresh)
    return ends, begins, torch.tensor(clock).reshape(envs, steps).T


@pytest.mark.parametrize("ended", [ENDED, torch.rand(40, 5, generator=torch.Generator().manual_seed(0)) < 0.15], ids=["hand", "drawn"])
def test_where_episodes_begin_and_end(ended):
    ends, begins, clock = by_hand(ended)
    assert torch.equal(finished(ended), ends)
    assert torch.equal(begun(ended), begins)
    assert torch.equal(times(ended), clock)


def test_the_unfinished_episode_does_not_count():
    assert make().counted(ENDED).tolist() == [[1, 0], [1, 0], [1, 0], [1, 0], [1, 0], [0, 0]]
    assert make(bootstrap=True).counted(ENDED).tolist() == [[1, 1]] * 6


def test_steps_can_count_by_their_discount():
    """gamma^t needs the step of the episode: what began before the window has none."""
    expected = torch.tensor([[0.0, 0], [0, 0], [1, 0], [0.9, 0], [0.81, 0], [0, 0]])
    torch.testing.assert_close(make(discounted=True).counted(ENDED), expected)
    expected[5, 0] = 1
    torch.testing.assert_close(make(discounted=True, bootstrap=True).counted(ENDED), expected)


def test_returns_to_go():
    """To the end of the episode; where it was only cut, nothing is added, or V of what would have followed."""
    t = random_trajectory(WIDE, 4, 1)
    ended, discount = torch.tensor([[0], [1], [0], [1]], dtype=torch.bool), torch.tensor([[1.0], [1.0], [1.0], [0.0]])
    t = t._replace(reward=torch.tensor([[1.0], [2.0], [4.0], [8.0]]), ended=ended, discount=discount)
    torch.testing.assert_close(make().returns(t)[:, 0], torch.tensor([2.8, 2.0, 11.2, 8.0]))
    agent = make(bootstrap=True)
    beyond = agent.value(t.next_obs[1]).item()
    torch.testing.assert_close(agent.returns(t)[:, 0], torch.tensor([2.8 + 0.81 * beyond, 2.0 + 0.9 * beyond, 11.2, 8.0]))


def test_rows_that_do_not_count_change_nothing():
    """Neither observations and actions nor rewards of unfinished episodes reach the parameters."""
    t = random_trajectory(WIDE, 6, 2)._replace(ended=ENDED)
    unknown = ~finished(ENDED)
    other = t._replace(
        obs=torch.where(unknown[..., None], 7.0, t.obs),
        reward=torch.where(unknown, 100.0, t.reward),
        action=torch.where(unknown[..., None], 0.5, t.action),
    )
    agents = [make(baseline=baseline) for baseline in ("optimal", "optimal")]
    for agent, trajectory in zip(agents, (t, other), strict=True):
        agent.update(trajectory)
    torch.testing.assert_close(*(dict(agent.named_parameters()) for agent in agents))


def test_nothing_counts_and_nothing_breaks():
    agent, t = make(baseline="optimal", normalize_value=True), random_trajectory(WIDE, 6, 2)
    before = [p.clone() for p in agent.parameters()]
    metrics = agent.update(t._replace(ended=torch.zeros(6, 2, dtype=torch.bool)))
    assert metrics["actor/counted"] == 0
    torch.testing.assert_close(list(agent.parameters()), before)


def test_average_of_known_rows():
    x = torch.tensor([1.0, 5.0, 100.0])
    assert average(x, torch.tensor([1.0, 1.0, 0.0])).item() == 3
    assert average(x, torch.zeros(3)).item() == 0


def test_gradient_is_the_policy_gradient():
    """Of a softmax over three choices, in float64, whatever the baseline: p_a (q_a - v), minus where it is a loss."""
    logits = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64, requires_grad=True)
    q, p = torch.tensor([1.0, 5.0, -2.0], dtype=torch.float64), torch.softmax(logits, 0).detach()
    log_prob = Categorical(logits.expand(3, 3)).log_prob(torch.arange(3))
    for baseline in (0.0, 3.7):
        slope = torch.autograd.grad(policy_loss(log_prob, q - baseline, 3 * p), logits, retain_graph=True)[0]
        torch.testing.assert_close(slope, -p * (q - (p * q).sum()))


@pytest.mark.parametrize("spec", [CHOICES, NUMBERS, WIDE], ids=["choices", "number", "numbers"])
def test_score_norms_are_those_of_one_backward_pass_per_row(spec):
    torch.manual_seed(0)
    policy, obs = make_policy(spec, (8, 8), log_std=-0.3).double(), torch.randn(12, spec.obs_dim, dtype=torch.float64)
    for p in policy.parameters():
        nn.init.normal_(p, std=0.4)
    action = policy(obs).sample()  # some of them on the sides of the box
    found = squared_scores(policy, obs, action)
    assert not found.requires_grad
    for n in range(12):
        slopes = torch.autograd.grad(policy(obs[n : n + 1]).log_prob(action[n : n + 1]).sum(), list(policy.parameters()))
        torch.testing.assert_close(found[n], torch.stack([g.square().sum() for g in slopes]).sum())
    assert not policy.net[0]._forward_hooks


def test_baseline_loss_is_least_at_the_weighted_mean():
    returns, weight = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 0.0, 3.0])
    baseline = torch.tensor((1.0 + 18.0) / 4, requires_grad=True)
    assert torch.autograd.grad(baseline_loss(baseline.expand(3), returns, weight), baseline)[0].item() == pytest.approx(0, abs=1e-6)
    assert baseline_loss(torch.zeros(3), returns, torch.ones(3)).item() == pytest.approx(41 / 3)


def exact_baselines(policy: nn.Module, obs, q) -> dict[str, torch.Tensor]:
    """At every state [N], from all choices: nothing, V = E Q, and b* = E[w Q] / E[w], w = |grad log pi|^2."""
    n, choices = q.shape
    p = policy(obs).log_probs().exp().detach()
    w = torch.stack([squared_scores(policy, obs, torch.full((n,), a)) for a in range(choices)], 1)
    return {"none": torch.zeros(n), "value": (p * q).sum(1), "optimal": (p * w * q).sum(1) / (p * w).sum(1)}


def second_moment(policy: nn.Module, obs, q, baseline) -> torch.Tensor:
    """E_a |grad log pi (Q - b)|^2 at every state [N], over all choices: its variance and a constant, for E_a grad log pi = 0."""
    p = policy(obs).log_probs().exp().detach()
    w = torch.stack([squared_scores(policy, obs, torch.full((len(q),), a)) for a in range(q.shape[1])], 1)
    return (p * w * (q - baseline[:, None]).square()).sum(1)


def test_variance_falls_from_no_baseline_to_v_to_the_optimal_one():
    torch.manual_seed(0)
    policy, obs = make_policy(CHOICES, (8,)), torch.randn(20, 2)
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
def test_baselines_are_learned(name):
    """Of a fixed policy in four states whose payments are known: `fit` finds E[Q] and b*."""
    agent = make(CHOICES._replace(obs_dim=4), baseline="optimal", value_steps=400)
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
        assert (expected["optimal"] - expected["value"]).abs().max() > 0.5  # so that the two cannot be mistaken for each other


@pytest.mark.parametrize("baseline", ["none", "optimal"])
def test_bootstrapping_without_values_is_refused(baseline):
    with pytest.raises(UserError, match=f"agent.bootstrap=true .* came {baseline}"):
        make(bootstrap=True, baseline=baseline)


def test_step_size_is_annealed_for_the_policy_alone():
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
def test_settings_keep_the_contract(options):
    check_agent(lambda spec: REINFORCE(spec, replace(SMALL, **options)))


@pytest.mark.parametrize("baseline", ["none", "value", "optimal"])
@pytest.mark.parametrize(("spec", "worst"), [(CHOICES, 0.85), (NUMBERS, -0.02)], ids=["choices", "numbers"])
def test_it_learns(spec, worst, baseline):
    agent = make(spec, baseline=baseline)
    before = greedy_pay(agent, spec)
    for n in range(100):
        agent.anneal(1 - n / 100)
        agent.update(bandit(agent, spec))
    assert greedy_pay(agent, spec) > worst > before


def with_ends(ends):
    """100 steps of 4 environments, whose episodes are cut after these."""
    torch.manual_seed(1)
    ended = torch.zeros(100, 4, dtype=torch.bool)
    ended[ends] = True
    obs = torch.randn(100, 4, 3)
    return Trajectory(
        obs, torch.randn(100, 4, 2).clamp(-1, 1), 100 + torch.randn(100, 4), obs, torch.ones(100, 4), ended, torch.zeros(100, 4)
    )


def test_unknown_returns_do_not_reach_the_statistics():
    agent, t = REINFORCE(WIDE, REINFORCEConfig(normalize_value=True)), with_ends([20])
    agent.update(t)
    known = agent.returns(t)[:21]
    torch.testing.assert_close(agent.critic.targets.std[0], known.std(correction=0))
    agent = REINFORCE(WIDE, REINFORCEConfig(normalize_value=True))
    agent.update(with_ends([]))
    assert agent.critic.targets.count == 0


def test_where_nothing_counts_nothing_moves():
    agent = REINFORCE(WIDE, REINFORCEConfig())
    for _ in range(5):
        agent.update(with_ends([20, 40, 99]))
    before = [p.detach().clone() for p in agent.parameters()]
    agent.update(with_ends([]))
    for p, old in zip(agent.parameters(), before, strict=True):
        assert torch.equal(p, old)
