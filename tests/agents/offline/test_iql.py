"""Implicit Q-learning: its losses by hand, the order of its updates, and exact expectiles and tabular IQL as what it must come to."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from recorded_batches import recorded, rows_of
from toys import SPEC, WIDE, learn_bandit

from mbkit.agents.offline.bc import BC, BCConfig
from mbkit.agents.offline.iql import IQL, IQLConfig, expectile_loss
from mbkit.errors import UserError
from mbkit.networks.values import regression_loss
from mbkit.tabular.mdp import MDP
from mbkit.tabular.offline import expectile, implicit_q
from mbkit.testing import check_agent, random_batch, random_recorded
from mbkit.types import EnvSpec, Targets, Transition

CPU = torch.device("cpu")
DISCRETE = WIDE._replace(discrete=True)


def make(spec=WIDE, gamma: float = 0.9, **options) -> IQL:
    torch.manual_seed(0)
    return IQL(spec, IQLConfig(**{"hidden": (16, 16), **options}), gamma=gamma)


def test_expectile_loss_by_hand():
    u = torch.tensor([1.0, -2.0])
    assert expectile_loss(u, 0.7).item() == pytest.approx((0.7 * 1 + 0.3 * 4) / 2)
    assert expectile_loss(u, 0.5).item() == pytest.approx(u.square().mean().item() / 2)  # half the squared error: V is the mean


def test_expectile_loss_gradient_by_finite_differences():
    u = torch.tensor([0.7, -1.3, 2.0, -0.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: expectile_loss(x, 0.9), (u,))


@pytest.mark.parametrize("spec", [WIDE, DISCRETE], ids=["continuous", "discrete"])
def test_update_uses_v_before_its_own_step_everywhere(spec):
    agent, batch = make(spec, lr=0.1, temperature=0.5, weight_clip=1.1), random_batch(spec, 32)
    with torch.no_grad():
        for p in agent.target_critics.parameters():
            p.add_(0.05)  # no longer the critics
    old = deepcopy(agent)
    metrics = agent.update(batch)
    with torch.no_grad():
        q, target_q = (c(batch.obs) if spec.discrete else c(batch.obs, batch.action) for c in (old.critics, old.target_critics))
        if spec.discrete:
            q, target_q = q[:, range(32), batch.action], target_q[:, range(32), batch.action]
        advantage = target_q.amin(0) - old.v(batch.obs)
        y = Targets(batch.obs, batch.action, batch.reward + 0.9 * batch.discount * old.v(batch.next_obs), torch.ones(32))
        weight = (advantage / 0.5).exp().clamp(max=1.1)
        policy_loss = -(weight * old.policy(batch.obs).log_prob(batch.action)).mean()
    assert (weight == 1.1).any()
    assert (weight < 1.1).any()
    assert metrics["critic/loss"] == regression_loss(q, y)
    assert metrics["critic/v_loss"] == expectile_loss(advantage, 0.7)
    torch.testing.assert_close(metrics["actor/loss"], policy_loss)
    assert metrics["actor/weight"] == weight.mean()
    for target, before, online in zip(
        agent.target_critics.parameters(), old.target_critics.parameters(), agent.critics.parameters(), strict=True
    ):
        torch.testing.assert_close(target, torch.lerp(before, online, 0.005))


def test_config_defaults_are_the_paper_s():
    cfg = IQLConfig()
    assert (cfg.expectile, 1 / cfg.temperature, cfg.weight_clip, cfg.critics, cfg.tau) == (0.7, pytest.approx(3), 100, 2, 0.005)


def test_prepare_scales_rewards_to_a_range_of_returns_of_1000():
    obs = torch.randn(6, 3)
    data = recorded(obs, torch.zeros(6, 2), torch.tensor([1.0, 1, 1, 5, 0, -1]), obs, torch.ones(6), [3, 1, 2])  # returns 3, 5, -1
    agent, plain = make(reward_scale="return_range"), make()
    agent.prepare(data)
    plain.prepare(data)
    assert agent.reward_factor.item() == pytest.approx(1000 / 6)
    scaled = plain.update(data._replace(reward=data.reward * agent.reward_factor))
    assert agent.update(data)["critic/loss"] == scaled["critic/loss"]
    torch.testing.assert_close(agent.value(obs) * agent.reward_factor, plain.value(obs))  # values in units of the rewards
    with pytest.raises(UserError, match="expected episodes of different returns, but all have 3"):
        agent.prepare(rows_of(data, torch.arange(3)))


# ---------------------------------------------------------------------------------------------------------------- exact answers
REWARDS = np.array([0.0, 0.3, 0.6, 1.0])
SHARES = np.array([0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize("level", [0.5, 0.7, 0.9, 0.99])
def test_v_of_one_state_is_the_expectile_of_the_recorded_rewards(level):
    action = torch.from_numpy(np.repeat(np.arange(4), (100 * SHARES).astype(int)))
    obs, reward = torch.zeros(100, 1), torch.from_numpy(REWARDS).float()[action]
    agent = make(EnvSpec(1, 4, CPU, True), expectile=level, lr=1e-2, tau=0.1, hidden=(16,))
    rows = Transition(obs, action, reward, obs, torch.zeros(100))
    highest = -math.inf
    for _ in range(400):
        agent.update(rows)
        highest = max(highest, float(agent.value(obs[:1])))
    assert float(agent.value(obs[:1])) == pytest.approx(float(expectile(REWARDS, SHARES, level)), abs=0.05)
    assert highest <= 1.1  # never above the best recorded reward


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.5, 0.7, 0.9, 0.99])
def test_v_of_one_state_with_continuous_actions_is_the_expectile_of_the_recorded_rewards(level):
    torch.manual_seed(0)
    obs, action = torch.zeros(2000, 1), 2 * torch.rand(2000, 1) - 1
    reward = 1 - (action[:, 0] - 0.3).square()
    agent = make(EnvSpec(1, 1, CPU), expectile=level, lr=1e-3, tau=0.02, hidden=(64, 64))
    data = recorded(obs, action, reward, obs, torch.zeros(2000), [1] * 2000)
    agent.prepare(data)
    exact = float(expectile(reward.double().numpy(), np.full(2000, 1 / 2000), level))
    highest = -math.inf
    for _ in range(1500):
        agent.update(rows_of(data, torch.randint(2000, (256,))))
        highest = max(highest, float(agent.value(obs[:1])))
    assert float(agent.value(obs[:1])) == pytest.approx(exact, abs=0.05)
    assert highest <= float(reward.max()) + 0.1


def test_iql_on_one_hot_states_comes_to_tabular_implicit_q():
    """Five states, the last terminal, deterministic successors; rows in exact proportion to the behaviour policy, all in every update."""
    S, A, gamma, level = 5, 3, 0.7, 0.8
    rng = np.random.default_rng(3)
    after, R = rng.integers(S, size=(S, A)), rng.uniform(size=(S, A))
    after[-1], R[-1] = S - 1, 0.0
    counts = np.array([[1, 2, 3], [4, 1, 1], [2, 2, 2], [0, 5, 1], [0, 0, 6]])
    mdp = MDP(np.eye(S)[after], R, np.eye(S)[0], gamma, np.arange(S) == S - 1)
    v, q = implicit_q(mdp, counts / 6, level)
    state, choice = (torch.from_numpy(np.repeat(x, counts[:-1].ravel())) for x in np.divmod(np.arange((S - 1) * A), A))
    one_hot, successor = torch.eye(S), torch.from_numpy(after)[state, choice]
    reward, discount = torch.from_numpy(R).float()[state, choice], (successor != S - 1).float()
    rows = Transition(one_hot[state], choice, reward, one_hot[successor], discount)
    agent = make(EnvSpec(S, A, CPU, True), gamma, expectile=level, lr=1e-2, tau=0.1, hidden=(32,))
    for _ in range(600):
        agent.update(rows)
    recorded_pairs = counts[:-1] > 0
    learned = agent.critics(one_hot)[0].detach().numpy()[:-1]
    assert np.abs(agent.value(one_hot).numpy() - v)[:-1].max() < 0.03
    assert np.abs(learned - q[:-1])[recorded_pairs].max() < 0.03


def test_update_on_a_bandit_improves_on_cloning():
    torch.manual_seed(0)
    agent, clone = IQL(SPEC, IQLConfig(hidden=(32,), lr=1e-2, temperature=0.1)), BC(SPEC, BCConfig(hidden=(32,), lr=1e-2))
    assert learn_bandit(agent, 300) < 0.6 * learn_bandit(clone, 300)


@pytest.mark.parametrize("options", [{"reward_scale": "return_range"}, {"critics": 1, "expectile": 0.9}])
def test_iql_options_keep_the_contract(options):
    check_agent(lambda spec: IQL(spec, IQLConfig(hidden=(16,), **options)))


def test_several_discrete_actions_are_refused():
    with pytest.raises(UserError, match="iql takes one discrete action at a time"):
        IQL(EnvSpec(3, 5, CPU, True, (3, 2)), IQLConfig())


def test_value_is_v():
    agent, obs = make(), random_recorded(WIDE, 8).obs
    assert torch.equal(agent.value(obs), agent.v(obs).detach())


def test_value_slope_is_the_gradient_of_the_value_loss():
    torch.manual_seed(0)
    agent, value, target = IQL(WIDE, IQLConfig(hidden=(16,))), torch.randn(32, requires_grad=True), 20 * torch.randn(32)
    expected = torch.autograd.grad(agent.value_loss(target - value), value)[0]
    torch.testing.assert_close(agent.value_slope(target - value.detach()), expected, rtol=1e-4, atol=1e-6)
