"""What learners from trajectories share: rows in and out of order, densities of what was done, normalisers frozen outside updates."""

import pytest
import torch
from bandits import CHOICES, NUMBERS
from toys import WIDE

from mbkit.agents.policy_gradient.on_policy import NetworkConfig, OnPolicyAgent, flat, in_minibatches, shuffled, standardized
from mbkit.testing import random_trajectory


def make(spec=WIDE, **options) -> OnPolicyAgent:
    torch.manual_seed(0)
    return OnPolicyAgent(spec, NetworkConfig(hidden=(16, 16), **options), gamma=0.9)


def test_standardized():
    advantage = standardized(torch.randn(100, generator=torch.Generator().manual_seed(0)) * 7 + 3)
    assert advantage.mean().item() == pytest.approx(0, abs=1e-6)
    assert advantage.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(standardized(torch.full((3,), 2.0)), torch.zeros(3))


@pytest.mark.parametrize(("size", "sizes"), [(4, [4, 4, 2]), (5, [5, 5]), (10, [10]), (64, [10]), (1, [1] * 10)])
def test_every_row_is_in_one_minibatch(size, sizes):
    rows, names = torch.arange(10), torch.arange(10)[:, None] * 100
    parts = shuffled(10, size, torch.device("cpu"))
    assert [len(part) for part in parts] == sizes
    assert sorted(torch.cat(parts).tolist()) == list(range(10))
    pairs = list(in_minibatches((rows, names), size))
    assert [len(a) for a, _ in pairs] == sizes
    assert sorted(torch.cat([a for a, _ in pairs]).tolist()) == list(range(10))
    assert all(torch.equal(a * 100, b[:, 0]) for a, b in pairs)


def test_the_order_is_another_each_time():
    rows = torch.arange(100)
    first, second = (next(iter(in_minibatches((rows,), 100)))[0] for _ in range(2))
    assert not torch.equal(first, second)
    assert not torch.equal(first, rows)


def test_flat_goes_environment_by_environment_within_a_step():
    assert flat(torch.arange(6).reshape(2, 3)).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("spec", [NUMBERS, CHOICES], ids=["numbers", "choices"])
def test_log_probabilities_of_trajectories(spec):
    """[T, M] at once as [M] step by step, and the policy's own density."""
    agent, t = make(spec, normalize_obs=True), random_trajectory(spec, 5, 3)
    agent.normalizer.update(flat(t.obs) * 3 + 1)
    log_prob = agent.log_prob(t.obs, t.action)
    assert log_prob.shape == (5, 3)
    for step in range(5):
        found = agent.policy(agent.normalizer(t.obs[step]))
        torch.testing.assert_close(log_prob[step], found.log_prob(t.action[step]).detach())


def test_observations_are_normalised_for_policy_and_values_alike():
    """What the normaliser maps to the same numbers is acted on and valued alike."""
    plain, normal = make(), make(normalize_obs=True)
    obs = torch.randn(6, 3)
    assert torch.equal(plain.act(obs, explore=False), normal.act(obs, explore=False))  # nothing was seen yet
    t = random_trajectory(WIDE, 50, 4)
    normal.observe(t._replace(obs=t.obs * 5 + 2), torch.zeros(200))
    seen = normal.normalizer
    torch.testing.assert_close(normal.act(obs * seen.std + seen.mean, explore=False), plain.act(obs, explore=False))
    torch.testing.assert_close(normal.value(obs * seen.std + seen.mean), plain.value(obs))


def test_acting_leaves_the_normalisers_alone():
    agent, obs = make(normalize_obs=True, normalize_value=True), torch.randn(4, 3)
    agent.observe(random_trajectory(WIDE, 10, 2), torch.randn(20))
    before = {name: x.clone() for name, x in agent.named_buffers()}
    agent.act(obs), agent.value(obs), agent.log_prob(obs, agent.sample(obs))
    assert before
    assert all(torch.equal(x, before[name]) for name, x in agent.named_buffers())


@pytest.mark.parametrize("wanted", [False, True])
def test_values_are_normalised_where_it_is_wanted(wanted):
    agent, obs = make(normalize_value=wanted), torch.randn(4, 3)
    before = agent.value(obs)
    agent.observe(random_trajectory(WIDE, 10, 2), torch.randn(20) * 50 + 300)
    assert (agent.critic.targets.std.item() > 1) == wanted
    torch.testing.assert_close(agent.value(obs), before, atol=1e-3, rtol=1e-4)


def test_exploring_actions_differ_and_greedy_ones_are_the_mode():
    agent, obs = make(), torch.randn(4, 3)
    assert not torch.equal(agent.act(obs), agent.act(obs))
    assert torch.equal(agent.act(obs, explore=False), agent.distribution(obs).mode())
