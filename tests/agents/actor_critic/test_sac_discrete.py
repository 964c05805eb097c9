"""Discrete SAC: exact sums against samples and brute force, the optimum of its policy step, the temperature, priors, learning."""

import math

import pytest
import torch

from mbkit.agents.actor_critic.sac_discrete import SACDiscrete, SACDiscreteConfig, expected_value
from mbkit.agents.value_based.soft_q import soft_policy, soft_value
from mbkit.errors import UserError
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.n_step import NStep
from mbkit.targets import one_step
from mbkit.testing import check_agent, random_batch
from mbkit.types import EnvSpec, Transition

SPEC = EnvSpec(3, 4, torch.device("cpu"), discrete=True)


def make(spec=SPEC, **options) -> SACDiscrete:
    torch.manual_seed(0)
    return SACDiscrete(spec, SACDiscreteConfig(hidden=(16, 16), **options), 0.9)


def test_expected_value_is_the_mean_over_sampled_actions():
    torch.manual_seed(0)
    q, log_pi, log_prior = torch.randn(2, 1, 4), torch.randn(1, 4).log_softmax(-1), torch.randn(1, 4).log_softmax(-1)
    value, divergence = expected_value(q, log_pi, log_prior, 0.3)
    a = torch.multinomial(log_pi[0].exp(), 200_000, replacement=True)
    ratio = (log_pi - log_prior)[0, a]
    torch.testing.assert_close(divergence[0], ratio.mean(), atol=0.01, rtol=0)
    torch.testing.assert_close(value[0], (q.amin(0)[0, a] - 0.3 * ratio).mean(), atol=0.02, rtol=0)


def test_expected_value_is_maximised_by_the_soft_policy():
    """Climbing V by gradient ends at pi = pi0 exp(min Q / alpha) / Z, whose V is the soft value."""
    torch.manual_seed(0)
    q, log_prior = torch.randn(2, 5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64).log_softmax(-1)
    logits = torch.zeros(5, 4, dtype=torch.float64, requires_grad=True)
    for _ in range(5000):
        value, _ = expected_value(q, logits.log_softmax(-1), log_prior, 0.5)
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        logits.data += 5 * gradient
    torch.testing.assert_close(logits.log_softmax(-1), soft_policy(q.amin(0), log_prior, 0.5), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(value, soft_value(q.amin(0), log_prior, 0.5), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("prior", ["none", "uniform"])
def test_backup_is_exact_for_any_action(prior):
    agent, batch = make(temperature=0.3, prior=prior), random_batch(SPEC, 32)
    pi, q = agent.policy(batch.next_obs).exp(), agent.target_critics(batch.next_obs)
    measure = 0.25 if prior == "uniform" else 1.0
    value = (pi * (torch.minimum(q[0], q[1]) - 0.3 * (pi / measure).log())).sum(-1)
    expected = batch.reward + 0.9 * batch.discount * value
    for seed in range(3):
        torch.manual_seed(seed)
        torch.testing.assert_close(one_step(agent, batch, 0.9).target, expected.detach())
    torch.testing.assert_close(agent.value(batch.next_obs), value.detach())


def test_path_bonus_n_step_targets_by_brute_force():
    """r_0 + gamma (r_1 + alpha H(s_1)) + gamma^2 V(s_2)."""
    agent, path = make(temperature=0.3), torch.randn(3, 3)
    buffer, no = ReplayBuffer(8, SPEC), torch.zeros(2, dtype=torch.bool)
    buffer.extend(Experience(path[:2], torch.tensor([0, 3]), torch.tensor([1.0, 2]), path[1:], no, no), column=0)
    y = one_step(agent, NStep(buffer, 2, 0.9, agent.path_bonus).at(torch.tensor([0])), 0.9).target
    pi = agent.policy(path).exp()
    entropy = -(pi * pi.log()).sum(-1)
    torch.testing.assert_close(y[0], (1 + 0.9 * (2 + 0.3 * entropy[1]) + 0.81 * agent.value(path[2:])[0]).detach())


@pytest.mark.parametrize(("target", "rises"), [(10.0, True), (0.0, False)])
def test_temperature_rises_while_entropy_is_below_its_target(target, rises):
    agent = make()
    agent.target_entropy = target  # the higher one, which no policy reaches, would be refused
    for seed in range(3):
        agent.update(random_batch(SPEC, 16, seed))
    assert (agent.log_alpha.item() > 0) == rises


def test_target_entropy_defaults():
    assert make().target_entropy == pytest.approx(0.98 * math.log(4))
    assert make(target_entropy=0.3).target_entropy == 0.3
    assert make(prior="uniform").target_entropy == pytest.approx(-0.02 * math.log(4))  # the same, as a divergence: H - log A


def test_prior_uniform_is_none_up_to_a_constant():
    """The same policy and temperature after updates; critics differ by gamma alpha log A / (1 - gamma) where nothing ends."""
    plain, prior = make(temperature=0.3), make(temperature=0.3, prior="uniform")
    prior.load_state_dict(plain.state_dict())
    shift = 0.9 * 0.3 * math.log(4) / (1 - 0.9)
    with torch.no_grad():
        for critics in (prior.critics, prior.target_critics):
            critics.net.bias[-1] -= shift
    for seed in range(3):
        batch = random_batch(SPEC, 16, seed)._replace(discount=torch.ones(16))
        for agent in (plain, prior):
            torch.manual_seed(seed)
            agent.update(batch)
    obs = random_batch(SPEC, 16).obs
    torch.testing.assert_close(plain.policy(obs), prior.policy(obs), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(plain.critics(obs), prior.critics(obs) + shift, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("prior", "target", "message"), [("none", 1.2, "at most 1.1 nats, no policy of 3"), ("uniform", 0.1, "at most 0 nats, minus")]
)
def test_target_entropy_beyond_any_policy_is_refused(prior, target, message):
    with pytest.raises(UserError, match=f"agent.target_entropy={target}: expected {message}"):
        SACDiscrete(EnvSpec(3, 3, torch.device("cpu"), discrete=True), SACDiscreteConfig(prior=prior, target_entropy=target))


@pytest.mark.parametrize("options", [{"temperature": 0.1}, {"prior": "uniform", "critics": 3}])
def test_sac_discrete_options_keep_the_contract(options):
    check_agent(lambda spec: SACDiscrete(spec, SACDiscreteConfig(hidden=(16,), **options)))


def test_update_on_a_bandit_learns_the_soft_policy():
    """Rewards (1, 0, 0.5, 0), then the end: pi = exp(r / alpha) / Z."""
    torch.manual_seed(0)
    agent, reward = SACDiscrete(SPEC, SACDiscreteConfig(hidden=(32,), temperature=0.5, lr=1e-2)), torch.tensor([1.0, 0, 0.5, 0])
    for _ in range(300):
        obs, action = torch.rand(64, 3), torch.randint(4, (64,))
        agent.update(Transition(obs, action, reward[action], obs, torch.zeros(64)))
    obs = torch.rand(16, 3)
    assert (agent.log_probs(obs).exp() - (reward / 0.5).softmax(-1)).abs().max() < 0.06
    assert (agent.act(obs, explore=False) == 0).all()


def test_sac_discrete_continuous_actions_are_refused():
    with pytest.raises(UserError, match="sac_discrete needs discrete actions"):
        make(SPEC._replace(discrete=False))
