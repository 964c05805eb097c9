"""Discrete CQL: hand-computed losses, and exact tables as what it must come to: CQL(H), and one-step RL by cross-entropy."""

import math

import numpy as np
import pytest
import torch
from one_hot import problem
from toys import WIDE

from mbkit.agents.offline.conservative import conservative_gap
from mbkit.agents.offline.cql_discrete import CQLDiscrete, CQLDiscreteConfig, cross_entropy_loss, log_q_loss, pushed_down
from mbkit.agents.value_based.double_dqn import DoubleDQN
from mbkit.agents.value_based.dqn import DQNConfig
from mbkit.errors import UserError
from mbkit.tabular.critic_losses import CROSS_ENTROPY
from mbkit.tabular.critic_regularisation import critic as regularised_critic
from mbkit.tabular.one_step import improve
from mbkit.tabular.operators import q_of
from mbkit.testing import check_agent, random_batch, random_recorded
from mbkit.theory.conservative import Tables, conservative

DISCRETE = WIDE._replace(discrete=True, action_dim=3)
COUNTS = np.array([[1, 2, 3], [4, 1, 1], [2, 2, 2], [0, 5, 1], [1, 1, 1]])


def make(spec=DISCRETE, gamma: float = 0.9, **options) -> CQLDiscrete:
    torch.manual_seed(0)
    return CQLDiscrete(spec, CQLDiscreteConfig(**{"hidden": (16,), **options}), gamma=gamma)


# ------------------------------------------------------------------------------------------------------------------------ losses
def test_pushed_down_by_hand():
    q = torch.tensor([[0.0, math.log(3)], [2.0, 2.0]])
    assert pushed_down(q, "logsumexp").tolist() == pytest.approx([math.log(4), 2 + math.log(2)])
    assert pushed_down(q, "policy").tolist() == pytest.approx([math.log(3), 2])
    assert pushed_down(q, "uniform").tolist() == pytest.approx([math.log(3) / 2, 2])


def test_update_is_the_loss_by_hand_on_two_states():
    """Full squares, weight w, targets of the network's best action under the target network."""
    agent, batch = make(conservative_weight=0.5, critics=1), random_recorded(DISCRETE, 2)
    with torch.no_grad():
        for p in agent.target_critics.parameters():
            p.mul_(1.3)
        q, next_q, next_target = agent.critics(batch.obs)[0], agent.critics(batch.next_obs)[0], agent.target_critics(batch.next_obs)[0]
    rows = range(2)
    y = [float(batch.reward[i] + 0.9 * batch.discount[i] * next_target[i, next_q[i].argmax()]) for i in rows]
    gap = sum(math.log(sum(math.exp(x) for x in q[i].tolist())) - float(q[i, batch.action[i]]) for i in rows) / 2
    square = sum((float(q[i, batch.action[i]]) - y[i]) ** 2 for i in rows) / 2
    metrics = agent.update(batch)
    assert metrics["critic/loss"].item() == pytest.approx(square + 0.5 * gap, rel=1e-4)
    assert metrics["critic/gap"].item() == pytest.approx(gap, rel=1e-4)


def test_cross_entropy_loss_by_hand():
    u = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0]]])
    action, y, pi = torch.tensor([1, 0]), torch.tensor([2.0, 1.0]), torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    first = -2 * math.log(3 / 4) + math.log(4) + 0.5 * (0.25 * math.log(2) + 0.75 * math.log(4) - math.log(4))
    second = -math.log(1 / 2) + math.log(2)
    assert cross_entropy_loss(u, action, y, pi, 0.5).item() == pytest.approx((first + second) / 2)
    assert log_q_loss(u[0], pi.log().clamp(min=-50)).item() == pytest.approx(-0.75 * math.log(3) / 2)


@pytest.mark.parametrize("push", ["logsumexp", "policy", "uniform"])
def test_gradient_of_the_gap_by_finite_differences(push):
    torch.manual_seed(0)
    u = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: conservative_gap(pushed_down(x, push), x[..., 0]).sum(), (u,))


def test_gradients_of_cross_entropy_by_finite_differences():
    torch.manual_seed(0)
    u = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    action, y, pi = torch.tensor([0, 2, 1, 1]), torch.rand(4).double(), torch.randn(4, 3).double().softmax(-1)
    assert torch.autograd.gradcheck(lambda x: cross_entropy_loss(x, action, y, pi, 0.7), (u,))
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: log_q_loss(u[0], x.log_softmax(-1)), (logits,))


def test_weight_0_has_the_loss_of_double_dqn_twice():
    agent = make(conservative_weight=0.0, critics=1)
    twin = DoubleDQN(DISCRETE, DQNConfig(hidden=(16,), loss="mse"), 0.9)
    for name, other in (("critics", "q"), ("target_critics", "target_q")):
        weights = {k: v for k, v in getattr(agent, name).state_dict().items() if not k.startswith("inputs")}
        getattr(twin, other).load_state_dict(weights)
    for batch in (random_batch(DISCRETE, 32, 1), random_batch(DISCRETE, 32, 2)):
        assert agent.update(batch)["critic/loss"].item() == pytest.approx(2 * twin.update(batch)["critic/loss"].item(), rel=1e-2)
    assert torch.equal(agent.act(batch.obs, explore=False), agent.critics(batch.obs)[0].argmax(-1))


# -------------------------------------------------------------------------------------------------------------------- exact tables
@pytest.mark.parametrize("weight", [0.2, 2.0])
def test_on_one_hot_states_it_comes_to_exact_cql(weight):
    """lambda of the theory, whose square is halved, is w / 2."""
    toy = problem(COUNTS)
    tables = Tables(toy.mdp.P[None], toy.mdp.R[None], toy.beta[None], toy.mdp.terminal[None], toy.mdp.gamma)
    exact = conservative(tables, np.array([weight / 2])).q[0, 0, :-1]
    agent = make(toy.spec, toy.mdp.gamma, conservative_weight=weight, hidden=(), lr=2e-2, tau=0.1, critics=1)
    for n in range(800):
        agent.optimizers["critics"].set_lr(4e-2 if n < 600 else 4e-3)
        agent.update(toy.rows)
    learned = agent.critics(toy.states)[0].detach().numpy()
    inside = toy.beta[:-1] > 0
    assert np.abs(learned - exact)[inside].max() < 0.01
    assert (learned[~inside] < exact[inside].min() - 1).all()  # where there are no data the limit is minus infinity


def test_cross_entropy_on_one_hot_states_comes_to_one_step_rl():
    """At weight 1: pi = beta Q^beta / V^beta, and on the data Q = V^beta: no action is better than another."""
    toy = problem(COUNTS)
    agent = make(toy.spec, toy.mdp.gamma, loss="cross_entropy", hidden=(), lr=3e-2, policy_lr=1e-2, tau=0.1, critics=1)
    for n in range(1200):
        agent.optimizers["critics"].set_lr(5e-2 if n < 900 else 5e-3)
        agent.optimizers["policy"].set_lr(2e-2 if n < 900 else 2e-3)
        agent.update(toy.rows)
    q_beta = q_of(toy.mdp, toy.beta)[:-1]
    exact = improve(toy.beta[:-1], q_beta)
    pi = agent.log_pi(toy.states).exp().detach().numpy()
    assert np.abs(pi - exact).max() < 0.02
    value = (toy.beta[:-1] * q_beta).sum(1)
    q = agent.critics(toy.states)[0].exp().detach().numpy()
    inside = toy.beta[:-1] > 0
    assert np.abs(q / value[:, None] - 1)[inside].max() < 0.05


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_cross_entropy_of_a_fixed_actor_is_the_closed_form(weight):
    """One state, constant targets: y beta / ((1 - w) beta + w pi)."""
    beta, pi, y = np.array([[0.5, 0.25, 0.25]]), np.array([[0.2, 0.7, 0.1]]), np.array([[1.0, 2.0, 0.5]])
    exact = regularised_critic(y, beta, pi, weight, CROSS_ENTROPY)
    action = torch.tensor([0, 0, 1, 2])
    u = torch.zeros(1, 1, 3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([u], 0.05)
    for _ in range(600):
        loss = cross_entropy_loss(u.expand(1, 4, 3), action, torch.from_numpy(y[0])[action], torch.from_numpy(pi).expand(4, 3), weight)
        adam.zero_grad()
        loss.backward()
        adam.step()
    np.testing.assert_allclose(u.detach().exp().numpy()[0], exact, rtol=1e-3)


# ------------------------------------------------------------------------------------------------------------------------- limits
def test_rewards_that_cross_entropy_does_not_take_are_named():
    data = random_recorded(DISCRETE, 8)._replace(reward=torch.tensor([1.0, -2.5, 0, 1, 1, 1, 1, 1]))
    with pytest.raises(UserError, match=r"needs rewards > 0, but the smallest of the data is -2\.5; agent\.reward_shift=2\.6 makes"):
        make(loss="cross_entropy").prepare(data)
    with pytest.raises(UserError, match=r"the smallest of the data is -0\.5 \(agent\.reward_shift=2 added\); agent\.reward_shift=2\.6"):
        make(loss="cross_entropy", reward_shift=2.0).prepare(data)
    make().prepare(data)
    agent, plain = make(loss="cross_entropy", reward_shift=3.0), make(loss="cross_entropy")
    agent.prepare(data)
    metrics = agent.update(data)
    assert metrics["critic/reward_shift"] == 3
    plain.prepare(data._replace(reward=data.reward + 3))
    assert plain.update(data._replace(reward=data.reward + 3))["critic/loss"] == metrics["critic/loss"]


def test_weights_beyond_1_are_refused_with_cross_entropy():
    with pytest.raises(UserError, match=r"agent\.conservative_weight=1\.5: expected at most 1 with agent\.loss=cross_entropy"):
        make(loss="cross_entropy", conservative_weight=1.5)
    with pytest.raises(UserError, match="cql_discrete needs discrete actions"):
        CQLDiscrete(WIDE, CQLDiscreteConfig())


def test_value_of_the_backup_with_an_actor_is_its_expectation():
    agent, obs = make(loss="cross_entropy"), torch.randn(5, 3)
    action, bonus = agent.backup_action(obs)
    with torch.no_grad():
        expected = (agent.log_pi(obs).exp() * agent.target_critics(obs).exp().amin(0)).sum(-1)
    torch.testing.assert_close(agent.backup_q(obs, action).amin(0) + bonus, expected)


@pytest.mark.parametrize("options", [{}, {"push": "policy"}, {"push": "uniform", "critics": 1}])
def test_cql_discrete_options_keep_the_contract(options):
    check_agent(lambda spec: CQLDiscrete(spec, CQLDiscreteConfig(hidden=(16,), **options)))


def test_cross_entropy_keeps_the_contract():
    check_agent(lambda spec: CQLDiscrete(spec, CQLDiscreteConfig(hidden=(16,), loss="cross_entropy", reward_shift=10.0)))
