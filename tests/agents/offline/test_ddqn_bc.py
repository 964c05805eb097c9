"""Double DQN beside cloning: its rules by hand, Q-learning within the data on a table, and the exported rule."""

import math

import numpy as np
import pytest
import torch
from one_hot import problem
from toys import WIDE

from mbkit.agents.offline.ddqn_bc import DDQNBC, DDQNBCConfig, best_of_likely, best_of_sum, likely
from mbkit.agents.value_based.double_dqn import DoubleDQN
from mbkit.agents.value_based.dqn import DQNConfig
from mbkit.errors import UserError
from mbkit.networks.plain import plain
from mbkit.testing import check_agent, random_batch, random_recorded

DISCRETE = WIDE._replace(discrete=True, action_dim=3)


def make(spec=DISCRETE, gamma: float = 0.9, **options) -> DDQNBC:
    torch.manual_seed(0)
    return DDQNBC(spec, DDQNBCConfig(**{"hidden": (16,), **options}), gamma=gamma)


def copied(network, other):
    """The weights of one in another whose observations are not normalised."""
    other.load_state_dict({k: v for k, v in network.state_dict().items() if "inputs" not in k})


def test_rules_by_hand_on_two_states():
    log_prob = torch.tensor([[0.6, 0.3, 0.1], [0.05, 0.05, 0.9]]).log()
    q = torch.tensor([[0.0, 1.0, 9.0], [5.0, 2.0, -1.0]])
    assert likely(log_prob, 0.3).tolist() == [[True, True, False], [False, False, True]]
    assert best_of_likely(q, log_prob, 0.3).tolist() == [1, 2]
    assert best_of_likely(q, log_prob, 0.0).tolist() == [2, 0]  # Q alone
    assert best_of_likely(q, log_prob, 1.0).tolist() == [0, 2]  # cloning alone
    scale = torch.tensor(3.0)
    sums = [[x / 3 + 0.5 * float(p) for x, p in zip(*rows, strict=True)] for rows in zip(q.tolist(), log_prob, strict=True)]
    assert best_of_sum(q, log_prob, scale, 0.5).tolist() == np.argmax(sums, 1).tolist() == [2, 0]
    assert best_of_sum(q, log_prob, scale, 100.0).tolist() == [0, 2]


def test_threshold_0_is_double_dqn_beside_cloning():
    agent = make(threshold=0.0)
    twin = DoubleDQN(DISCRETE, DQNConfig(hidden=(16,), loss="mse", target_every=0, lr=3e-4, max_grad_norm=1e9), 0.9)
    copied(agent.critics, twin.q)
    copied(agent.target_critics, twin.target_q)
    for seed in range(4):
        batch = random_batch(DISCRETE, 32, seed)
        assert agent.update(batch)["critic/loss"].item() == pytest.approx(twin.update(batch)["critic/loss"].item(), rel=1e-4)
    assert torch.equal(agent.act(batch.obs, explore=False), twin.act(batch.obs, explore=False))


def test_cloning_loss_by_hand():
    agent, batch = make(), random_batch(DISCRETE, 2)
    with torch.no_grad():
        log_prob = agent.behaviour(batch.obs)
    expected = -sum(float(log_prob[i, batch.action[i]]) for i in range(2)) / 2
    assert agent.update(batch)["actor/loss"].item() == pytest.approx(expected)


@pytest.mark.parametrize("options", [{"threshold": 0.4}, {"rule": "sum", "alpha": 0.3}])
def test_targets_by_hand_use_the_rule_of_the_critics_and_the_values_of_the_targets(options):
    agent, batch = make(**options), random_batch(DISCRETE, 8)
    with torch.no_grad():
        for p in agent.target_critics.parameters():
            p.mul_(1.3)
        q, target_q = agent.critics(batch.next_obs)[0], agent.target_critics(batch.next_obs)[0]
        log_p = agent.behaviour(batch.next_obs)
    y = agent.target(agent, batch, 0.9).target
    for i in range(8):
        values = q[i].tolist()
        if agent.cfg.rule == "likely":
            order = [values[a] if math.exp(log_p[i, a] - log_p[i].max()) > 0.4 else -math.inf for a in range(3)]
        else:
            order = [values[a] + 0.3 * float(log_p[i, a]) for a in range(3)]  # the scale begins at 1
        assert y[i].item() == pytest.approx(float(batch.reward[i] + 0.9 * batch.discount[i] * target_q[i, int(np.argmax(order))]), rel=1e-4)


def test_scale_is_an_average_of_mean_absolute_values():
    agent, means = make(tau=0.4), []
    for seed in range(4):
        batch = random_batch(DISCRETE, 16, seed)
        means.append(agent.critics(batch.obs).abs().mean().item())
        agent.update(batch)
    expected = means[0]
    for n, mean in enumerate(means[1:], 2):
        expected += max(0.4, 1 / n) * (mean - expected)
    assert agent.scale.item() == pytest.approx(expected, rel=1e-5)


def test_on_one_hot_states_it_is_q_learning_among_likely_actions():
    """The best action of every state is so rare that its ratio is below the threshold."""
    counts = np.array([[1, 6, 5], [6, 1, 6], [4, 4, 4], [0, 6, 6], [1, 1, 1]])
    toy = problem(counts)
    inside = counts / counts.max(1, keepdims=True) > 0.3
    q = np.zeros(counts.shape)
    for _ in range(200):
        v = np.where(toy.mdp.terminal, 0.0, np.where(inside, q, -np.inf).max(1))
        q = toy.mdp.R + toy.mdp.gamma * toy.mdp.P @ v
    agent = make(toy.spec, toy.mdp.gamma, hidden=(), lr=3e-2, tau=0.1)
    for n in range(700):
        agent.optimizers["critics"].set_lr(3e-2 if n < 550 else 3e-3)
        agent.update(toy.rows)
    learned = agent.critics(toy.states)[0].detach().numpy()
    assert np.abs(learned - q[:-1])[counts[:-1] > 0].max() < 0.01
    best = np.where(inside, q, -np.inf)[:-1].argmax(1)
    assert agent.act(toy.states, explore=False).tolist() == best.tolist()
    probability = agent.behaviour(toy.states).exp().detach().numpy()
    assert np.abs(probability - toy.beta[:-1]).max() < 0.02
    draws = torch.stack([agent.sample(toy.states) for _ in range(300)])
    assert all(inside[s, a] for s in range(4) for a in set(draws[:, s].tolist()))


@pytest.mark.parametrize("options", [{}, {"rule": "sum", "alpha": 0.2}, {"critics": 2}])
def test_greedy_module_acts_as_the_agent(options):
    agent = make(**options)
    data = random_recorded(DISCRETE, 256)._replace(obs=40 * torch.randn(256, 3) + 10)
    agent.prepare(data)
    for _ in range(20):
        agent.update(data)
    obs = 40 * torch.randn(500, 3) + 10
    choice = agent.act(obs, explore=False)
    assert torch.equal(plain(agent.greedy_module())(obs), choice)
    assert not torch.equal(agent.critics(obs).amin(0).argmax(-1), choice)  # the rule is not that of Q alone
    assert not torch.equal(agent.behaviour.mode(obs), choice)


@pytest.mark.parametrize("options", [{}, {"rule": "sum", "critics": 2}])
def test_ddqn_bc_options_keep_the_contract(options):
    check_agent(lambda spec: DDQNBC(spec, DDQNBCConfig(hidden=(16,), **options)))


def test_continuous_actions_are_refused():
    with pytest.raises(UserError, match="ddqn_bc needs discrete actions"):
        DDQNBC(WIDE, DDQNBCConfig())
