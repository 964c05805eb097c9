"""KL-constrained improvement: multiplier, soft value and bisection by hand, and exact solutions on bandits, whose divergence is delta."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from recorded_batches import recorded
from toys import SPEC, WIDE, learn_bandit

from mbkit.agents.offline.bc import BC, BCConfig
from mbkit.agents.offline.behaviour import bisected_temperature, soft_value, tilted_kl
from mbkit.agents.offline.kl_constrained import KLConstrained, KLConstrainedConfig, multiplier_loss
from mbkit.errors import UserError
from mbkit.targets import one_step
from mbkit.testing import check_agent, random_recorded
from mbkit.types import EnvSpec, Recorded

CPU = torch.device("cpu")
DISCRETE = WIDE._replace(discrete=True)
REWARDS, SHARES = np.array([0.0, 0.3, 0.6, 1.0]), np.array([0.4, 0.3, 0.2, 0.1])
SOLUTIONS = pytest.mark.parametrize(("direction", "form"), [("reverse", "explicit"), ("reverse", "implicit"), ("forward", "explicit")])


def make(spec=WIDE, gamma: float = 0.9, **options) -> KLConstrained:
    torch.manual_seed(0)
    return KLConstrained(spec, KLConstrainedConfig(**{"hidden": (16, 16), **options}), gamma=gamma)


# --- pieces ------------------------------------------------------------------------------------------------------------------------------


def test_multiplier_loss_raises_the_temperature_while_the_divergence_is_too_large():
    log_temperature, divergence = torch.tensor(math.log(2.0), requires_grad=True), torch.tensor([0.5, 1.5], requires_grad=True)
    loss = multiplier_loss(log_temperature, divergence, 0.25)
    assert loss.item() == pytest.approx(2 * (0.25 - 1))
    assert torch.autograd.grad(loss, log_temperature)[0].item() == pytest.approx(-1.5)  # descent raises it
    assert torch.autograd.gradcheck(
        lambda x: multiplier_loss(x, torch.tensor([0.1]).double(), 0.25), (torch.tensor(0.3).double().requires_grad_(),)
    )


def test_soft_value_and_tilted_divergence_by_hand():
    q, b = torch.tensor([[0.0, 2.0], [-1000.0, -1000.0]]), torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    z = 0.75 + 0.25 * math.exp(2 / 0.5)
    assert soft_value(q, b.log(), 0.5).tolist() == pytest.approx([0.5 * math.log(z), -1000.0])
    p = np.array([0.75, 0.25 * math.exp(4)]) / z
    assert tilted_kl(q, b.log(), 0.5).tolist() == pytest.approx([float((p * np.log(p / [0.75, 0.25])).sum()), 0.0], abs=1e-6)
    value = float((p * [0.0, 2.0]).sum()) - 0.5 * float((p * np.log(p / [0.75, 0.25])).sum())
    assert soft_value(q, b.log(), 0.5)[0].item() == pytest.approx(value, rel=1e-5)  # Donsker and Varadhan


def test_soft_value_gradient_by_finite_differences():
    torch.manual_seed(0)
    q, log_b = torch.randn(3, 4, dtype=torch.float64, requires_grad=True), torch.randn(3, 4).double().log_softmax(-1)
    assert torch.autograd.gradcheck(lambda x: soft_value(x, log_b, 0.7), (q,))
    tilted = (log_b + q / 0.7).softmax(-1)
    torch.testing.assert_close(torch.autograd.grad(soft_value(q, log_b, 0.7).sum(), q)[0], tilted)


@pytest.mark.parametrize("size", [1e-2, 1.0, 1e3])
@pytest.mark.parametrize("delta", [0.01, 0.3, 1.0])
def test_bisected_temperature_gives_the_divergence_whatever_the_units(size, delta):
    torch.manual_seed(0)
    q, log_b = size * torch.randn(8, 10) - 50 * size, torch.full((8, 10), -math.log(10))
    temperature = bisected_temperature(q, log_b, delta)
    assert tilted_kl(q, log_b, temperature).mean().item() == pytest.approx(delta, rel=1e-2)


def test_bisected_temperature_stays_finite_where_no_temperature_gives_the_divergence():
    log_b = torch.full((2, 4), -math.log(4))
    assert bisected_temperature(torch.zeros(2, 4), log_b, 0.1).isfinite()
    assert bisected_temperature(torch.randn(2, 4), log_b, 100.0) > 0


# --- updates -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [WIDE, DISCRETE], ids=["continuous", "discrete"])
def test_implicit_weights_are_normalised_by_samples_of_b(spec):
    agent, data = make(spec, form="implicit", temperature=0.1, weight_clip=1.02, samples=6), random_recorded(spec, 32)
    old = deepcopy(agent)
    torch.manual_seed(1)
    metrics = agent.update(data)
    torch.manual_seed(1)
    with torch.no_grad():
        old.behaviour(data.next_obs).sample()
        b = old.behaviour(data.obs)
        if spec.discrete:
            all_q = old.critics(data.obs).amin(0)
            q, normaliser = all_q[range(32), data.action], (b.log_probs() + all_q / 0.1).logsumexp(1)
        else:
            noise = torch.randn(6 * 32, 2)
            sampled = (b.mean.repeat(6, 1) + b.log_std.exp().repeat(6, 1) * noise).clamp(-1, 1)
            values = old.critics(data.obs.repeat(6, 1), sampled).amin(0).view(6, 32)
            q, normaliser = old.critics(data.obs, data.action).amin(0), (values / 0.1).logsumexp(0) - math.log(6)
        weight = (q / 0.1 - normaliser).exp().clamp(max=1.02)
        loss = -(weight * old.policy(data.obs).log_prob(data.action)).mean()
    assert (weight == 1.02).any()
    torch.testing.assert_close(metrics["actor/weight"], weight.mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(metrics["actor/loss"], loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("direction", ["reverse", "forward"])
def test_explicit_loss_is_the_lagrangian(direction):
    agent, data = make(DISCRETE, direction=direction, temperature=0.3), random_recorded(DISCRETE, 32)
    old = deepcopy(agent)
    metrics = agent.update(data)
    with torch.no_grad():
        pi, b = old.policy(data.obs).log_probs(), old.behaviour(data.obs).log_probs()
        value = (pi.exp() * old.critics(data.obs).amin(0)).sum(1)
        divergence = (pi.exp() * (pi - b)).sum(1) if direction == "reverse" else (b.exp() * (b - pi)).sum(1)
    torch.testing.assert_close(metrics["actor/loss"], (0.3 * divergence - value).mean())
    torch.testing.assert_close(metrics["actor/kl"], divergence.mean())
    assert metrics["actor/temperature"].item() == pytest.approx(0.3)


@pytest.mark.parametrize("critic", ["sarsa", "q_pi"])
def test_critics_are_of_the_behaviour_policy_or_of_the_policy(critic):
    agent, data = make(critic=critic), random_recorded(WIDE, 32)
    data = data._replace(next_known=torch.ones(32))
    old = deepcopy(agent)
    torch.manual_seed(1)
    loss = agent.update(data)["critic/loss"]
    torch.manual_seed(1)
    with torch.no_grad():
        value = old.target_critics(data.next_obs, data.next_action).amin(0)
        y = one_step(old, data, 0.9).target if critic == "q_pi" else data.reward + 0.9 * data.discount * value
        q = old.critics(data.obs, data.action)
    torch.testing.assert_close(loss, 0.5 * (q - y).square().mean(1).sum())


# --- exact answers on a bandit -----------------------------------------------------------------------------------------------------------


def arms() -> Recorded:
    """One state and four actions, each as often as its share says."""
    action = torch.from_numpy(np.repeat(np.arange(4), (100 * SHARES).astype(int)))
    obs = torch.zeros(100, 1)
    return recorded(obs, action, torch.from_numpy(REWARDS).float()[action], obs, torch.zeros(100), [1] * 100)


def solution(direction: str, temperature: float) -> np.ndarray:
    """b exp(A / temperature) / Z, or temperature b / (nu - A) with the nu that makes it sum to 1, by bisection in float64."""
    if direction == "reverse":
        p = SHARES * np.exp(REWARDS / temperature)
        return p / p.sum()
    low, high = REWARDS.max(), REWARDS.max() + temperature
    for _ in range(200):
        nu = (low + high) / 2
        low, high = (nu, high) if (temperature * SHARES / (nu - REWARDS)).sum() > 1 else (low, nu)
    return temperature * SHARES / (nu - REWARDS)


def learned(updates: int = 500, **options) -> tuple[np.ndarray, np.ndarray, float]:
    """The policy, the cloned behaviour policy, and the last temperature."""
    data = arms()
    agent = make(EnvSpec(1, 4, CPU, True), lr=1e-2, tau=0.1, **options)
    agent.prepare(data)
    for _ in range(updates):
        metrics = agent.update(data)
    with torch.no_grad():
        pi, b = (network(data.obs[:1]).log_probs().exp()[0].numpy() for network in (agent.policy, agent.behaviour))
    return pi, b, float(metrics["actor/temperature"])


@SOLUTIONS
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_policy_of_a_bandit_is_the_exact_solution(direction, form, temperature):
    pi, b, _ = learned(direction=direction, form=form, temperature=temperature)
    assert np.abs(b - SHARES).max() < 0.01
    assert np.abs(pi - solution(direction, temperature)).max() < 0.02
    assert np.abs(solution("reverse", temperature) - solution("forward", temperature)).max() > 0.025  # the two can be told apart


@SOLUTIONS
@pytest.mark.parametrize("delta", [0.05, 0.3])
def test_temperature_makes_the_divergence_delta(direction, form, delta):
    pi, _, temperature = learned(direction=direction, form=form, delta=delta)
    p, q = (pi, SHARES) if direction == "reverse" else (SHARES, pi)
    assert float((p * np.log(p / q)).sum()) == pytest.approx(delta, rel=0.05)
    assert np.abs(pi - solution(direction, temperature)).max() < 0.02


@pytest.mark.parametrize("form", ["explicit", "implicit"])
def test_normal_policy_of_a_linear_bandit_is_the_exact_solution(form):
    """b = N(m, s^2) and A = c a give b exp(A / temperature) / Z = N(m + c s^2 / temperature, s^2)."""
    quantile = (torch.arange(1024)[:, None] + 0.5) / 1024
    obs, action = torch.zeros(1024, 1), torch.distributions.Normal(-0.2, 0.2).icdf(quantile)
    data = recorded(obs, action.clamp(-1, 1), 2 * action[:, 0], obs, torch.zeros(1024), [1] * 1024)
    agent = make(EnvSpec(1, 1, CPU), temperature=0.4, form=form, lr=5e-3, tau=0.1, hidden=(32,))
    agent.prepare(data)
    for _ in range(700):
        agent.update(data)
    with torch.no_grad():
        policy, spread = agent.policy(obs[:1]), float(action.std())
    assert float(policy.mean) == pytest.approx(float(action.mean()) + 2 * spread**2 / 0.4, abs=0.04)
    assert float(policy.log_std.exp()) == pytest.approx(spread, abs=0.03)


@pytest.mark.parametrize("options", [{"temperature": 0.1}, {"temperature": 0.1, "form": "implicit"}, {"delta": 1.0, "form": "implicit"}])
def test_update_on_a_bandit_improves_on_cloning(options):
    torch.manual_seed(0)
    agent = KLConstrained(SPEC, KLConstrainedConfig(hidden=(32,), lr=1e-2, **options))
    clone = BC(SPEC, BCConfig(hidden=(32,), lr=1e-2))
    assert learn_bandit(agent, 300) < 0.75 * learn_bandit(clone, 300)


# --- options, contract -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"direction": "forward", "delta": 0.1},
        {"form": "implicit", "critic": "q_pi"},
        {"form": "implicit", "delta": 0.5},
        {"critic": "q_pi", "delta": 0.5},
    ],
)
def test_kl_constrained_options_keep_the_contract(options):
    check_agent(lambda spec: KLConstrained(spec, KLConstrainedConfig(hidden=(16,), **options)))


def test_forward_with_implicit_is_refused():
    with pytest.raises(UserError, match=r"agent.form=implicit has no meaning with agent.direction=forward.*expected agent.form=explicit"):
        make(direction="forward", form="implicit")


def test_delta_beyond_what_samples_can_reach_is_refused():
    with pytest.raises(UserError, match=r"agent.delta=2.5: expected less than log agent.samples = 2.3 nats"):
        make(form="implicit", delta=2.5)
    make(form="implicit", delta=2.5, samples=20)
    make(DISCRETE, form="implicit", delta=2.5)


def test_several_discrete_actions_are_refused():
    with pytest.raises(UserError, match="kl_constrained takes one discrete action at a time"):
        KLConstrained(EnvSpec(3, 5, CPU, True, (3, 2)), KLConstrainedConfig())
