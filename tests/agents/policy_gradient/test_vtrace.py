"""V-trace on-policy is A2C; off-policy it learns the value and the gradient of the present policy."""

import pytest
import torch
from bandits import CONTINUOUS, DISCRETE, SEVERAL, SPACES, bandit, bandit_reward, greedy_reward, off_policy_bandit
from torch import Tensor

from mbkit.agents.policy_gradient.a2c import A2C, A2CConfig, policy_loss
from mbkit.agents.policy_gradient.natural import flattened
from mbkit.agents.policy_gradient.vtrace import VTraceAgent, VTraceConfig
from mbkit.errors import UserError
from mbkit.returns import v_trace
from mbkit.testing import random_trajectory


@SPACES
def test_update_on_policy_is_that_of_a2c(spec):
    """With the whole trace: all importance weights are 1."""
    torch.manual_seed(0)
    vtrace = VTraceAgent(spec, VTraceConfig(lr=1e-3, entropy_coef=0.02), gamma=0.9)
    torch.manual_seed(0)
    plain = A2C(spec, A2CConfig(lr=1e-3, entropy_coef=0.02, gae_lambda=1.0), gamma=0.9)
    for seed in range(3):
        t = random_trajectory(spec, 8, 4, seed)
        metrics = vtrace.update(t._replace(log_prob=vtrace.log_prob(t.obs, t.action)))
        assert metrics["actor/rho"].item() == pytest.approx(1, abs=1e-5)
        plain.update(t)
    for a, b in zip(vtrace.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_targets_use_the_options():
    torch.manual_seed(0)
    agent = VTraceAgent(DISCRETE, VTraceConfig(rho_bar=1.5, c_bar=1.2, trace_lambda=0.7), gamma=0.9)
    t = random_trajectory(DISCRETE, 8, 4)
    value, log_ratio = torch.randn(2, 8, 4)
    expected = v_trace(t.reward, t.discount, t.ended, value, agent.value(t.next_obs), log_ratio, 0.9, lam=0.7, rho_bar=1.5, c_bar=1.2)
    for a, b in zip(agent.targets(t, value.flatten(), log_ratio.flatten()), expected, strict=True):
        torch.testing.assert_close(a, b)


def exact_gradient(agent: VTraceAgent, obs: Tensor) -> Tensor:
    """Of E_pi r over all actions at obs [N, O]."""
    log_p = agent.policy(obs).log_probs()
    reward = torch.stack([bandit_reward(DISCRETE, obs, torch.full(obs.shape[:1], a)) for a in range(3)], -1)
    return flattened(torch.autograd.grad((log_p.exp() * reward).sum(-1).mean(), agent.params))


class Agent(VTraceAgent):
    @property
    def params(self) -> list[Tensor]:
        return list(self.policy.parameters())


@pytest.mark.parametrize(("rho_bar", "same"), [(1e9, True), (1.0, False)])
def test_targets_without_truncation_give_the_present_policys_gradient(rho_bar, same):
    """Every action once per state, the average of random actions: importance weights turn it into the policy's average, exactly."""
    torch.manual_seed(0)
    agent = Agent(DISCRETE, VTraceConfig(rho_bar=rho_bar, hidden=(8,)))
    with torch.no_grad():
        agent.policy.net[-1].weight.mul_(300)  # far from uniform
    states = torch.rand(16, 1, 2) * 2 - 1
    t = off_policy_bandit(DISCRETE, 16, 3)._replace(
        obs=(obs := states.expand(16, 3, 2)), next_obs=obs, action=torch.arange(3).expand(16, 3)
    )
    t = t._replace(reward=bandit_reward(DISCRETE, t.obs, t.action))
    log_prob = agent.policy(t.obs.flatten(0, 1)).log_prob(t.action.flatten())
    targets = agent.targets(t, torch.zeros(48), log_prob.detach() - t.log_prob.flatten())
    slope = -flattened(torch.autograd.grad(policy_loss(log_prob, targets.advantage.flatten()), agent.params))
    exact = exact_gradient(agent, states[:, 0])
    assert exact.abs().max() > 1e-3
    assert torch.allclose(slope, exact, rtol=1e-4, atol=1e-6) == same


@SPACES
def test_vtrace_off_policy_learns_the_present_policys_value(spec):
    """Rewards 1 for the first action, or for positive ones, which random actions are less often than the agent's."""

    def wanted(action):
        return (action[..., 0] if spec.action_shape else action) == 0 if spec.discrete else action[..., 0] > 0

    torch.manual_seed(0)
    agent = VTraceAgent(spec, VTraceConfig(rho_bar=20.0, lr=1e-2, hidden=(8,), entropy_coef=0.0, log_std=-0.5, max_grad_norm=5.0))
    with torch.no_grad():
        agent.policy.net[-1].bias[0] = 1.0 if spec.discrete else 0.3
    initial = [p.clone() for p in agent.policy.parameters()]
    for _ in range(200):
        t = off_policy_bandit(spec)
        agent.update(t._replace(reward=wanted(t.action).float()))
        with torch.no_grad():
            for p, old in zip(agent.policy.parameters(), initial, strict=True):
                p.copy_(old)  # the policy stays: only its value is learned
    actions = agent.act(torch.rand(20_000, 2) * 2 - 1)
    expected = float(wanted(actions).float().mean())
    assert expected > 0.55
    assert agent.value(torch.rand(500, 2) * 2 - 1).mean().item() == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(("spec", "worst"), [(DISCRETE, 0.85), (CONTINUOUS, -0.03), (SEVERAL, 0.85)])
def test_vtrace_learns_from_new_and_stored_trajectories(spec, worst):
    torch.manual_seed(0)
    agent = VTraceAgent(spec, VTraceConfig(lr=1e-2, hidden=(16,), log_std=-0.5, entropy_coef=0.0))
    before, past = greedy_reward(agent, spec), []
    for _ in range(80):
        past = [*past, bandit(agent, spec)][-8:]
        agent.update(past[-1])
        agent.update(past[0])
    assert greedy_reward(agent, spec) > worst > before


def test_c_bar_above_rho_bar_is_refused():
    with pytest.raises(UserError, match=r"agent\.c_bar=2.* at most agent\.rho_bar=1"):
        VTraceAgent(DISCRETE, VTraceConfig(c_bar=2.0))


def test_anneal_changes_the_learning_rate():
    agent = VTraceAgent(DISCRETE, VTraceConfig(lr=0.1, anneal_lr=True))
    agent.anneal(0.25)
    assert agent.optimizers["networks"].param_groups[0]["lr"] == pytest.approx(0.025)
