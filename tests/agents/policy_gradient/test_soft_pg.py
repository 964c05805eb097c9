"""The soft policy gradient against finite differences of the soft return; its limits; the policies it should converge to."""

import math

import pytest
import torch
from bandits import CONTINUOUS, DISCRETE, SEVERAL, SPACES, bandit, greedy_reward
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mbkit
from mbkit.agents.policy_gradient.a2c import A2C, A2CConfig
from mbkit.agents.policy_gradient.soft_pg import SoftPG, SoftPGConfig, divergence, soft_policy_loss
from mbkit.errors import UserError
from mbkit.networks.distributions import Categorical, ClippedGaussian
from mbkit.returns import kl_gae
from mbkit.testing import random_trajectory
from mbkit.types import Trajectory

DOUBLE = torch.float64
GAMMA = 0.9


class Prior:
    """pi0 by log-probabilities that depend on the state only through a matrix [O, A]."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def log_probs(self, obs: Tensor) -> Tensor:
        return (obs @ self.weights.to(obs.dtype)).log_softmax(-1)


class Normal:
    """pi0 = N(mean, std) for every dimension."""

    def __init__(self, mean: float, std: float) -> None:
        self.normal = torch.distributions.Normal(mean, std)

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.normal.log_prob(action).sum(-1)


class TinyMDP:
    """Three states, two actions, random transitions and rewards; a softmax policy [S, A]; everything in closed form."""

    def __init__(self, seed: int, alpha: float) -> None:
        g = torch.Generator().manual_seed(seed)
        self.alpha, self.states = alpha, torch.eye(3, dtype=DOUBLE)
        self.p = torch.rand(3, 2, 3, generator=g, dtype=DOUBLE).softmax(-1)
        self.r, self.logits, weights = torch.randn(3, 3, 2, generator=g, dtype=DOUBLE)
        self.prior, self.initial = Prior(weights), torch.tensor([0.5, 0.2, 0.3], dtype=DOUBLE)

    def values(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """pi [S, A], D_KL [S], V [S]."""
        pi, kl = logits.softmax(-1), divergence(Categorical(logits), self.prior, self.states)
        onward = torch.einsum("sa,sat->st", pi, self.p)
        return pi, kl, torch.linalg.solve(torch.eye(3, dtype=DOUBLE) - GAMMA * onward, (pi * self.r).sum(-1) - self.alpha * kl)

    def objective(self, logits: Tensor) -> Tensor:
        return self.initial @ self.values(logits)[2]

    def gradient(self) -> Tensor:
        """sum_s d(s) of the loss at every (s, a), with exact Q - V and without sampling anything."""
        logits = self.logits.clone().requires_grad_()
        pi, _, v = (x.detach() for x in self.values(logits))
        q = self.r + GAMMA * self.p @ v
        onward = torch.einsum("sa,sat->st", pi, self.p)
        visits = torch.linalg.solve(torch.eye(3, dtype=DOUBLE) - GAMMA * onward.T, self.initial)  # not normalised: sums to 1 / (1 - gamma)
        distribution = Categorical(logits)
        kl, loss = divergence(distribution, self.prior, self.states), torch.zeros((), dtype=DOUBLE)
        for s in range(3):
            for a in range(2):
                log_prob = distribution.log_probs()[s, a : a + 1]
                loss = loss + visits[s] * pi[s, a] * soft_policy_loss(log_prob, q[s, a] - v[s : s + 1], kl[s : s + 1], self.alpha)
        return -torch.autograd.grad(loss, logits)[0]


@given(st.integers(0, 2**32), st.floats(0, 2))
@settings(max_examples=20, deadline=None)
def test_soft_policy_loss_gradient_equals_finite_differences(seed, alpha):
    mdp, h = TinyMDP(seed, alpha), 1e-5
    slope = torch.zeros(3, 2, dtype=DOUBLE)
    for s in range(3):
        for a in range(2):
            e = torch.zeros(3, 2, dtype=DOUBLE)
            e[s, a] = h
            slope[s, a] = (mdp.objective(mdp.logits + e) - mdp.objective(mdp.logits - e)) / (2 * h)
    assert slope.abs().max() > 1e-4
    torch.testing.assert_close(mdp.gradient(), slope, rtol=1e-6, atol=1e-7)


def twins(spec, alpha: float, entropy: float, gamma: float, **options) -> tuple[SoftPG, A2C]:
    made = []
    for cls, config in ((SoftPG, SoftPGConfig(alpha=alpha, **options)), (A2C, A2CConfig(entropy_coef=entropy, gae_lambda=0.95, **options))):
        torch.manual_seed(0)
        made.append(cls(spec, config, gamma=gamma))
    return made[0], made[1]


@SPACES
def test_update_alpha_0_is_that_of_a2c(spec):
    """alpha 0: the same updates, to the last bit but the sum's order."""
    soft, hard = twins(spec, 0.0, 0.0, GAMMA)
    for seed in range(3):
        for agent in (soft, hard):
            agent.update(random_trajectory(spec, 8, 4, seed))
    for a, b in zip(soft.parameters(), hard.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@SPACES
def test_update_gamma_0_with_a_uniform_prior_is_an_entropy_bonus(spec):
    """Without later steps: D_KL is a constant minus the entropy, and an advantage does not contain the divergence of its own step."""
    soft, hard = twins(spec, 0.3, 0.3, 0.0, max_grad_norm=1e9)
    before = [p.clone() for p in soft.policy.parameters()]
    for agent in (soft, hard):
        agent.update(random_trajectory(spec, 8, 4, 1))
    for old, a, b in zip(before, soft.policy.parameters(), hard.policy.parameters(), strict=True):
        assert not torch.equal(old, a)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_advantage_equals_kl_gae():
    torch.manual_seed(0)
    agent = SoftPG(DISCRETE, SoftPGConfig(alpha=0.2, gae_lambda=0.8), gamma=GAMMA)
    t = random_trajectory(DISCRETE, 8, 4)
    value, kl = torch.randn(2, 8, 4)
    expected = kl_gae(t.reward, kl, t.discount, t.ended, value, agent.value(t.next_obs), GAMMA, 0.8, 0.2)
    torch.testing.assert_close(agent.advantage(t, value.flatten(), kl.flatten()), expected.flatten())


def test_value_contains_the_divergence_of_its_own_step():
    """Episodes of one step and no reward: V = -alpha D_KL."""
    torch.manual_seed(0)
    prior = Prior(torch.tensor([[1.0, 0, 0], [0, 2.0, 0]]))
    agent = SoftPG(DISCRETE, SoftPGConfig(alpha=2.0, lr=3e-3, max_grad_norm=5.0, hidden=(16,)), prior=prior)
    for _ in range(200):
        t = bandit(agent, DISCRETE)
        agent.update(t._replace(reward=torch.zeros_like(t.reward)))
    obs = torch.rand(200, 2) * 2 - 1
    kl = divergence(agent.policy(obs), prior, obs)
    assert (agent.value(obs) + 2.0 * kl).square().mean().sqrt().item() < 0.1


@pytest.mark.parametrize("size", [1, 3])
def test_divergence_of_continuous_actions_from_the_uniform_prior_is_exact(size):
    """-H + A log 2 exactly: nothing is sampled."""
    agent = SoftPG(CONTINUOUS._replace(action_dim=size), SoftPGConfig(log_std=-0.7))
    obs = torch.randn(5, 2)
    kl = divergence(agent.policy(obs), agent.prior, obs)
    torch.testing.assert_close(kl, size * (math.log(2) + 0.7 - 0.5 * math.log(2 * math.pi * math.e)) * torch.ones(5))


def test_divergence_of_continuous_actions_from_another_normal_has_the_exact_mean():
    """The mean over samples, and so has its gradient."""
    torch.manual_seed(0)
    n = 200_000
    mean, log_std = torch.tensor([0.1], requires_grad=True), torch.tensor([-2.0], requires_grad=True)
    distribution = ClippedGaussian(mean.expand(n, 1), log_std.expand(n, 1))
    estimate = divergence(distribution, Normal(-0.1, 0.2), torch.zeros(n, 2)).mean()
    exact = torch.distributions.kl_divergence(torch.distributions.Normal(mean, log_std.exp()), torch.distributions.Normal(-0.1, 0.2)).sum()
    assert estimate.item() == pytest.approx(exact.item(), abs=0.01)
    for a, b in zip(torch.autograd.grad(estimate, (mean, log_std)), torch.autograd.grad(exact, (mean, log_std)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0.02)


def one_state(agent: SoftPG, reward_of) -> Trajectory:
    """Episodes of one step, always from the same state."""
    t = bandit(agent, agent.spec_of_test, steps=32, num_envs=8)
    obs = torch.ones_like(t.obs)
    action = agent.act(obs)
    return t._replace(obs=obs, next_obs=obs, action=action, reward=reward_of(action), log_prob=agent.log_prob(obs, action))


def test_soft_pg_discrete_reaches_the_tilted_prior():
    """pi = pi0 exp(r / alpha), normalised."""
    torch.manual_seed(0)
    reward, weights = torch.tensor([1.0, 0.5, 0.0]), torch.tensor([[0.0, 1.0, 1.5], [0.0, 0.0, 0.0]])
    agent = SoftPG(DISCRETE, SoftPGConfig(alpha=0.7, lr=1e-2, hidden=(8,)), prior=Prior(weights))
    agent.spec_of_test = DISCRETE
    for _ in range(250):
        agent.update(one_state(agent, lambda a: reward[a]))
    expected = (weights[0].log_softmax(-1) + reward / 0.7).softmax(-1)
    torch.testing.assert_close(agent.policy(torch.ones(2)).log_probs().exp().detach(), expected, rtol=0, atol=0.04)


def test_soft_pg_continuous_reaches_the_variance_of_the_temperature():
    """r = -(a - 0.2)^2 with the uniform prior: a normal distribution of variance alpha / 2."""
    torch.manual_seed(0)
    agent = SoftPG(CONTINUOUS, SoftPGConfig(alpha=0.05, lr=1e-2, hidden=(8,), log_std=-0.5))
    agent.spec_of_test = CONTINUOUS
    for _ in range(250):
        agent.update(one_state(agent, lambda a: -(a[..., 0] - 0.2).square()))
    distribution = agent.policy(torch.ones(1, 2))
    assert distribution.mean.item() == pytest.approx(0.2, abs=0.05)
    assert distribution.log_std.exp().item() == pytest.approx(math.sqrt(0.05 / 2), rel=0.15)


@pytest.mark.parametrize(("spec", "worst"), [(DISCRETE, 0.9), (CONTINUOUS, -0.02), (SEVERAL, 0.9)])
def test_soft_pg_learns_the_bandit(spec, worst):
    torch.manual_seed(0)
    agent = SoftPG(spec, SoftPGConfig(alpha=0.01, lr=1e-2, hidden=(16,), log_std=-0.5))
    before = greedy_reward(agent, spec)
    for _ in range(160):
        agent.update(bandit(agent, spec))
    assert greedy_reward(agent, spec) > worst > before


def test_anneal_changes_the_learning_rate():
    agent = SoftPG(DISCRETE, SoftPGConfig(lr=0.1, anneal_lr=True))
    agent.anneal(0.25)
    assert agent.optimizers["networks"].param_groups[0]["lr"] == pytest.approx(0.025)


def test_prior_unknown_is_refused():
    with pytest.raises(UserError, match=r"agent\.prior=nowhere"):
        SoftPG(DISCRETE, SoftPGConfig(prior="nowhere"))


@pytest.mark.parametrize("name", ["soft_pg", "retrace"])
def test_prior_of_a_run_is_its_policy_held_fixed(name, tmp_path):
    """Its parameters are frozen, and saved with the agent."""
    options = (
        "env=CartPole-v1",
        "threads=1",
        "eval.episodes=1",
        "eval.video=false",
        "agent.hidden=[8]",
        "loop.rollout_steps=8",
        "loop.num_envs=2",
    )
    first = mbkit.train("a2c", *options, "steps=32", f"run_dir={tmp_path / 'first'}")
    second = mbkit.train(name, *options, "steps=48", f"run_dir={tmp_path / 'second'}", f"agent.prior={tmp_path / 'first'}")
    obs = torch.randn(5, 4)
    torch.testing.assert_close(second.agent.prior.log_probs(obs), first.agent.policy(obs).log_probs())
    assert not any(p.requires_grad for p in second.agent.prior.parameters())


def test_divergence_of_several_actions_is_that_of_all_combinations():
    torch.manual_seed(0)
    weights, obs = torch.randn(2, 5), torch.randn(6, 2)

    class Product:
        def log_probs(self, obs: Tensor) -> Tensor:
            return torch.cat([part.log_softmax(-1) for part in (obs @ weights).split((3, 2), -1)], -1)

    agent = SoftPG(SEVERAL, SoftPGConfig(prior_uniform=0.0), prior=Product())
    policy, log_pi0 = agent.distribution(obs), Product().log_probs(obs)
    every = torch.cartesian_prod(torch.arange(3), torch.arange(2))
    log_pi = policy.log_prob(every[:, None].expand(6, 6, 2))
    log_prior = log_pi0[:, every[:, 0]] + log_pi0[:, 3 + every[:, 1]]  # [N, 6]
    torch.testing.assert_close(divergence(policy, agent.prior, obs), (log_pi.exp() * (log_pi - log_prior.T)).sum(0))


def test_divergence_of_several_actions_from_the_uniform_prior_is_the_missing_entropy():
    agent, obs = SoftPG(SEVERAL, SoftPGConfig()), torch.randn(6, 2)
    policy = agent.distribution(obs)
    torch.testing.assert_close(divergence(policy, agent.prior, obs), math.log(6) - policy.entropy())
