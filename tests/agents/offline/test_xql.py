"""Extreme Q-learning: the Gumbel loss by hand, the order of its updates, and exact soft maxima and soft tabular values."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from recorded_batches import recorded, rows_of
from toys import SPEC, WIDE, learn_bandit

from mbkit.agents.offline.bc import BC, BCConfig
from mbkit.agents.offline.xql import XQL, XQLConfig, gumbel_loss
from mbkit.errors import UserError
from mbkit.networks.values import regression_loss
from mbkit.testing import check_agent, random_batch
from mbkit.types import EnvSpec, Targets, Transition

CPU = torch.device("cpu")
DISCRETE = WIDE._replace(discrete=True)


def make(spec=WIDE, gamma: float = 0.9, **options) -> XQL:
    torch.manual_seed(0)
    return XQL(spec, XQLConfig(**{"hidden": (16, 16), **options}), gamma=gamma)


def test_gumbel_loss_by_hand():
    u = torch.tensor([2.0, -2.0])
    assert gumbel_loss(u, 2.0, 7.0).item() == pytest.approx(((math.e - 2) + (1 / math.e + 1 - 1)) / 2)
    assert gumbel_loss(torch.zeros(3), 2.0, 7.0).item() == 0
    small = torch.tensor([1e-2, -2e-2], dtype=torch.float64)
    assert gumbel_loss(small, 2.0, 7.0).item() == pytest.approx((small / 2).square().mean().item() / 2, rel=1e-2)  # V is the mean


def test_gumbel_loss_goes_on_as_a_line_above_the_clip():
    loss, slope = math.exp(3) - 4, math.exp(3) - 1
    assert gumbel_loss(torch.tensor([10.0]), 2.0, 3.0).item() == pytest.approx(loss + 2 * slope)
    u = torch.tensor([1.0, 6.0, 60.0, 6000.0], dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(gumbel_loss(u, 2.0, 3.0), u)[0]
    assert gradient.tolist() == pytest.approx([(math.exp(0.5) - 1) / 8, *[slope / 8] * 3])  # finite and upwards, however large z


def test_gumbel_loss_gradient_by_finite_differences():
    u = torch.tensor([0.7, -1.3, 2.0, -0.1, 9.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: gumbel_loss(x, 1.5, 3.0), (u,))


def test_minimum_of_the_gumbel_loss_is_the_soft_maximum():
    q, v = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64), torch.zeros((), dtype=torch.float64, requires_grad=True)
    exact = 0.8 * (torch.logsumexp(q / 0.8, 0) - math.log(3))
    with torch.no_grad():
        v.copy_(exact)
    assert torch.autograd.grad(gumbel_loss(q - v, 0.8, 7.0), v)[0].abs() < 1e-12


@pytest.mark.parametrize("spec", [WIDE, DISCRETE], ids=["continuous", "discrete"])
def test_update_uses_v_before_its_own_step_everywhere(spec):
    agent, batch = make(spec, lr=0.1, temperature=0.5, weight_clip=1.1, scale=0.5), random_batch(spec, 32)
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
    assert metrics["critic/loss"] == regression_loss(q, y)
    assert metrics["critic/v_loss"] == gumbel_loss(advantage, 0.5, 7.0)
    torch.testing.assert_close(metrics["actor/loss"], policy_loss)
    assert metrics["actor/weight"] == weight.mean()
    assert torch.equal(agent.value(batch.obs), agent.v(batch.obs).detach())


# ---------------------------------------------------------------------------------------------------------------- exact answers
def one_state(scale: float, factor: float = 1.0, updates: int = 400) -> float:
    """V of one state whose four actions, of rewards 0, .3, .6 and 1 times the factor, were taken 40, 30, 20 and 10 times."""
    action = torch.repeat_interleave(torch.arange(4), torch.tensor([40, 30, 20, 10]))
    obs, reward = torch.zeros(100, 1), factor * torch.tensor([0.0, 0.3, 0.6, 1.0])[action]
    agent = make(EnvSpec(1, 4, CPU, True), scale=scale, lr=1e-2, tau=0.1, hidden=(16,))
    rows = Transition(obs, action, reward, obs, torch.zeros(100))
    for _ in range(updates):
        agent.update(rows)
    return float(agent.value(obs[:1]))


@pytest.mark.parametrize("scale", [0.1, 0.3, 3.0])
def test_v_of_one_state_is_the_soft_maximum_of_the_recorded_rewards(scale):
    rewards, shares = np.array([0.0, 0.3, 0.6, 1.0]), np.array([0.4, 0.3, 0.2, 0.1])
    assert one_state(scale) == pytest.approx(scale * math.log((shares * np.exp(rewards / scale)).sum()), abs=0.03)


def test_v_rises_though_every_exponent_is_above_the_clip():
    assert one_state(0.02, factor=30.0) > 20  # z begins at up to 1500, where a constant loss would leave V at 0


def test_xql_on_one_hot_states_comes_to_soft_values():
    """Five states, the last terminal, deterministic successors; rows in exact proportion to the behaviour policy, all in every update."""
    S, A, gamma, scale = 5, 3, 0.7, 0.4
    rng = np.random.default_rng(3)
    after, R = rng.integers(S, size=(S, A)), rng.uniform(size=(S, A))
    after[-1], R[-1] = S - 1, 0.0
    counts = np.array([[1, 2, 3], [4, 1, 1], [2, 2, 2], [0, 5, 1], [0, 0, 6]])
    v = np.zeros(S)
    for _ in range(200):
        q = R + gamma * v[after]
        v = scale * np.log((counts / 6 * np.exp(q / scale)).sum(1))
        v[-1] = 0.0
    state, choice = (torch.from_numpy(np.repeat(x, counts[:-1].ravel())) for x in np.divmod(np.arange((S - 1) * A), A))
    one_hot, successor = torch.eye(S), torch.from_numpy(after)[state, choice]
    reward, discount = torch.from_numpy(R).float()[state, choice], (successor != S - 1).float()
    rows = Transition(one_hot[state], choice, reward, one_hot[successor], discount)
    agent = make(EnvSpec(S, A, CPU, True), gamma, scale=scale, lr=1e-2, tau=0.1, hidden=(32,))
    for _ in range(600):
        agent.update(rows)
    learned = agent.critics(one_hot)[0].detach().numpy()[:-1]
    assert np.abs(agent.value(one_hot).numpy() - v)[:-1].max() < 0.03
    assert np.abs(learned - q[:-1])[counts[:-1] > 0].max() < 0.03


def test_prepare_scales_rewards_to_a_range_of_returns_of_1000():
    obs = torch.randn(6, 3)
    data = recorded(obs, torch.zeros(6, 2), torch.tensor([1.0, 1, 1, 5, 0, -1]), obs, torch.ones(6), [3, 1, 2])  # returns 3, 5, -1
    agent, plain = make(reward_scale="return_range"), make()
    agent.prepare(data)
    plain.prepare(data)
    assert agent.reward_factor.item() == pytest.approx(1000 / 6)
    assert agent.update(data)["critic/loss"] == plain.update(data._replace(reward=data.reward * agent.reward_factor))["critic/loss"]
    torch.testing.assert_close(agent.value(obs) * agent.reward_factor, plain.value(obs))  # values in units of the rewards
    with pytest.raises(UserError, match="expected episodes of different returns, but all have 3"):
        agent.prepare(rows_of(data, torch.arange(3)))


def test_update_on_a_bandit_improves_on_cloning():
    torch.manual_seed(0)
    agent, clone = XQL(SPEC, XQLConfig(hidden=(32,), lr=1e-2, temperature=0.1)), BC(SPEC, BCConfig(hidden=(32,), lr=1e-2))
    assert learn_bandit(agent, 300) < 0.6 * learn_bandit(clone, 300)


@pytest.mark.parametrize("options", [{}, {"reward_scale": "return_range"}, {"critics": 1, "scale": 0.5, "clip": 2.0}])
def test_xql_options_keep_the_contract(options):
    check_agent(lambda spec: XQL(spec, XQLConfig(hidden=(16,), **options)))


def test_anneal_lowers_the_policy_s_learning_rate_alone():
    agent = make(lr=2e-3)
    agent.anneal(0.5)
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in agent.optimizers.items()}
    assert rates == {"policy": pytest.approx(1e-3), "v": 2e-3, "critics": 2e-3}


def test_several_discrete_actions_are_refused():
    with pytest.raises(UserError, match="xql takes one discrete action at a time"):
        XQL(EnvSpec(3, 5, CPU, True, (3, 2)), XQLConfig())


def test_value_slope_is_the_gradient_of_the_value_loss():
    torch.manual_seed(0)
    agent, value, target = XQL(WIDE, XQLConfig(hidden=(16,))), torch.randn(32, requires_grad=True), 20 * torch.randn(32)
    expected = torch.autograd.grad(agent.value_loss(target - value), value)[0]
    torch.testing.assert_close(agent.value_slope(target - value.detach()), expected, rtol=1e-4, atol=1e-6)
