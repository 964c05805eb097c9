"""Munchausen DQN: its target term by term, the limit alpha = 0, the floor of the log-policy, n-step paths, learning."""

import math

import pytest
import torch

from mbkit.agents.value_based.munchausen_dqn import MunchausenConfig, MunchausenDQN, log_policy_bonus
from mbkit.agents.value_based.soft_q import SoftQ, SoftQConfig
from mbkit.errors import UserError
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.n_step import NStep
from mbkit.testing import check_agent, random_batch
from mbkit.types import EnvSpec, Transition

SPEC = EnvSpec(3, 4, torch.device("cpu"), discrete=True)


def make(spec=SPEC, **options) -> MunchausenDQN:
    torch.manual_seed(0)
    return MunchausenDQN(spec, MunchausenConfig(hidden=(16, 16), **options), 0.9)


def test_targets_term_by_term():
    """y = r + alpha [tau log pi(a|s)]_{-1}^0 + gamma d sum_a' pi (Q - tau log pi), everything of the target network."""
    agent, batch = make(temperature=0.3), random_batch(SPEC, 32)
    with torch.no_grad():
        for p in agent.q.parameters():
            p.mul_(3)  # the network itself plays no part
    q, next_q = agent.target_q(batch.obs)[0], agent.target_q(batch.next_obs)[0]
    pi, next_pi = (q / 0.3).softmax(-1), (next_q / 0.3).softmax(-1)
    bonus = 0.9 * (0.3 * pi.log()).clamp(-1, 0).gather(1, batch.action[:, None])[:, 0]
    value = (next_pi * (next_q - 0.3 * next_pi.log())).sum(-1)
    torch.testing.assert_close(agent.targets(batch).target, batch.reward + bonus + 0.9 * batch.discount * value)


@pytest.mark.parametrize("tau", [0.03, 0.5])
def test_targets_alpha_0_are_soft_q_s(tau):
    """With alpha = 0 the targets are soft Q's, which have KL from uniform instead of entropy: gamma d tau log A less."""
    ours, soft, batch = (
        make(alpha=0.0, temperature=tau),
        SoftQ(SPEC, SoftQConfig(hidden=(16, 16), temperature=tau), 0.9),
        random_batch(SPEC, 16),
    )
    soft.load_state_dict(ours.state_dict(), strict=False)
    shift = 0.9 * batch.discount * tau * math.log(4)
    torch.testing.assert_close(ours.targets(batch).target, soft.targets(batch).target + shift)


def test_log_policy_bonus_iteration_is_mirror_descent():
    """M-VI: with Q' = Q + alpha tau log pi, softmax(Q'/tau) is pi^alpha exp(Q/tau): KL weighs alpha tau, entropy (1 - alpha) tau."""
    torch.manual_seed(0)
    q, log_pi, tau, alpha = torch.randn(5, 4).double(), torch.randn(5, 4).double().log_softmax(-1), 0.4, 0.7
    new = ((q + log_policy_bonus(log_pi, alpha, tau, -math.inf)) / tau).log_softmax(-1)

    def objective(log_p: torch.Tensor) -> torch.Tensor:
        p = log_p.exp()
        return (p * (q - alpha * tau * (log_p - log_pi) - (1 - alpha) * tau * log_p)).sum(-1)

    for _ in range(50):
        assert (objective(new) > objective((new + 0.5 * torch.randn_like(q)).log_softmax(-1)) - 1e-9).all()


def test_log_policy_bonus_lies_between_its_floor_and_zero():
    log_pi = torch.tensor([0.0, -1.0, -30.0, -1000.0])
    torch.testing.assert_close(log_policy_bonus(log_pi, 0.9, 0.03, -1.0), torch.tensor([0.0, -0.027, -0.81, -0.9]))


def test_path_bonus_n_step_targets_by_brute_force():
    """Every step adds its log-policy to the reward, and every later state its entropy."""
    agent, path, action = make(temperature=0.3), torch.randn(4, 3), torch.tensor([0, 3, 1])
    buffer, no = ReplayBuffer(8, SPEC), torch.zeros(3, dtype=torch.bool)
    buffer.extend(Experience(path[:3], action, torch.tensor([1.0, 2, 3]), path[1:], no, no), column=0)
    y = agent.targets(NStep(buffer, 3, 0.9, agent.path_bonus).at(torch.tensor([0]))).target
    log_pi = (agent.target_q(path)[0] / 0.3).log_softmax(-1)
    bonus = 0.9 * (0.3 * log_pi[:3].gather(1, action[:, None])[:, 0]).clamp(-1, 0)
    entropy = -0.3 * (log_pi.exp() * log_pi).sum(-1)
    expected = 1 + bonus[0] + 0.9 * (2 + bonus[1] + entropy[1]) + 0.81 * (3 + bonus[2] + entropy[2]) + 0.9**3 * agent.value(path[3:])[0]
    torch.testing.assert_close(y[0], expected)


@pytest.mark.parametrize("options", [{"target_every": 0}, {"loss": "mse", "temperature": 1.0}])
def test_munchausen_dqn_options_keep_the_contract(options):
    check_agent(lambda spec: MunchausenDQN(spec, MunchausenConfig(hidden=(16,), **options)))


def test_update_on_a_bandit_widens_action_gaps():
    """Rewards (1, 0, 0.5, 0), then the end; at the fixed point Q = r + alpha tau log pi, so gaps grow by 1 / (1 - alpha)."""
    torch.manual_seed(0)
    options = {"loss": "mse", "lr": 1e-2, "alpha": 0.5, "temperature": 0.5, "target_every": 10, "log_floor": -10.0}
    agent = MunchausenDQN(SPEC, MunchausenConfig(hidden=(32,), **options))
    reward = torch.tensor([1.0, 0, 0.5, 0])
    for _ in range(400):
        obs, action = torch.rand(64, 3), torch.randint(4, (64,))
        agent.update(Transition(obs, action, reward[action], obs, torch.zeros(64)))
    q = agent.q(torch.rand(16, 3))[0]
    torch.testing.assert_close(q - q[:, :1], ((reward - 1) / 0.5).expand(16, 4), atol=0.15, rtol=0)


def test_munchausen_dqn_continuous_actions_are_refused():
    with pytest.raises(UserError, match="munchausen_dqn needs discrete actions"):
        make(SPEC._replace(discrete=False))
