"""What offline agents share: statistics of a data set inside the networks, the support of its actions, schedules, measures of the shift."""

import math

import pytest
import torch
from recorded_batches import recorded
from toys import WIDE

from mbkit import registry
from mbkit.agents.offline.base import episode_returns, statistics
from mbkit.agents.offline.iql import IQL, IQLConfig
from mbkit.agents.offline.td3_bc import TD3BC, TD3BCConfig
from mbkit.testing import random_recorded

DISCRETE = WIDE._replace(discrete=True)
NAMES = ["bc", "iql", "td3_bc", "awac", "sac_bc", "one_step", "xql", "rebrac", "kl_constrained"]


def data_set(n: int = 200, spec=WIDE):
    """Random rows whose observation columns are of very different sizes, one of them nearly constant."""
    data = random_recorded(spec, n)
    size, centre = torch.tensor([100.0, 1e-4, 1.0]), torch.tensor([1e3, 5.0, 0.0])
    return data._replace(obs=data.obs * size + centre, next_obs=data.next_obs * size + centre)


@pytest.mark.parametrize("name", NAMES)
def test_prepare_normalises_by_the_data_but_for_columns_that_hardly_vary(name):
    entry, data = registry.agents[name], data_set()
    agent = entry.target(WIDE, entry.config(hidden=(8,)))
    assert torch.equal(agent.normalizer(data.obs), data.obs)  # the identity until then
    agent.prepare(data)
    exact = data.obs.double()
    torch.testing.assert_close(agent.normalizer.mean, exact.mean(0).float())
    torch.testing.assert_close(
        agent.normalizer.std, exact.std(0, correction=0).float() * torch.tensor([1.0, 0.0, 1.0]) + torch.tensor([0.0, 1.0, 0.0])
    )
    assert entry.config().normalize_obs
    raw = entry.target(WIDE, entry.config(hidden=(8,), normalize_obs=False))
    raw.prepare(data)
    assert not hasattr(raw, "normalizer")


def test_normalizer_is_inside_every_network_target_networks_included():
    for agent in (TD3BC(WIDE, TD3BCConfig(hidden=(8,))), IQL(WIDE, IQLConfig(hidden=(8,))), IQL(DISCRETE, IQLConfig(hidden=(8,)))):
        networks = [child for name, child in agent.named_children() if name != "normalizer"]
        assert len(networks) == 4
        assert all(network.inputs is agent.normalizer for network in networks)


def test_updates_and_actions_speak_raw_units():
    """An agent with the statistics inside, on raw rows, is the agent without them on rows normalised before."""
    data = data_set(64)._replace(real=None)
    torch.manual_seed(0)
    inside = IQL(WIDE, IQLConfig(hidden=(16,)))
    torch.manual_seed(0)
    outside = IQL(WIDE, IQLConfig(hidden=(16,), normalize_obs=False))
    inside.prepare(data)
    normal = data._replace(obs=inside.normalizer(data.obs), next_obs=inside.normalizer(data.next_obs))
    for _ in range(5):
        mine, other = inside.update(data), outside.update(normal)
        assert {k: float(v) for k, v in mine.items() if "outside" not in k} == {k: float(v) for k, v in other.items() if "outside" not in k}
    assert torch.equal(inside.act(data.obs, explore=False), outside.act(normal.obs, explore=False))
    assert torch.equal(inside.value(data.obs), outside.value(normal.obs))


def test_statistics_of_chunks_equal_those_of_all_rows(monkeypatch):
    x = torch.randn(1000, 3, dtype=torch.float64) * torch.tensor([1.0, 1e3, 1e-2]) + 50
    monkeypatch.setattr("mbkit.agents.offline.base.CHUNK", 77)
    fitted = statistics(x)
    torch.testing.assert_close(fitted.total_mean, x.mean(0))
    torch.testing.assert_close((fitted.squares / fitted.count).sqrt(), x.std(0, correction=0))


def test_episode_returns_by_hand():
    reward = torch.tensor([1.0, 2.0, 3.0, 10.0, -1.0, -1.0])
    zeros = torch.zeros(6, 1)
    data = recorded(zeros, zeros, reward, zeros, torch.ones(6), [3, 1, 2])
    returns, episode = episode_returns(data)
    assert returns.tolist() == [6, 10, -2]
    assert episode.tolist() == [0, 0, 0, 1, 2, 2]


def test_outside_support_by_hand():
    agent, data = TD3BC(WIDE, TD3BCConfig(hidden=(8,))), data_set(3)
    assert agent.outside_support(torch.tensor([[1.0, -1.0]])) == 0  # any action of the box until `prepare`
    agent.prepare(data._replace(action=torch.tensor([[-0.5, 0.0], [0.25, 0.5], [0.0, 0.1]])))
    action = torch.tensor([[-0.5, 0.5], [0.3, 0.2], [0.0, -0.1], [0.9, 0.9]])
    assert agent.outside_support(action) == 0.75
    discrete = IQL(DISCRETE._replace(action_dim=3), IQLConfig(hidden=(8,)))
    assert discrete.outside_support(torch.tensor([0, 1, 2])) == 0
    discrete.prepare(data._replace(action=torch.tensor([0, 2, 2])))
    assert discrete.outside_support(torch.tensor([0, 1, 2, 1])) == 0.5


@pytest.mark.parametrize("spec", [WIDE, DISCRETE], ids=["continuous", "discrete"])
def test_shift_by_hand(spec):
    agent, data = IQL(spec, IQLConfig(hidden=(8,))), data_set(16, spec)
    agent.prepare(data)
    with torch.no_grad():
        action = agent.act(data.obs, explore=False)
        q = agent.critics(data.obs)[0] if spec.discrete else None
        policy_q = q[range(16), action] if spec.discrete else agent.critics(data.obs, action)[0]
        data_q = q[range(16), data.action] if spec.discrete else agent.critics(data.obs, data.action)[0]
    metrics = agent.update(data)
    torch.testing.assert_close(metrics["critic/overestimation"], (policy_q - data_q).mean())
    assert metrics["actor/outside_support"] == agent.outside_support(action)


def test_anneal_is_a_cosine_of_the_policy_s_learning_rate_alone():
    agent = IQL(WIDE, IQLConfig(hidden=(8,), lr=2e-3))
    for remaining, factor in ((1.0, 1.0), (0.75, (1 + math.cos(math.pi / 4)) / 2), (0.5, 0.5), (0.0, 0.0)):
        agent.anneal(remaining)
        rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in agent.optimizers.items()}
        assert rates == {"policy": pytest.approx(2e-3 * factor), "v": 2e-3, "critics": 2e-3}
    before = [p.clone() for p in agent.policy.parameters()]
    agent.update(data_set(16))
    assert all(map(torch.equal, before, agent.policy.parameters()))


def test_anneal_writes_into_a_learning_rate_on_the_device():
    agent = IQL(WIDE, IQLConfig(hidden=(8,)))
    rate = agent.optimizers["policy"].param_groups[0]["lr"] = torch.tensor(3e-4)  # as on a GPU
    agent.anneal(0.5)
    assert agent.optimizers["policy"].param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(1.5e-4)


@pytest.mark.parametrize("name", NAMES)
def test_offline_agents_learn_from_data_sets_alone(name):
    assert registry.agents[name].learns_from == ("dataset",)
