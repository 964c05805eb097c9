"""KL-SAC: with the uniform prior SAC up to a constant; targets and gradients by hand; priors of runs and scripts."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toys import SPEC, WIDE, learn_bandit

from mbkit.agents.actor_critic.kl_sac import KLSAC, KLSACConfig, default_target_kl, log_ratio
from mbkit.agents.actor_critic.sac import SAC, SACConfig
from mbkit.agents.actor_critic.sac_discrete import SACDiscrete, SACDiscreteConfig
from mbkit.agents.prior import PriorConfig, Squashed, make_prior
from mbkit.errors import UserError
from mbkit.networks.policy import TanhGaussian
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.n_step import NStep
from mbkit.targets import one_step
from mbkit.testing import check_agent, random_batch
from mbkit.types import EnvSpec, Transition

DISCRETE = EnvSpec(3, 4, torch.device("cpu"), discrete=True)
SMALL = {"hidden": (16, 16)}


class Bell:
    """A normal density round 0.5 in every dimension, not normalised on the box; of discrete actions, the first is the most likely."""

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        return -8 * (action - 0.5).square().sum(-1)

    def log_probs(self, obs: Tensor) -> Tensor:
        return obs.new_tensor([0.7, 0.1, 0.1, 0.1]).log().expand(len(obs), 4)


def make(spec=WIDE, prior=None, **options) -> KLSAC:
    torch.manual_seed(0)
    return KLSAC(spec, KLSACConfig(**{**SMALL, **options}), 0.9, prior=prior)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(("spec", "volume"), [(WIDE, 2 * math.log(2)), (DISCRETE, math.log(4))])
def test_prior_uniform_is_sac_up_to_a_constant(spec, volume, learned):
    """Where nothing ends, Q is lower by gamma alpha log|actions| / (1 - gamma); actions, gradients and temperature are the same.

    With a learned temperature the constant moves; then one update is compared, whose critics are not.
    """
    temperature = None if learned else 0.3
    torch.manual_seed(0)
    kind, config = (SACDiscrete, SACDiscreteConfig) if spec.discrete else (SAC, SACConfig)
    plain = kind(spec, config(**SMALL, temperature=temperature), 0.9)
    ours = make(spec, temperature=temperature)
    ours.load_state_dict(plain.state_dict(), strict=False)
    if not spec.discrete:
        assert ours.target_kl == pytest.approx(volume - plain.target_entropy)
    alpha = plain.log_alpha.exp().item()
    shift = 0.9 * alpha * volume / (1 - 0.9)
    with torch.no_grad():
        for critics in (ours.critics, ours.target_critics):
            critics.net.bias[-1] -= shift
    for seed in range(1 if learned else 4):
        batch = random_batch(spec, 16, seed)._replace(discount=torch.ones(16))
        targets = []
        for agent in (plain, ours):
            torch.manual_seed(seed)
            targets.append(one_step(agent, batch, 0.9).target)
            torch.manual_seed(seed)
            agent.update(batch)
        torch.testing.assert_close(targets[0], targets[1] + shift, atol=1e-3, rtol=1e-3)
    obs, actions = random_batch(spec, 16).obs, []
    for agent in (plain, ours):
        torch.manual_seed(9)
        actions += [agent.act(obs), agent.act(obs, explore=False)]
    torch.testing.assert_close(actions[:2], actions[2:], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(plain.log_alpha.detach(), ours.log_alpha.detach(), atol=1e-5, rtol=1e-5)


def test_backup_by_hand():
    agent, batch = make(prior=Bell(), temperature=0.3), random_batch(WIDE, 16)
    torch.manual_seed(4)
    y = one_step(agent, batch, 0.9).target
    torch.manual_seed(4)
    action, log_prob = agent.policy.rsample(batch.next_obs)
    q1, q2 = agent.target_critics(batch.next_obs, action)
    ratio = log_prob + 8 * (action - 0.5).square().sum(-1)
    torch.testing.assert_close(y, (batch.reward + 0.9 * batch.discount * (torch.minimum(q1, q2) - 0.3 * ratio)).detach())


def test_backup_of_discrete_actions_is_exact():
    agent, batch = make(DISCRETE, Bell(), temperature=0.3), random_batch(DISCRETE, 16)
    pi, prior = agent.policy(batch.next_obs).exp(), torch.tensor([0.7, 0.1, 0.1, 0.1])
    value = (pi * (agent.target_critics(batch.next_obs).amin(0) - 0.3 * (pi / prior).log())).sum(-1)
    torch.testing.assert_close(one_step(agent, batch, 0.9).target, (batch.reward + 0.9 * batch.discount * value).detach())


def test_log_ratio_gradient_is_that_of_the_divergence():
    """With constant critics the policy's gradient is alpha times that of KL(pi | pi0), by finite differences of a fine integral."""
    torch.manual_seed(0)
    policy, grid = TanhGaussian(1, 1, (4,)).double(), torch.linspace(-1, 1, 20_001, dtype=torch.float64)[1:-1, None]
    prior, obs = Bell(), torch.tensor([[0.3]], dtype=torch.float64)

    def divergence() -> Tensor:
        log_pi = Squashed(policy).log_prob(obs.expand(len(grid), 1), grid)
        return (log_pi.exp() * (log_pi - prior.log_prob(obs, grid))).sum() * 1e-4

    bias = policy.net.bias[-1]
    sampled = log_ratio(policy, prior, obs.expand(400_000, 1))[1].mean()
    (gradient,) = torch.autograd.grad(sampled, bias)
    torch.testing.assert_close(sampled, divergence(), atol=0.02, rtol=0)
    for i in range(2):
        with torch.no_grad():
            bias[0, 0, i] += 1e-4
            up = divergence()
            bias[0, 0, i] -= 2e-4
            down = divergence()
            bias[0, 0, i] += 1e-4
        torch.testing.assert_close(gradient[0, 0, i], (up - down) / 2e-4, atol=0.03, rtol=0)


def test_temperature_large_ends_at_the_prior_and_small_at_the_reward():
    """The bandit's best action is 0.6 s - 0.2, that of the prior 0.5; in between the policy goes from one to the other."""
    means = []
    for alpha in (10.0, 0.3, 0.003):
        torch.manual_seed(0)
        agent = KLSAC(SPEC, KLSACConfig(hidden=(32,), lr=1e-2, temperature=alpha), prior=Bell())
        learn_bandit(agent, 250)
        means.append(float(agent.act(torch.zeros(1, 2), explore=False)))  # at s = 0 the best is -0.2
    assert all(a > b for a, b in pairwise(means))
    assert means[0] == pytest.approx(0.5, abs=0.12)
    assert means[-1] == pytest.approx(-0.2, abs=0.12)


@pytest.mark.parametrize("spec", [WIDE, DISCRETE])
@pytest.mark.parametrize(("target", "rises"), [(0.0, True), (50.0, False)])
def test_temperature_rises_while_the_divergence_is_above_its_target(spec, target, rises):
    agent = make(spec, Bell(), target_kl=target)
    for seed in range(3):
        agent.update(random_batch(spec, 16, seed))
    assert (agent.log_alpha.item() > 0) == rises


def test_default_target_kl_by_hand():
    assert default_target_kl(WIDE) == pytest.approx(2 * math.log(2) + 2)
    assert default_target_kl(DISCRETE) == pytest.approx(0.02 * math.log(4))


def test_path_bonus_is_minus_the_divergence_of_a_fresh_action():
    agent, path = make(prior=Bell(), temperature=0.3), torch.randn(3, 3)
    buffer, no = ReplayBuffer(8, WIDE), torch.zeros(2, dtype=torch.bool)
    buffer.extend(Experience(path[:2], torch.rand(2, 2), torch.tensor([1.0, 2]), path[1:], no, no), column=0)
    source = NStep(buffer, 2, 0.9, agent.path_bonus)
    rewards = source.at(torch.zeros(20_000, dtype=torch.int64)).reward
    expected = 1 + 0.9 * (2 - 0.3 * log_ratio(agent.policy, agent.prior, path[1:2].expand(20_000, 3))[1].mean())
    torch.testing.assert_close(rewards.mean(), expected.detach(), atol=0.1, rtol=0)


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.1}, {"prior": Bell(), "prior_uniform": 0.2}, {"critics": 3, "target_kl": 0.5}, {"prior": TanhGaussian(3, 2, (8,))}],
)
def test_kl_sac_options_keep_the_contract(options):
    prior = options.pop("prior", None)
    spec = WIDE if prior is None else WIDE._replace(action_dim=4) if isinstance(prior, Bell) else WIDE

    def build(space: EnvSpec) -> KLSAC:
        if space.discrete and isinstance(prior, TanhGaussian):
            raise UserError("a squashed Gaussian has no discrete actions")
        return KLSAC(space, KLSACConfig(hidden=(16,), **options), prior=prior)

    check_agent(build, spec)


def test_state_dict_holds_the_prior():
    first = make(prior=TanhGaussian(3, 2, (8,)))
    second = make(prior=TanhGaussian(3, 2, (8,)))
    obs, action = torch.randn(5, 3), torch.rand(5, 2)
    assert not torch.equal(first.prior.log_prob(obs, action), second.prior.log_prob(obs, action))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.prior.log_prob(obs, action), second.prior.log_prob(obs, action))
    before = [p.clone() for p in first.prior.parameters()]
    for seed in range(3):
        first.update(random_batch(WIDE, 16, seed))
    assert all(map(torch.equal, before, first.prior.parameters()))  # held fixed


def test_update_of_discrete_actions_learns_the_soft_policy_of_a_bandit():
    torch.manual_seed(0)
    agent, reward = KLSAC(DISCRETE, KLSACConfig(hidden=(32,), temperature=0.5, lr=1e-2), prior=Bell()), torch.tensor([1.0, 0, 0.5, 0])
    for _ in range(300):
        obs, action = torch.rand(64, 3), torch.randint(4, (64,))
        agent.update(Transition(obs, action, reward[action], obs, torch.zeros(64)))
    expected = (Bell().log_probs(torch.zeros(1, 3)) + reward / 0.5).softmax(-1)
    assert (agent.log_probs(torch.rand(16, 3)).exp() - expected).abs().max() < 0.06


@pytest.mark.parametrize(("name", "obs_dim"), [("swing_up", 3), ("balance", 4)])
def test_make_prior_priors_of_scripts_are_densities(name, obs_dim, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    prior = make_prior(PriorConfig(f"scripts.priors:{name}"), EnvSpec(obs_dim, 1, torch.device("cpu")))
    grid = torch.linspace(-1, 1, 2001)[:, None]
    for obs in torch.randn(5, 1, obs_dim):
        assert torch.trapezoid(prior.log_prob(obs.expand(2001, -1), grid).exp(), dx=1e-3).item() == pytest.approx(1, abs=1e-4)
