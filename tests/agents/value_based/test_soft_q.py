"""Soft Q-learning: values against brute force, three parameterizations, policy gradients, exact backups, learning."""

import math

import pytest
import torch
from torch import Tensor

from mbkit import envs
from mbkit.agents.prior import Uniform, policy_of
from mbkit.agents.value_based.soft_q import SoftQ, SoftQConfig, dueling, gradient_scaled, kl, pgq, soft_policy, soft_value
from mbkit.config import compose
from mbkit.errors import UserError
from mbkit.recipes.assembly import Assembly
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.n_step import NStep
from mbkit.targets import one_step
from mbkit.testing import check_agent, random_batch
from mbkit.types import EnvSpec, Transition

SPEC = EnvSpec(3, 4, torch.device("cpu"), discrete=True)
PARAMETERIZATIONS = ["naive", "dueling", "pgq"]


class Leaning(Uniform):
    """A prior that depends on the state."""

    def log_probs(self, obs: Tensor) -> Tensor:
        return torch.cat((obs, obs[:, :1]), 1).log_softmax(-1)


def make(spec=SPEC, prior=None, **options) -> SoftQ:
    torch.manual_seed(0)
    return SoftQ(spec, SoftQConfig(hidden=(16, 16), **options), 0.9, prior=prior)


def rows(n: int = 6, actions: int = 4) -> tuple[Tensor, Tensor]:
    """Q and log pi0, float64."""
    torch.manual_seed(1)
    return torch.randn(n, actions, dtype=torch.float64), torch.randn(n, actions, dtype=torch.float64).log_softmax(-1)


def test_soft_value_is_the_largest_return_minus_divergence():
    """V = <pi, Q> - alpha KL(pi | pi0) at its own policy, and no other policy has more."""
    q, log_prior = rows()
    for alpha in (0.05, 0.7, 3.0):
        value, log_pi = soft_value(q, log_prior, alpha), soft_policy(q, log_prior, alpha)
        torch.testing.assert_close(log_pi.exp().sum(-1), torch.ones(6, dtype=torch.float64))
        torch.testing.assert_close(value, (log_pi.exp() * q).sum(-1) - alpha * kl(log_pi, log_prior))
        for _ in range(20):
            other = (log_pi + torch.randn_like(q)).log_softmax(-1)
            assert (value > (other.exp() * q).sum(-1) - alpha * kl(other, log_prior) - 1e-9).all()


def test_soft_value_limits_of_the_temperature():
    q, log_prior = rows()
    torch.testing.assert_close(soft_value(q, log_prior, 1e-4), q.amax(-1), atol=1e-2, rtol=0)
    torch.testing.assert_close(soft_value(q, log_prior, 1e5), (log_prior.exp() * q).sum(-1), atol=1e-3, rtol=0)
    uniform = torch.full_like(q, -math.log(4))
    gap = soft_value(q, torch.zeros_like(q), 0.5) - soft_value(q, uniform, 0.5)
    torch.testing.assert_close(gap, torch.full_like(gap, 0.5 * math.log(4)))  # entropy and KL differ by alpha log A


def test_dueling_v_is_the_soft_value_and_pgq_v_the_mean():
    logits, log_prior = rows()
    value, log_pi, alpha = torch.randn(6, dtype=torch.float64), logits.log_softmax(-1), 0.3
    q = dueling(value, log_pi, log_prior, alpha)
    torch.testing.assert_close(soft_value(q, log_prior, alpha), value)
    torch.testing.assert_close(soft_policy(q, log_prior, alpha), log_pi)
    q = pgq(value, log_pi, log_prior, alpha)
    torch.testing.assert_close((log_pi.exp() * q).sum(-1), value)
    torch.testing.assert_close(soft_policy(q, log_prior, alpha), log_pi)
    uniform, entropy = torch.full_like(q, -math.log(4)), -(log_pi.exp() * log_pi).sum(-1)
    torch.testing.assert_close(pgq(value, log_pi, uniform, alpha), alpha * (log_pi + entropy[:, None]) + value[:, None])  # as published


@pytest.mark.parametrize("alpha", [0.2, 1.5])
def test_dueling_regression_is_a_policy_gradient(alpha):
    """grad 1/2 |Q - y|^2 = -alpha E[Delta grad log pi] + alpha^2 grad KL - E[Delta] grad V, Delta = y - alpha KL - V, for any prior."""
    logits, log_prior = rows(1)
    y, value, log_prior = torch.randn(4, dtype=torch.float64), torch.randn(1, dtype=torch.float64), log_prior[0]
    logits, value = logits[0].clone().requires_grad_(), value[0].clone().requires_grad_()
    log_pi = logits.log_softmax(-1)
    pi = log_pi.detach().exp()
    loss = 0.5 * (pi * (dueling(value, log_pi, log_prior, alpha) - y).square()).sum()
    to_logits, to_value = torch.autograd.grad(loss, (logits, value), retain_graph=True)
    delta = (y - alpha * kl(log_pi, log_prior) - value).detach()
    (score,) = torch.autograd.grad((pi * delta * log_pi).sum(), logits, retain_graph=True)
    (divergence,) = torch.autograd.grad(kl(log_pi, log_prior), logits)
    torch.testing.assert_close(to_logits, -alpha * score + alpha**2 * divergence, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(to_value, -(pi * delta).sum(), atol=1e-12, rtol=1e-12)


def test_values_dueling_scales_gradients_only():
    """Through one head the gradient is 1/alpha, through the other c times that of the unscaled one; the forward pass is the same."""
    batch = random_batch(SPEC, 16)
    scaled, plain = (
        make(parameterization="dueling", temperature=0.25),
        make(parameterization="dueling", temperature=0.25, advantage_scale=1, value_scale=1),
    )
    gradients = []
    for agent in (scaled, plain):
        q, _ = agent.values(agent.q, batch.obs)
        gradients.append(torch.autograd.grad(q.square().sum(), agent.q.net.bias[-1])[0][0, 0])
    assert torch.equal(scaled.values(scaled.q, batch.obs)[0], plain.values(plain.q, batch.obs)[0])
    torch.testing.assert_close(gradients[0][:4], 4 * gradients[1][:4])
    torch.testing.assert_close(gradients[0][4], 0.5 * gradients[1][4])
    x = torch.ones(2, requires_grad=True)
    assert torch.autograd.grad(gradient_scaled(x, 3.0).sum(), x)[0].tolist() == [3, 3]


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_backup_is_the_soft_value_for_any_action(parameterization):
    agent, batch = make(parameterization=parameterization, prior=Leaning(4), temperature=0.3), random_batch(SPEC, 32)
    q, log_prior = agent.values(agent.target_q, batch.next_obs)
    value = 0.3 * (log_prior.exp() * (q[0] / 0.3).exp()).sum(-1).log()
    expected = batch.reward + 0.9 * batch.discount * value
    for seed in range(3):
        torch.manual_seed(seed)
        torch.testing.assert_close(one_step(agent, batch, 0.9).target, expected.detach())
    torch.testing.assert_close(agent.value(batch.next_obs), value.detach())


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_backup_action_bonus_is_the_log_ratio(parameterization):
    """V - Q(a) = -alpha log(pi/pi0)(a): a rollout through sampled actions contains the divergence."""
    agent, obs = make(parameterization=parameterization, prior=Leaning(4), temperature=0.3), random_batch(SPEC, 32).obs
    action, bonus = agent.backup_action(obs)
    ratio = (agent.log_probs(obs) - Leaning(4).log_probs(obs)).gather(1, action[:, None])[:, 0]  # the two networks are equal at first
    torch.testing.assert_close(bonus, -0.3 * ratio, atol=1e-5, rtol=1e-4)


def test_path_bonus_n_step_targets_by_brute_force():
    """r_0 + gamma (r_1 - alpha KL(s_1)) + gamma^2 (r_2 - alpha KL(s_2)) + gamma^3 V(s_3), and V = 0 where the task ended."""
    agent, path = make(prior=Leaning(4), temperature=0.3), torch.randn(4, 3)
    for terminated in (False, True):
        buffer, no = ReplayBuffer(8, SPEC), torch.zeros(3, dtype=torch.bool)
        end = torch.tensor([False, False, terminated])
        buffer.extend(Experience(path[:3], torch.tensor([0, 3, 1]), torch.tensor([1.0, 2, 3]), path[1:], end, no), column=0)
        y = agent.targets(NStep(buffer, 3, 0.9, agent.path_bonus).at(torch.tensor([0]))).target
        log_pi, log_prior = agent.log_probs(path), Leaning(4).log_probs(path)
        penalty = 0.3 * (log_pi.exp() * (log_pi - log_prior)).sum(-1)
        expected = 1 + 0.9 * (2 - penalty[1]) + 0.81 * (3 - penalty[2]) + 0.9**3 * agent.value(path[3:])[0] * (not terminated)
        torch.testing.assert_close(y[0], expected)


@pytest.mark.parametrize("options", [[], ["loop.n_step=3"]])
def test_path_bonus_is_used_by_n_step_data(options):
    agent, x = make(), Assembly(compose("soft_q", options), envs.make("CartPole-v1"))
    source = x.real_data(agent)
    assert source is x.replay if not options else source.bonus == agent.path_bonus


def test_sample_follows_the_policy_and_epsilon():
    obs = torch.randn(1, 3).expand(20_000, 3)
    for epsilon in (0.0, 0.5):
        agent = make(prior=Leaning(4), epsilon=epsilon, final_epsilon=epsilon)
        frequencies = torch.bincount(agent.sample(obs), minlength=4) / len(obs)
        expected = (1 - epsilon) * agent.log_probs(obs[:1])[0].exp() + epsilon / 4
        torch.testing.assert_close(frequencies, expected, atol=0.02, rtol=0)
    assert (agent.act(obs[:5], explore=False) == agent.log_probs(obs[:1]).argmax()).all()


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_soft_q_parameterizations_keep_the_contract(parameterization):
    config = SoftQConfig(hidden=(16,), parameterization=parameterization, target_every=0)
    check_agent(lambda spec: SoftQ(spec, config, prior=Leaning(2)), SPEC._replace(action_dim=2, obs_dim=1))


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_update_on_a_bandit_learns_the_soft_values(parameterization):
    """Rewards (1, 0, 0.5, 0) in any state and then the end: pi = pi0 exp(r / alpha) / Z, by regression on sampled actions."""
    torch.manual_seed(0)
    agent = SoftQ(
        SPEC, SoftQConfig(hidden=(32,), parameterization=parameterization, temperature=0.5, loss="mse", lr=1e-2), prior=Leaning(4)
    )
    reward = torch.tensor([1.0, 0, 0.5, 0])
    for _ in range(400):
        obs, action = torch.rand(64, 3), torch.randint(4, (64,))
        agent.update(Transition(obs, action, reward[action], obs, torch.zeros(64)))
    obs = torch.rand(16, 3)
    expected = (Leaning(4).log_probs(obs) + reward / 0.5).softmax(-1)
    assert (agent.log_probs(obs).exp() - expected).abs().max() < 0.06


def test_state_dict_holds_the_prior():
    """A restored agent acts by the prior of the checkpoint."""
    first, second, other = (SoftQ(SPEC, SoftQConfig(), prior=policy_of(make(temperature=t), True)) for t in (0.05, 0.05, 0.05))
    with torch.no_grad():
        for p in first.prior.parameters():
            p.mul_(2)
    second.load_state_dict(first.state_dict())
    obs = torch.randn(5, 3)
    assert torch.equal(first.log_probs(obs), second.log_probs(obs))
    assert not torch.equal(first.log_probs(obs), other.log_probs(obs))


def test_soft_q_continuous_actions_are_refused():
    with pytest.raises(UserError, match="soft_q needs discrete actions"):
        make(SPEC._replace(discrete=False))
