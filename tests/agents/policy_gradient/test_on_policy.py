"""The base of learners from trajectories: minibatches, log-probabilities, normalisers that change only in updates."""

import pytest
import torch
from bandits import CONTINUOUS, DISCRETE, SEVERAL
from toys import WIDE

from mbkit.agents.policy_gradient.on_policy import NetworkConfig, OnPolicyAgent, flat, in_minibatches, standardized, value_loss
from mbkit.testing import random_trajectory


def make(spec=WIDE, **options) -> OnPolicyAgent:
    torch.manual_seed(0)
    return OnPolicyAgent(spec, NetworkConfig(hidden=(16, 16), **options), gamma=0.9)


def test_value_loss_by_hand():
    assert value_loss(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 2.0])).item() == pytest.approx(4.5)


def test_standardized_has_mean_0_and_deviation_1():
    advantage = standardized(torch.randn(100, generator=torch.Generator().manual_seed(0)) * 7 + 3)
    assert advantage.mean().item() == pytest.approx(0, abs=1e-6)
    assert advantage.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(standardized(torch.full((3,), 2.0)), torch.zeros(3))


@pytest.mark.parametrize(("size", "sizes"), [(4, [4, 4, 2]), (5, [5, 5]), (10, [10]), (64, [10]), (1, [1] * 10)])
def test_in_minibatches_contain_every_row_once(size, sizes):
    rows, names = torch.arange(10), torch.arange(10)[:, None] * 100
    pairs = list(in_minibatches((rows, names), size))
    assert [len(a) for a, _ in pairs] == sizes
    assert sorted(torch.cat([a for a, _ in pairs]).tolist()) == list(range(10))
    assert all(torch.equal(a * 100, b[:, 0]) for a, b in pairs)


def test_in_minibatches_order_differs_each_time():
    rows = torch.arange(100)
    first, second = (next(iter(in_minibatches((rows,), 100)))[0] for _ in range(2))
    assert not torch.equal(first, second)
    assert not torch.equal(first, rows)


def test_flat_lists_environments_within_a_step():
    assert flat(torch.arange(6).reshape(2, 3)).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("spec", [CONTINUOUS, DISCRETE, SEVERAL], ids=["continuous", "discrete", "several"])
def test_log_prob_of_a_trajectory_equals_that_of_its_steps(spec):
    """[T, M] at once as [M] step by step, and as the policy's distribution has it."""
    agent, t = make(spec, normalize_obs=True), random_trajectory(spec, 5, 3)
    agent.normalizer.update(flat(t.obs) * 3 + 1)
    log_prob = agent.log_prob(t.obs, t.action)
    assert log_prob.shape == (5, 3)
    for step in range(5):
        distribution = agent.policy(agent.normalizer(t.obs[step]))
        torch.testing.assert_close(log_prob[step], distribution.log_prob(t.action[step]).detach())


def test_log_probs_of_several_actions_lie_side_by_side():
    agent, obs = make(SEVERAL), torch.randn(7, 2)
    first, second = agent.log_probs(obs).split((3, 2), -1)
    action = torch.tensor([[2, 1]]).expand(7, 2)
    torch.testing.assert_close(first[:, 2] + second[:, 1], agent.log_prob(obs, action))
    torch.testing.assert_close(second.exp().sum(-1), torch.ones(7))


def test_log_probs_contain_the_log_prob_of_every_action():
    agent, obs = make(DISCRETE), torch.randn(5, 2)
    columns = [agent.log_prob(obs, torch.full((5,), action)) for action in range(3)]
    assert torch.equal(agent.log_probs(obs), torch.stack(columns, 1))


def test_normalize_obs_applies_to_policy_and_values_alike():
    """Observations that the normaliser maps to the same numbers have the same actions and values."""
    plain, normal = make(), make(normalize_obs=True)
    obs = torch.randn(6, 3)
    assert torch.equal(plain.act(obs, explore=False), normal.act(obs, explore=False))  # before the first update
    t = random_trajectory(WIDE, 50, 4)
    normal.update_normalizers(t._replace(obs=t.obs * 5 + 2), torch.zeros(200))
    normalizer = normal.normalizer
    torch.testing.assert_close(normal.act(normalizer.inverse(obs), explore=False), plain.act(obs, explore=False))
    torch.testing.assert_close(normal.value(normalizer.inverse(obs)), plain.value(obs))


def test_act_leaves_the_normalizers_unchanged():
    agent, obs = make(normalize_obs=True, normalize_value=True), torch.randn(4, 3)
    agent.update_normalizers(random_trajectory(WIDE, 10, 2), torch.randn(20))
    before = {name: x.clone() for name, x in agent.named_buffers()}
    agent.act(obs), agent.value(obs), agent.log_prob(obs, agent.sample(obs))
    assert before
    assert all(torch.equal(x, before[name]) for name, x in agent.named_buffers())


@pytest.mark.parametrize("normalize", [False, True])
def test_normalize_value_rescales_only_when_set(normalize):
    agent, obs = make(normalize_value=normalize), torch.randn(4, 3)
    before = agent.value(obs)
    agent.update_normalizers(random_trajectory(WIDE, 10, 2), torch.randn(20) * 50 + 300)
    assert (agent.critic.normalizer.std.item() > 1) == normalize
    torch.testing.assert_close(agent.value(obs), before, atol=1e-3, rtol=1e-4)


def test_act_explores_by_samples_and_is_greedy_by_the_mode():
    agent, obs = make(), torch.randn(4, 3)
    assert not torch.equal(agent.act(obs), agent.act(obs))
    assert torch.equal(agent.act(obs, explore=False), agent.distribution(obs).mode())
