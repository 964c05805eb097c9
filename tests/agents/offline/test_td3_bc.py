"""TD3+BC: its losses by hand, TD3's critics and cloning as limits, and better actions than the data's on a bandit."""

import pytest
import torch
from recorded_batches import recorded
from toys import SPEC, WIDE, bandit, learn_bandit

from mbkit.agents.actor_critic.td3 import TD3, TD3Config
from mbkit.agents.offline.bc import BC, BCConfig
from mbkit.agents.offline.td3_bc import TD3BC, TD3BCConfig, cloned_policy_loss, q_weight
from mbkit.testing import check_agent, random_batch


def make(**options) -> TD3BC:
    torch.manual_seed(0)
    return TD3BC(WIDE, TD3BCConfig(hidden=(16, 16), **options), gamma=0.9)


def test_q_weight_and_loss_by_hand():
    q = torch.tensor([2.0, -4.0], requires_grad=True)
    assert q_weight(q, 2.5).item() == pytest.approx(2.5 / 3)
    assert not q_weight(q, 2.5).requires_grad
    action, data = torch.tensor([[0.5, -0.5], [0.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert cloned_policy_loss(q, action, data, 2.5).item() == pytest.approx(0.375 + 2.5 / 3)
    assert cloned_policy_loss(torch.zeros(2), action, data, 2.5).item() == pytest.approx(0.375)  # no rewards: cloning


def test_critics_are_those_of_td3():
    agent, twin = make(), TD3(WIDE, TD3Config(hidden=(16, 16)), gamma=0.9)
    for name in ("policy", "critics", "target_policy", "target_critics"):
        weights = {k: v for k, v in getattr(agent, name).state_dict().items() if not k.startswith("inputs")}
        getattr(twin, name).load_state_dict(weights)
    torch.manual_seed(1)
    mine = agent.update(random_batch(WIDE, 32))
    torch.manual_seed(1)
    theirs = twin.update(random_batch(WIDE, 32))
    assert mine["critic/loss"] == theirs["critic/loss"]
    assert all(map(torch.equal, agent.critics.net.weight, twin.critics.net.weight))


def test_alpha_0_is_cloning():
    agent = make(alpha=0.0, delay=1)
    clone = BC(WIDE, BCConfig(hidden=(16, 16)))
    clone.policy.load_state_dict(agent.policy.state_dict())
    for seed in range(3):
        batch = random_batch(WIDE, 32, seed)
        assert agent.update(batch)["actor/loss"] == clone.update(batch)["actor/loss"]
    assert all(map(torch.equal, agent.policy.parameters(), clone.policy.parameters()))


@pytest.mark.parametrize("delay", [1, 3])
def test_target_networks_move_with_the_policy_alone(delay):
    agent = make(delay=delay)
    assert agent.cycle == delay
    delayed = [*agent.policy.parameters(), *agent.target_policy.parameters(), *agent.target_critics.parameters()]
    for n in range(1, 2 * delay + 1):
        before = [p.clone() for p in delayed]
        agent.update(random_batch(WIDE, 16, n))
        moved = [not torch.equal(p, q) for p, q in zip(before, delayed, strict=True)]
        assert all(moved) if n % delay == 0 else not any(moved)


def test_sample_has_noise_and_act_without_exploration_has_none():
    agent, obs = make(noise_scale=0.3), random_batch(WIDE, 1000).obs
    torch.testing.assert_close((agent.sample(obs) - agent.act(obs, explore=False)).std().item(), 0.3, atol=0.03, rtol=0)
    assert torch.equal(make(noise_scale=0.0).sample(obs), make().act(obs, explore=False))


@pytest.mark.parametrize("options", [{"delay": 1}, {"delay": 3, "critics": 1}])
def test_td3_bc_options_keep_the_contract(options):
    check_agent(lambda spec: TD3BC(spec, TD3BCConfig(hidden=(16,), **options)))


def test_update_on_a_bandit_improves_on_cloning():
    torch.manual_seed(0)
    agent, clone = TD3BC(SPEC, TD3BCConfig(hidden=(32,), lr=1e-2)), BC(SPEC, BCConfig(hidden=(32,), lr=1e-2))
    assert learn_bandit(agent, 300) < 0.6 * learn_bandit(clone, 300)


def test_alpha_says_how_far_the_policy_leaves_narrow_data():
    """All recorded actions are 0.9, where the reward is worst, and no critic has a reason to say so."""
    obs, distance = torch.rand(64, 2) * 2 - 1, []
    rows = bandit(torch.full((64, 1), 0.9), obs)
    for alpha in (0.1, 20.0):
        torch.manual_seed(0)
        agent = TD3BC(SPEC, TD3BCConfig(hidden=(32,), lr=1e-2, alpha=alpha))
        agent.prepare(recorded(*rows[:5], [64]))
        for _ in range(200):
            metrics = agent.update(rows)
        distance.append((agent.act(obs, explore=False) - 0.9).abs().mean())
    assert distance[0] < 0.1
    assert distance[1] > 0.3
    assert metrics["actor/outside_support"] == 1  # a single recorded action has no width
