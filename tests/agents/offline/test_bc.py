"""Behaviour cloning: every kind of policy recovers what made the data; conditioned on returns it acts as the chosen episodes did."""

import pytest
import torch
from recorded_batches import recorded, rows_of
from toys import SPEC, WIDE

from mbkit.agents.offline.bc import BC, BCConfig
from mbkit.errors import UserError
from mbkit.testing import check_agent, random_recorded
from mbkit.types import EnvSpec

DISCRETE = SPEC._replace(discrete=True, action_dim=3)


def clone(agent: BC, data, updates: int, rows: int = 64) -> None:
    agent.prepare(data)
    for n in range(updates):
        agent.update(rows_of(data, torch.randint(len(data.reward), (rows,), generator=torch.Generator().manual_seed(n))))


def data_set(action, obs):
    n = len(obs)
    return recorded(obs, action, torch.zeros(n), obs, torch.ones(n), [n])


def test_update_deterministic_recovers_a_linear_policy():
    torch.manual_seed(0)
    obs = 50 * (2 * torch.rand(500, 2) - 1) + 200  # raw units
    action = (obs[:, :1] - 200) / 100
    agent = BC(SPEC, BCConfig(hidden=(32,), lr=1e-2))
    clone(agent, data_set(action, obs), 300)
    assert (agent.act(obs, explore=False) - action).abs().mean() < 0.02
    assert torch.equal(agent.act(obs), agent.act(obs, explore=False))  # it has no exploration noise


def test_update_gaussian_recovers_mean_and_standard_deviation():
    torch.manual_seed(0)
    obs = 2 * torch.rand(4000, 2) - 1
    action = (0.3 * obs[:, :1] + 0.1 + 0.15 * torch.randn(4000, 1)).clamp(-1, 1)
    agent = BC(SPEC, BCConfig(hidden=(32,), lr=1e-2, policy="gaussian"))
    clone(agent, data_set(action, obs), 400, 256)
    distribution = agent.output(obs)
    assert (distribution.mean - 0.3 * obs[:, :1] - 0.1).abs().mean() < 0.03
    assert distribution.log_std.exp().mean().item() == pytest.approx(0.15, abs=0.015)
    assert agent.act(obs).std() > agent.act(obs, explore=False).std()


def test_update_categorical_recovers_frequencies():
    torch.manual_seed(0)
    obs = torch.eye(2)[torch.randint(2, (3000,))]
    probability = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]])
    action = torch.multinomial(probability[obs.argmax(1)], 1)[:, 0]
    agent = BC(DISCRETE, BCConfig(hidden=(16,), lr=3e-3))
    clone(agent, data_set(action, obs), 400, 512)
    torch.testing.assert_close(agent.output(torch.eye(2)).log_probs().exp(), probability, atol=0.06, rtol=0)
    assert agent.act(torch.eye(2), explore=False)[0] == 0


def two_kinds(episodes: int = 40, length: int = 5):
    """Episodes of return 1000 whose action is 0.5, and of return -1000 with -0.5, in turn; rewards come at the end alone."""
    n = episodes * length
    good = (torch.arange(n) // length) % 2 == 0
    action = torch.where(good, 0.5, -0.5)[:, None]
    reward = torch.zeros(n)
    reward[length - 1 :: length] = torch.where(good, 1000.0, -1000.0)[length - 1 :: length]
    obs = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    return recorded(obs, action, reward, obs, torch.ones(n), [length] * episodes)


@pytest.mark.parametrize(("quantile", "action"), [(1.0, 0.5), (0.0, -0.5)])
@pytest.mark.parametrize("policy", ["deterministic", "gaussian"])
def test_condition_on_returns_acts_as_the_episodes_of_the_target_quantile(policy, quantile, action):
    torch.manual_seed(0)
    agent = BC(SPEC, BCConfig(hidden=(16,), lr=1e-2, policy=policy, condition="return", target_quantile=quantile))
    data = two_kinds()
    clone(agent, data, 200)
    assert agent.target_return == (1000 if quantile else -1000)
    assert (agent.act(data.obs, explore=False) - action).abs().mean() < 0.05


def test_condition_none_clones_the_mean_of_both():
    torch.manual_seed(0)
    agent = BC(SPEC, BCConfig(hidden=(16,), lr=1e-2))
    data = two_kinds()
    clone(agent, data, 200)
    assert agent.act(data.obs, explore=False).mean().abs() < 0.15


def test_condition_is_constant_along_an_episode_and_by_row():
    agent, data = BC(SPEC, BCConfig(hidden=(8,), condition="return")), two_kinds(3)
    data = data._replace(reward=torch.arange(15.0))
    data = recorded(data.obs, data.action, data.reward, data.obs, data.discount, [4, 1, 10])
    assert torch.equal(agent.episode_return(data), data.return_to_go)  # no table yet
    agent.prepare(data)
    assert agent.episode_return(data).tolist() == [6.0] * 4 + [4.0] + [95.0] * 10
    rows = torch.tensor([12, 0, 4])
    assert agent.episode_return(rows_of(data, rows)).tolist() == [95.0, 6.0, 4.0]
    torch.testing.assert_close(agent.normalizer.mean[-1].item(), (24 + 4 + 950) / 15, check_dtype=False, rtol=1e-6, atol=0)


def test_state_dict_holds_the_target_and_not_the_table():
    agent, data = BC(SPEC, BCConfig(hidden=(8,), condition="return")), two_kinds()
    agent.prepare(data)
    state = agent.state_dict()
    assert "returns" not in state
    other = BC(SPEC, BCConfig(hidden=(8,), condition="return"))
    other.load_state_dict(state)
    assert torch.equal(other.act(data.obs, explore=False), agent.act(data.obs, explore=False))


@pytest.mark.parametrize(
    "options",
    [
        {"condition": "return"},
        {"policy": "gaussian", "condition": "return"},
        {"policy": "categorical"},
        {"condition": "return", "normalize_obs": False},
    ],
)
def test_bc_options_keep_the_contract(options):
    check_agent(lambda spec: BC(spec, BCConfig(hidden=(16,), **options)))


def test_policy_that_does_not_suit_the_actions_is_refused():
    with pytest.raises(UserError, match=r"agent\.policy=categorical needs discrete actions, but the environment has continuous ones"):
        BC(WIDE, BCConfig(policy="categorical"))
    with pytest.raises(UserError, match=r"agent\.policy=gaussian needs continuous actions, but the environment has discrete ones"):
        BC(DISCRETE, BCConfig(policy="gaussian"))
    with pytest.raises(UserError, match="bc takes one discrete action at a time"):
        BC(EnvSpec(3, 5, torch.device("cpu"), True, (3, 2)), BCConfig())


def test_value_is_zero():
    assert torch.equal(BC(WIDE, BCConfig()).value(random_recorded(WIDE, 4).obs), torch.zeros(4))
