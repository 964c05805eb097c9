"""Retrace's targets at its fixed point, the score estimator's bias by enumeration, and the policies it should converge to."""

import pytest
import torch
from bandits import CONTINUOUS, DISCRETE, SEVERAL, SPACES, bandit, bandit_reward, greedy_reward, off_policy_bandit
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mbkit.agents.policy_gradient.retrace import QNetwork, Retrace, RetraceConfig, score_loss
from mbkit.agents.policy_gradient.soft_pg import divergence
from mbkit.networks.distributions import Categorical
from mbkit.returns import retrace
from mbkit.testing import random_trajectory
from mbkit.types import EnvSpec, Trajectory

DOUBLE = torch.float64
GAMMA = 0.9


class Prior:
    """The same log-probabilities [A] everywhere."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def log_probs(self, obs: Tensor) -> Tensor:
        return self.logits.log_softmax(-1).to(obs.dtype).expand(len(obs), -1)


class Table(nn.Module):
    """Logits, or Q of pairs, by a matrix [S, A] of one-hot states."""

    def __init__(self, entries: Tensor, of_pairs: bool) -> None:
        super().__init__()
        self.entries, self.of_pairs = nn.Parameter(entries), of_pairs

    def pairs(self, obs: Tensor, action: Tensor) -> Tensor:
        encoded = torch.eye(self.entries.shape[1], dtype=obs.dtype)[action]
        return torch.cat((obs.expand(*encoded.shape[:-1], obs.shape[-1]), encoded), -1)

    def forward(self, x: Tensor) -> Tensor | Categorical:
        if not self.of_pairs:
            return Categorical(x @ self.entries)
        state, action = x.split(list(self.entries.shape), -1)
        return ((state @ self.entries) * action).sum(-1)


@given(st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 2))
@settings(max_examples=20, deadline=None)
def test_targets_at_the_fixed_point_are_the_values(seed, lam, alpha):
    """A deterministic MDP of four states and three actions: for any behaviour policy and trace, Q is its own target."""
    g = torch.Generator().manual_seed(seed)
    spec = EnvSpec(4, 3, torch.device("cpu"), discrete=True)
    onto, reward = torch.randint(4, (4, 3), generator=g), torch.randn(4, 3, generator=g, dtype=DOUBLE)
    logits, prior = torch.randn(4, 3, generator=g, dtype=DOUBLE), Prior(torch.randn(3, generator=g))
    states, pi = torch.eye(4, dtype=DOUBLE), logits.softmax(-1)
    kl = divergence(Categorical(logits), prior, states)
    onward = (pi[..., None] * states[onto]).sum(1)
    v = torch.linalg.solve(torch.eye(4, dtype=DOUBLE) - GAMMA * onward, (pi * reward).sum(-1) - alpha * kl)
    agent = Retrace(spec, RetraceConfig(trace_lambda=lam, alpha=alpha), gamma=GAMMA, prior=prior).double()
    agent.policy, agent.target_critic = Table(logits, of_pairs=False), Table(reward + GAMMA * v[onto], of_pairs=True)
    torch.testing.assert_close(agent.value(states), v)
    where, action = [torch.randint(4, (5,), generator=g)], torch.randint(3, (7, 5), generator=g)
    for a in action:
        where.append(onto[where[-1], a])
    path = torch.stack(where)
    none, zero = torch.zeros(7, 5, dtype=torch.bool), torch.zeros(7, 5, dtype=DOUBLE)
    t = Trajectory(states[path[:-1]], action, reward[path[:-1], action], states[path[1:]], zero + 1, none, zero - 1.1)
    ratio = (agent.log_prob(t.obs, action) - t.log_prob).flatten()
    targets = agent.targets(t, agent.target_critic.pairs(t.obs.flatten(0, 1), action.flatten()), ratio)
    torch.testing.assert_close(targets.view(7, 5), (reward + GAMMA * v[onto])[path[:-1], action], rtol=1e-9, atol=1e-9)


@SPACES
def test_targets_equal_those_of_retrace(spec):
    torch.manual_seed(0)
    agent = Retrace(spec, RetraceConfig(trace_lambda=0.8, alpha=0.3), gamma=GAMMA)
    t = random_trajectory(spec, 8, 4)
    pairs = agent.critic.pairs(t.obs.flatten(0, 1), t.action.flatten(0, 1))
    log_ratio = torch.randn(32)
    torch.manual_seed(1)
    targets = agent.targets(t, pairs, log_ratio)
    torch.manual_seed(1)
    after = agent.value(t.next_obs.flatten(0, 1)).view(8, 4)
    q = agent.target_critic(pairs).view(8, 4)
    torch.testing.assert_close(targets, retrace(t.reward, t.discount, t.ended, q, after, log_ratio.view(8, 4), GAMMA, 0.8).flatten())


def test_value_of_discrete_actions_is_an_exact_expectation():
    torch.manual_seed(0)
    prior = Prior(torch.tensor([1.0, 0.0, -1.0]))
    agent = Retrace(DISCRETE, RetraceConfig(alpha=0.5), prior=prior)
    obs, critic = torch.randn(6, 2), agent.target_critic
    pi = agent.policy(obs).log_probs().exp()
    q = torch.stack([critic(critic.pairs(obs, torch.full((6,), a))) for a in range(3)], -1)
    torch.testing.assert_close(agent.value(obs), (pi * q).sum(-1) - 0.5 * divergence(agent.policy(obs), prior, obs))


def test_value_of_continuous_actions_is_a_mean_over_samples():
    torch.manual_seed(0)
    agent = Retrace(CONTINUOUS, RetraceConfig(alpha=0.0, samples=4000, log_std=-1.0))
    obs, critic = torch.randn(3, 2), agent.target_critic
    action = agent.policy(obs.expand(4000, 3, 2)).sample()
    mean = torch.stack([critic(critic.pairs(obs, a)) for a in action]).mean(0)
    torch.testing.assert_close(agent.value(obs), mean, rtol=0, atol=0.03)


def test_value_of_several_actions_is_the_expectation_over_all_combinations():
    torch.manual_seed(0)
    agent = Retrace(SEVERAL, RetraceConfig(alpha=0.0, samples=4000))
    with torch.no_grad():
        agent.policy.net[-1].bias.copy_(torch.randn(5))
    obs, critic, policy = torch.randn(3, 2), agent.target_critic, agent.policy
    every = torch.cartesian_prod(torch.arange(3), torch.arange(2))[:, None].expand(6, 3, 2)
    exact = (policy(obs).log_prob(every).exp() * critic(critic.pairs(obs, every))).sum(0)
    torch.testing.assert_close(agent.value(obs), exact, rtol=0, atol=0.03)


def test_pairs_encode_every_action():
    discrete, continuous, several = (QNetwork(spec, RetraceConfig()) for spec in (DISCRETE, CONTINUOUS, SEVERAL))
    obs = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert discrete.pairs(obs, torch.tensor([2, 0])).tolist() == [[1, 2, 0, 0, 1], [3, 4, 1, 0, 0]]
    assert several.pairs(obs, torch.tensor([[2, 0], [0, 1]])).tolist() == [[1, 2, 0, 0, 1, 1, 0], [3, 4, 1, 0, 0, 0, 1]]
    assert continuous.pairs(obs, torch.tensor([[[0.5], [-0.5]]])).tolist() == [[[1, 2, 0.5], [3, 4, -0.5]]]


@pytest.mark.parametrize("k", [2, 3])
def test_score_loss_gradient_has_no_bias(k):
    """Over all K-tuples of three actions, each with its probability."""
    logits = torch.tensor([0.3, -0.5, 1.0], dtype=DOUBLE, requires_grad=True)
    q = torch.tensor([2.0, -1.0, 0.5], dtype=DOUBLE)
    log_p = logits.log_softmax(-1)
    exact = torch.autograd.grad(-(log_p.exp() * q).sum(), logits, retain_graph=True)[0]
    total = torch.zeros(3, dtype=DOUBLE)
    for drawn in torch.cartesian_prod(*[torch.arange(3)] * k):
        loss = score_loss(log_p[drawn][:, None], q[drawn][:, None])
        total += log_p[drawn].sum().exp().detach() * torch.autograd.grad(loss, logits, retain_graph=True)[0]
    torch.testing.assert_close(total, exact)


def test_retrace_off_policy_reaches_the_tilted_prior():
    """pi = pi0 exp(r / alpha), normalised; all actions are uniformly random."""
    torch.manual_seed(0)
    reward, logits = torch.tensor([1.0, 0.5, 0.0]), torch.tensor([0.0, 1.0, 1.5])
    agent = Retrace(DISCRETE, RetraceConfig(alpha=0.7, lr=1e-2, policy_lr=1e-2, tau=0.1, hidden=(16,)), prior=Prior(logits))
    for _ in range(200):
        t = off_policy_bandit(DISCRETE)
        agent.update(t._replace(reward=reward[t.action]))
    expected = (logits.log_softmax(-1) + reward / 0.7).softmax(-1)
    probabilities = agent.policy(torch.rand(50, 2) * 2 - 1).log_probs().exp()
    torch.testing.assert_close(probabilities.mean(0).detach(), expected, rtol=0, atol=0.04)


@pytest.mark.parametrize("data", ["on_policy", "off_policy"])
@pytest.mark.parametrize(("spec", "worst"), [(DISCRETE, 0.85), (CONTINUOUS, -0.03), (SEVERAL, 0.85)])
def test_retrace_learns_the_bandit_on_and_off_policy(spec, worst, data):
    torch.manual_seed(0)
    agent = Retrace(
        spec, RetraceConfig(alpha=0.05 if spec.discrete else 0.01, lr=2e-2, policy_lr=5e-3, tau=0.1, hidden=(16,), log_std=-0.5)
    )
    before = greedy_reward(agent, spec)
    for _ in range(200):
        agent.update(bandit(agent, spec) if data == "on_policy" else off_policy_bandit(spec))
    assert greedy_reward(agent, spec) > worst > before


def test_normalize_value_keeps_the_target_critics_units():
    torch.manual_seed(0)
    agent = Retrace(DISCRETE, RetraceConfig(normalize_value=True, tau=0.5))
    for seed in range(3):
        t = random_trajectory(DISCRETE, 8, 4, seed)
        agent.update(t._replace(reward=100 + 50 * t.reward))
    assert agent.critic.normalizer.std.item() > 5
    torch.testing.assert_close(agent.critic.normalizer.state_dict(), agent.target_critic.normalizer.state_dict())
    x, target = torch.randn(9, 5), 1000 * torch.randn(32)
    before = agent.target_critic(x)
    agent.update_normalizers(t, target)
    torch.testing.assert_close(agent.target_critic(x), before, rtol=1e-3, atol=1e-2)


def test_anneal_changes_both_learning_rates():
    agent = Retrace(DISCRETE, RetraceConfig(lr=0.1, policy_lr=0.01, anneal_lr=True))
    agent.anneal(0.5)
    assert [o.param_groups[0]["lr"] for o in agent.optimizers.values()] == pytest.approx([0.05, 0.005])


def test_bandit_reward_by_hand():
    assert bandit_reward(DISCRETE, torch.tensor([[-0.9, 0.0], [0.9, 0.0]]), torch.tensor([0, 0])).tolist() == [1, 0]
