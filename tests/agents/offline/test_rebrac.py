"""ReBRAC: its losses by hand and by finite differences, the penalty of target actions, and TD3's and TD3+BC's as limits."""

from copy import deepcopy

import pytest
import torch
from recorded_batches import recorded
from toys import SPEC, WIDE, bandit, learn_bandit

from mbkit.agents.actor_critic.td3 import TD3, TD3Config, smoothed
from mbkit.agents.offline.bc import BC, BCConfig
from mbkit.agents.offline.rebrac import ReBRAC, ReBRACConfig, penalized_policy_loss, penalty, squared_distance
from mbkit.agents.offline.td3_bc import cloned_policy_loss
from mbkit.config import compose
from mbkit.errors import UserError
from mbkit.testing import check_agent, random_batch, random_recorded


def make(**options) -> ReBRAC:
    torch.manual_seed(0)
    return ReBRAC(WIDE, ReBRACConfig(**{"hidden": (16, 16), **options}), gamma=0.9)


def test_losses_by_hand():
    q = torch.tensor([2.0, -4.0], requires_grad=True)
    action, data = torch.tensor([[0.5, -0.5], [0.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert squared_distance(action, data).tolist() == [0.5, 1.0]  # a sum over dimensions
    loss = penalized_policy_loss(q, action, data, 0.1)
    assert loss.item() == pytest.approx(0.1 * 0.75 + 1 / 3)
    assert torch.autograd.grad(loss, q)[0].tolist() == pytest.approx([-1 / 6] * 2)  # mean |Q| is a constant


def test_policy_loss_gradient_by_finite_differences():
    torch.manual_seed(0)
    action, data = 2 * torch.rand(2, 3, 2, dtype=torch.float64) - 1
    slope, level = torch.randn(3, 2, dtype=torch.float64), 5 + torch.rand(3, dtype=torch.float64)
    value = lambda a: level + (slope * a).sum(1)  # noqa: E731
    held = float(value(action).abs().mean())
    loss = lambda a: 0.3 * squared_distance(a, data).mean() - value(a).mean() / held  # noqa: E731
    assert torch.autograd.gradcheck(loss, (action.requires_grad_(),))
    mine = torch.autograd.grad(penalized_policy_loss(value(action), action, data, 0.3), action)[0]
    torch.testing.assert_close(mine, torch.autograd.grad(loss(action), action)[0])


def test_policy_loss_is_td3_bc_s_times_a_number():
    """TD3+BC's alpha is 1 / (A beta_1), its squared error being a mean over A dimensions."""
    q, action, data = torch.randn(5), torch.rand(5, 2), torch.rand(5, 2)
    torch.testing.assert_close(penalized_policy_loss(q, action, data, 0.2), 0.4 * cloned_policy_loss(q, action, data, 2.5))


def test_penalty_counts_where_the_following_action_is_known():
    zeros, action = torch.zeros(3, 1), torch.tensor([[0.1], [0.3], [0.6]])
    data = recorded(zeros, action, torch.zeros(3), zeros, torch.ones(3), [2, 1])
    assert penalty(data, torch.tensor([[0.5], [1.0], [1.0]])).tolist() == pytest.approx([0.04, 0, 0])  # the next episode's action is none
    assert penalty(random_batch(SPEC, 3), action).tolist() == [0, 0, 0]


def test_target_pays_for_the_distance_from_the_recorded_following_action():
    agent, data = make(critic_penalty=0.7, delay=3), random_recorded(WIDE, 32)
    old = deepcopy(agent)
    torch.manual_seed(1)
    metrics = agent.update(data)
    torch.manual_seed(1)
    with torch.no_grad():
        action = smoothed(old.target_policy(data.next_obs), 0.2 * torch.randn(32, 2), 0.5)
        distance = data.next_known * (action - data.next_action).square().sum(1)
        value = old.target_critics(data.next_obs, action).amin(0) - 0.7 * distance
        q = old.critics(data.obs, data.action)
        loss = 0.5 * (q - data.reward - 0.9 * data.discount * value).square().mean(1).sum()
    assert (distance > 0).any()
    torch.testing.assert_close(metrics["critic/loss"], loss)
    torch.testing.assert_close(metrics["critic/penalty"], distance.mean())


def test_without_penalty_and_layer_norm_the_critics_are_td3_s():
    agent, twin = make(critic_penalty=0.0, layer_norm=False, lr=3e-4), TD3(WIDE, TD3Config(hidden=(16, 16)), gamma=0.9)
    for name in ("policy", "critics", "target_policy", "target_critics"):
        weights = {k: v for k, v in getattr(agent, name).state_dict().items() if not k.startswith("inputs")}
        getattr(twin, name).load_state_dict(weights)
    torch.manual_seed(1)
    mine = agent.update(random_recorded(WIDE, 32))
    torch.manual_seed(1)
    theirs = twin.update(random_batch(WIDE, 32))
    assert mine["critic/loss"] == theirs["critic/loss"]
    assert all(map(torch.equal, agent.critics.net.weight, twin.critics.net.weight))


def test_policy_climbs_the_smaller_critic():
    agent, data = make(delay=1, actor_penalty=0.3), random_recorded(WIDE, 32)
    old = deepcopy(agent)
    metrics = agent.update(data)
    with torch.no_grad():
        action = old.policy(data.obs)
        q = agent.critics(data.obs, action)  # after the critics' step
        loss = 0.3 * (action - data.action).square().sum(1).mean() - q.amin(0).mean() / q.amin(0).abs().mean()
        shift = (q[0] - old.critics(data.obs, data.action)[0]).mean()
    torch.testing.assert_close(metrics["actor/loss"], loss)
    torch.testing.assert_close(metrics["critic/overestimation"], shift)


@pytest.mark.parametrize("delay", [1, 3])
def test_target_networks_move_with_the_policy_alone(delay):
    agent = make(delay=delay)
    delayed = [*agent.policy.parameters(), *agent.target_policy.parameters(), *agent.target_critics.parameters()]
    for n in range(1, 2 * delay + 1):
        before = [p.clone() for p in delayed]
        agent.update(random_recorded(WIDE, 16, n))
        moved = [not torch.equal(p, q) for p, q in zip(before, delayed, strict=True)]
        assert any(moved) == (n % delay == 0)


def test_defaults_are_the_paper_s():
    cfg = ReBRACConfig()
    assert (cfg.hidden, cfg.lr, cfg.layer_norm, cfg.delay, cfg.tau, cfg.critics) == ((256, 256, 256), 1e-3, True, 2, 0.005, 2)
    assert compose("rebrac", ["data=D.h5"]).loop.batch_size == 1024
    assert len(make().critics.net.gain) == 2
    assert not make(layer_norm=False).critics.net.norms


def test_actor_penalty_says_how_far_the_policy_leaves_narrow_data():
    """All recorded actions are 0.9, where the reward is worst."""
    obs, distance = torch.rand(64, 2) * 2 - 1, []
    rows = bandit(torch.full((64, 1), 0.9), obs)
    for weight in (10.0, 0.01):
        torch.manual_seed(0)
        agent = ReBRAC(SPEC, ReBRACConfig(hidden=(32,), lr=1e-2, actor_penalty=weight, layer_norm=False))
        data = recorded(*rows[:5], [64])
        agent.prepare(data)
        for _ in range(200):
            agent.update(data)
        distance.append((agent.act(obs, explore=False) - 0.9).abs().mean())
    assert distance[0] < 0.1
    assert distance[1] > 0.3


def test_update_on_a_bandit_improves_on_cloning():
    torch.manual_seed(0)
    agent, clone = ReBRAC(SPEC, ReBRACConfig(hidden=(32,), lr=1e-2)), BC(SPEC, BCConfig(hidden=(32,), lr=1e-2))
    assert learn_bandit(agent, 300) < 0.6 * learn_bandit(clone, 300)


@pytest.mark.parametrize("options", [{}, {"delay": 1, "layer_norm": False}, {"delay": 3, "critics": 1, "critic_penalty": 0.0}])
def test_rebrac_options_keep_the_contract(options):
    check_agent(lambda spec: ReBRAC(spec, ReBRACConfig(hidden=(16,), **options)))


def test_discrete_actions_are_refused():
    with pytest.raises(UserError, match="rebrac needs continuous actions"):
        ReBRAC(WIDE._replace(discrete=True), ReBRACConfig())
