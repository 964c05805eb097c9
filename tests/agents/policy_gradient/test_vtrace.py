"""V-trace on one's own fresh actions is A2C; on somebody else's it still learns one's own value and gradient."""

import pytest
import torch
from bandits import CHOICES, NUMBERS, SPACES, bandit, chance, greedy_pay, pays
from torch import Tensor

from mbkit.agents.policy_gradient.a2c import A2C, A2CConfig, policy_loss
from mbkit.agents.policy_gradient.natural import flattened
from mbkit.agents.policy_gradient.vtrace import VTraceAgent, VTraceConfig
from mbkit.errors import UserError
from mbkit.returns import v_trace
from mbkit.testing import random_trajectory


@SPACES
def test_on_fresh_actions_it_is_a2c(spec):
    """With the whole trace: the corrections are 1."""
    torch.manual_seed(0)
    corrected = VTraceAgent(spec, VTraceConfig(lr=1e-3, entropy=0.02), gamma=0.9)
    torch.manual_seed(0)
    plain = A2C(spec, A2CConfig(lr=1e-3, entropy=0.02, gae_lambda=1.0), gamma=0.9)
    for seed in range(3):
        t = random_trajectory(spec, 8, 4, seed)
        metrics = corrected.update(t._replace(log_prob=corrected.log_prob(t.obs, t.action)))
        assert metrics["actor/rho"].item() == pytest.approx(1, abs=1e-5)
        plain.update(t)
    for a, b in zip(corrected.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_options_reach_the_corrections():
    torch.manual_seed(0)
    agent = VTraceAgent(CHOICES, VTraceConfig(rho_bar=1.5, c_bar=1.2, trace_lambda=0.7), gamma=0.9)
    t = random_trajectory(CHOICES, 8, 4)
    value, log_ratio = torch.randn(2, 8, 4)
    expected = v_trace(t.reward, t.discount, t.ended, value, agent.value(t.next_obs), log_ratio, 0.9, lam=0.7, rho_bar=1.5, c_bar=1.2)
    for a, b in zip(agent.corrected(t, value.flatten(), log_ratio.flatten()), expected, strict=True):
        torch.testing.assert_close(a, b)


def exact_gradient(agent: VTraceAgent, obs: Tensor) -> Tensor:
    """Of E_pi r over all choices at obs [N, O]."""
    log_p = agent.policy(obs).log_probs()
    reward = torch.stack([pays(CHOICES, obs, torch.full(obs.shape[:1], a)) for a in range(3)], -1)
    return flattened(torch.autograd.grad((log_p.exp() * reward).sum(-1).mean(), agent.params))


class Agent(VTraceAgent):
    @property
    def params(self) -> list[Tensor]:
        return list(self.policy.parameters())


@pytest.mark.parametrize(("rho_bar", "same"), [(1e9, True), (1.0, False)])
def test_without_truncation_the_gradient_is_the_own_policys(rho_bar, same):
    """Every choice once per state, as chance would take them on the average: importance weights make it one's own average, exactly."""
    torch.manual_seed(0)
    agent = Agent(CHOICES, VTraceConfig(rho_bar=rho_bar, hidden=(8,)))
    with torch.no_grad():
        agent.policy.net[-1].weight.mul_(300)  # far from uniform
    states = torch.rand(16, 1, 2) * 2 - 1
    t = chance(CHOICES, 16, 3)._replace(obs=(obs := states.expand(16, 3, 2)), next_obs=obs, action=torch.arange(3).expand(16, 3))
    t = t._replace(reward=pays(CHOICES, t.obs, t.action))
    log_prob = agent.policy(t.obs.flatten(0, 1)).log_prob(t.action.flatten())
    seen = agent.corrected(t, torch.zeros(48), log_prob.detach() - t.log_prob.flatten())
    slope = -flattened(torch.autograd.grad(policy_loss(log_prob, seen.advantage.flatten()), agent.params))
    exact = exact_gradient(agent, states[:, 0])
    assert exact.abs().max() > 1e-3
    assert torch.allclose(slope, exact, rtol=1e-4, atol=1e-6) == same


@SPACES
def test_it_learns_its_own_value_from_others_actions(spec):
    """Rewards 1 where the first choice is taken, or the number is positive; chance does so less often than the agent."""
    torch.manual_seed(0)
    agent = VTraceAgent(spec, VTraceConfig(rho_bar=20.0, lr=1e-2, hidden=(8,), entropy=0.0, log_std=-0.5, max_norm=5.0))
    with torch.no_grad():
        agent.policy.net[-1].bias[0] = 1.0 if spec.discrete else 0.3
    held = [p.clone() for p in agent.policy.parameters()]
    for _ in range(200):
        t = chance(spec)
        agent.update(t._replace(reward=(t.action == 0 if spec.discrete else t.action[..., 0] > 0).float()))
        with torch.no_grad():
            for p, kept in zip(agent.policy.parameters(), held, strict=True):
                p.copy_(kept)  # the policy stays: only its value is learned
    actions = agent.act(torch.rand(20_000, 2) * 2 - 1)
    own = float((actions == 0 if spec.discrete else actions[:, 0] > 0).float().mean())
    assert own > 0.55
    assert agent.value(torch.rand(500, 2) * 2 - 1).mean().item() == pytest.approx(own, abs=0.06)


@pytest.mark.parametrize(("spec", "worst"), [(CHOICES, 0.85), (NUMBERS, -0.03)])
def test_it_learns_from_fresh_and_remembered_trajectories(spec, worst):
    torch.manual_seed(0)
    agent = VTraceAgent(spec, VTraceConfig(lr=1e-2, hidden=(16,), log_std=-0.5, entropy=0.0))
    before, past = greedy_pay(agent, spec), []
    for _ in range(80):
        past = [*past, bandit(agent, spec)][-8:]
        agent.update(past[-1])
        agent.update(past[0])
    assert greedy_pay(agent, spec) > worst > before


def test_the_traces_weight_is_at_most_the_steps():
    with pytest.raises(UserError, match=r"agent\.c_bar=2.* at most agent\.rho_bar=1"):
        VTraceAgent(CHOICES, VTraceConfig(c_bar=2.0))


def test_anneal_moves_the_step_size():
    agent = VTraceAgent(CHOICES, VTraceConfig(lr=0.1, anneal_lr=True))
    agent.anneal(0.25)
    assert agent.optimizers["networks"].param_groups[0]["lr"] == pytest.approx(0.025)
