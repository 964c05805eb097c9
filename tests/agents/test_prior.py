"""Priors: densities against torch.distributions, mixtures, policies of trained agents, and wrong ones."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from mbkit.agents.actor_critic.sac import SAC, SACConfig
from mbkit.agents.actor_critic.sac_discrete import SACDiscrete, SACDiscreteConfig
from mbkit.agents.policy_gradient.ppo import PPO, PPOConfig
from mbkit.agents.prior import INSIDE, PriorConfig, Squashed, Uniform, make_prior, policy_of
from mbkit.agents.value_based.dqn import DQN, DQNConfig
from mbkit.agents.value_based.soft_q import SoftQ, SoftQConfig
from mbkit.errors import UserError
from mbkit.networks.policy import TanhGaussian
from mbkit.types import EnvSpec

BOX = EnvSpec(3, 2, torch.device("cpu"))
DISCRETE = EnvSpec(3, 4, torch.device("cpu"), discrete=True)
OWN = """
import torch
def leaning(obs):
    return torch.stack((obs[:, 0], 0 * obs[:, 0], -obs[:, 0], obs[:, 1]), 1).log_softmax(-1)
def bell(obs, action):
    return -(action - 0.1 * obs[:, :2]).square().sum(-1)
def wide(obs):
    return obs.new_zeros(len(obs), 3)
def unnormalised(obs):
    return obs.new_zeros(len(obs), 4)
def forbidding(obs):
    return torch.tensor([0.0, 0, -torch.inf, 0]).log_softmax(-1).expand(len(obs), 4)
def half(obs, action):
    return torch.where(action[:, 0] > 0, 0.0, -torch.inf)
def edgy(obs, action):
    return (1 - action.abs() - 1e-3).log().sum(-1)
def column(obs, action):
    return action[:, :1]
def nothing(obs):
    return None
def array(obs):
    return obs.log_softmax(-1).numpy()
def cut_off(obs, action):
    return -action.detach().square().sum(-1)
def level(obs, action):
    return obs.new_full((len(obs),), -1.0)
limit = 3
def broken(obs, action):
    raise ValueError("no luck")
"""


@pytest.fixture(autouse=True)
def own_module(tmp_path, monkeypatch) -> None:
    (tmp_path / "own_priors.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def test_uniform_density_integrates_to_one():
    obs = torch.randn(5, 3)
    torch.testing.assert_close(Uniform(4).log_probs(obs).exp().sum(-1), torch.ones(5))
    torch.testing.assert_close(Uniform(2).log_prob(obs, torch.zeros(5, 2)).exp() * 2**2, torch.ones(5))


def test_squashed_density_equals_torch_s():
    torch.manual_seed(0)
    policy, obs = TanhGaussian(3, 2, (16,)).double(), torch.randn(200, 3, dtype=torch.float64)
    mean, log_std = policy(obs)
    oracle = TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), [TanhTransform()])
    action, log_prob = policy.rsample(obs)
    prior = Squashed(policy)
    torch.testing.assert_close(prior.log_prob(obs, action), oracle.log_prob(action), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(prior.log_prob(obs, action), log_prob, atol=1e-6, rtol=1e-6)
    corner = torch.full((200, 2), 1.0, dtype=torch.float64).clamp(-INSIDE, INSIDE)
    assert prior.log_prob(obs, corner).isfinite().all()


def test_squashed_is_a_fixed_copy():
    policy = TanhGaussian(3, 2, (16,))
    prior, obs, action = Squashed(policy), torch.randn(8, 3), torch.rand(8, 2)
    before = prior.log_prob(obs, action)
    with torch.no_grad():
        policy.net.weight[0].zero_()
    assert torch.equal(prior.log_prob(obs, action), before)
    assert not any(p.requires_grad for p in prior.parameters())
    assert all(p.requires_grad for p in policy.parameters())


def test_make_prior_of_user_functions_returns_their_values_and_gradients():
    obs = torch.randn(8, 3)
    assert make_prior(PriorConfig("own_priors:leaning"), DISCRETE).log_probs(obs)[:, 2].equal(leaning(obs)[:, 2])
    action = torch.rand(8, 2, requires_grad=True)
    log_pi0 = make_prior(PriorConfig("own_priors:bell"), BOX).log_prob(obs, action)
    (gradient,) = torch.autograd.grad(log_pi0.sum(), action)
    torch.testing.assert_close(gradient, -2 * (action - 0.1 * obs[:, :2]))  # a policy can climb it


def leaning(obs: Tensor) -> Tensor:
    return torch.stack((obs[:, 0], 0 * obs[:, 0], -obs[:, 0], obs[:, 1]), 1).log_softmax(-1)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_prior_uniform_mixes_in_its_share(share):
    obs, action = torch.randn(8, 3), torch.rand(8, 2)
    mixed, pure = (make_prior(PriorConfig("own_priors:leaning", s), DISCRETE).log_probs(obs) for s in (share, 0.0))
    torch.testing.assert_close(mixed.exp(), (1 - share) * pure.exp() + share / 4)
    mixed, pure = (make_prior(PriorConfig("own_priors:bell", s), BOX).log_prob(obs, action) for s in (share, 0.0))
    torch.testing.assert_close(mixed.exp(), (1 - share) * pure.exp() + share / 4)
    assert (mixed >= math.log(share / 4) - 1e-6).all()  # no action is excluded


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("wide", DISCRETE, r"expected log-probabilities of shape \[64, 4\], got torch.float32 \[64, 3\]"),
        ("unnormalised", DISCRETE, r"sum to 1, got a sum of 4"),
        ("forbidding", DISCRETE, r"finite at all actions.* in 64 of 64 rows"),
        ("nothing", DISCRETE, r"AttributeError: 'NoneType'"),
        ("half", BOX, r"finite at all points of the box.* support .* of 64 rows"),
        ("edgy", BOX, r"finite at all points of the box.* in 16 of 64 rows"),
        ("column", BOX, r"obs \[64, 3\], action \[64, 2\]: expected log-densities of shape \[64\], got torch.float32 \[64, 1\]"),
        ("broken", BOX, r"got ValueError: no luck"),
        ("array", DISCRETE, r"as a torch.Tensor, got a numpy.ndarray"),
        ("cut_off", BOX, r"differentiable in the action, got no gradient"),
        ("limit", BOX, r"is a int; expected a function$"),
        ("absent", BOX, r"has no 'absent'"),
    ],
)
def test_check_prior_wrong_functions_are_named(name, spec, message):
    with pytest.raises(UserError, match=rf"own_priors:{name}.*{message}|{message}") as caught:
        make_prior(PriorConfig(f"own_priors:{name}"), spec)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_check_prior_constant_density_needs_no_gradient():
    assert make_prior(PriorConfig("own_priors:level"), BOX).log_prob(torch.zeros(2, 3), torch.zeros(2, 2)).tolist() == [-1.0, -1.0]


def test_make_prior_unknown_name_is_refused():
    with pytest.raises(UserError, match=r"agent.prior=unifrom: expected uniform, module:function, or the directory of a run"):
        make_prior(PriorConfig("unifrom"), BOX)


def test_make_prior_object_without_probabilities_is_refused():
    with pytest.raises(UserError, match=r"expected a policy with log_prob\(obs, action\), came a Linear"):
        make_prior(PriorConfig(), BOX, nn.Linear(3, 2))
    with pytest.raises(UserError, match=r"log_probs\(obs\), came a Squashed"):
        make_prior(PriorConfig(), DISCRETE, TanhGaussian(3, 4, (8,)))


class Plain:
    """Neither a module nor a function."""

    def log_probs(self, obs: Tensor) -> Tensor:
        return obs.new_tensor([0.1, 0.2, 0.3, 0.4]).log().expand(len(obs), 4)


def test_make_prior_accepts_any_object_with_log_probs():
    assert make_prior(PriorConfig(), DISCRETE, Plain()).log_probs(torch.zeros(2, 3)).exp()[1].tolist() == pytest.approx(
        [0.1, 0.2, 0.3, 0.4]
    )


def test_make_prior_spends_no_random_numbers():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    make_prior(PriorConfig("own_priors:bell", 0.1), BOX)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("build", "spec"),
    [
        (lambda spec: SoftQ(spec, SoftQConfig(temperature=0.2)), DISCRETE),
        (lambda spec: SoftQ(spec, SoftQConfig(parameterization="pgq", prior="own_priors:leaning")), DISCRETE),
        (lambda spec: SACDiscrete(spec, SACDiscreteConfig(hidden=(8,))), DISCRETE),
        (lambda spec: PPO(spec, PPOConfig(hidden=(8,), normalize_obs=True)), DISCRETE),
    ],
)
def test_policy_of_discrete_agent_has_the_frequencies_of_its_actions(build, spec):
    """Frequencies of its exploring actions are the probabilities of the prior."""
    torch.manual_seed(0)
    agent = build(spec)
    with torch.no_grad():
        for p in agent.parameters():
            p.mul_(1.5)
    prior, obs = policy_of(agent, discrete=True), torch.randn(1, 3)
    frequencies = torch.bincount(agent.sample(obs.expand(20_000, 3)), minlength=4) / 20_000
    torch.testing.assert_close(frequencies, make_prior(PriorConfig(), spec, prior).log_probs(obs)[0].exp(), atol=0.02, rtol=0)
    assert not any(p.requires_grad for p in prior.parameters())


def test_policy_of_sac_has_its_density():
    agent = SAC(BOX, SACConfig(hidden=(8,)))
    obs, (action, expected) = torch.randn(4, 3), agent.policy.rsample(torch.zeros(4, 3))
    torch.testing.assert_close(policy_of(agent, discrete=False).log_prob(0 * obs, action), expected.detach(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("build", "spec", "message"),
    [
        (lambda spec: DQN(spec, DQNConfig()), DISCRETE, "needs probabilities of discrete actions .* came a run of DQN"),
        (lambda spec: PPO(spec, PPOConfig()), BOX, "needs a squashed Gaussian .* came a run of PPO"),
    ],
)
def test_policy_of_agents_without_probabilities_is_refused(build, spec, message):
    with pytest.raises(UserError, match=message):
        policy_of(build(spec), spec.discrete)


SEVERAL = EnvSpec(3, 5, torch.device("cpu"), discrete=True, parts=(3, 2))


def test_make_prior_of_several_actions_is_normalised_in_each_part():
    uniform = make_prior(PriorConfig(), SEVERAL).log_probs(torch.zeros(2, 3)).exp()
    assert uniform[1].tolist() == pytest.approx([1 / 3] * 3 + [1 / 2] * 2)
    agent = PPO(SEVERAL, PPOConfig(hidden=(8,)))
    obs = torch.randn(4, 3)
    half = make_prior(PriorConfig(prior_uniform=0.5), SEVERAL, agent).log_probs(obs).exp()
    torch.testing.assert_close(half, (agent.log_probs(obs).exp() + uniform[:1]) / 2)


def test_check_prior_of_several_actions_names_a_part_that_is_no_distribution():
    class Joint:
        def log_probs(self, obs: Tensor) -> Tensor:
            return obs.new_full((len(obs), 5), 0.2).log()

    with pytest.raises(UserError, match=r"sum to 1 in each of the parts \(3, 2\), got a sum of 0.6"):
        make_prior(PriorConfig(), SEVERAL, Joint())
