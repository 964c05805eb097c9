"""Q minus return against brute force: exact values have no gap, a biased critic has its bias, soft values pay their bonuses."""

import pytest
import torch
from toys import WIDE

from mbkit.agents.actor_critic.sac import SAC, SACConfig
from mbkit.agents.value_based.munchausen_dqn import MunchausenConfig, MunchausenDQN
from mbkit.diagnostics.summary import headline
from mbkit.diagnostics.values import Critic, compared, q_gap
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.types import EnvSpec

CPU = torch.device("cpu")
LINE = EnvSpec(1, 1, CPU)
GAMMA = 0.9


def episode(steps: int, terminates: bool) -> Experience:
    """obs t, reward t + 1."""
    t, last = torch.arange(steps + 1.0), torch.arange(steps) == steps - 1
    return Experience(t[:-1, None], torch.zeros(steps, 1), t[1:], t[1:, None], last & terminates, last)


class Exact:
    """The true values of an endless line with reward t + 1 from state t: V(t) = (t + 1) / (1 - g) + g / (1 - g)^2; or of T steps."""

    def __init__(self, steps: int | None = None, bias: float = 0.0) -> None:
        self.steps, self.bias = steps, bias

    def value(self, obs):
        t = obs[:, 0]
        if self.steps is None:
            return (t + 1) / (1 - GAMMA) + GAMMA / (1 - GAMMA) ** 2 + self.bias
        return torch.stack([sum((GAMMA**k * (s + k + 1) for k in range(self.steps - int(s))), torch.zeros(())) for s in t]) + self.bias

    def backup_q(self, obs, action):
        return torch.stack([self.value(obs) + 5, self.value(obs)])  # the smallest counts


def held_out(*lengths: int, terminates: bool) -> ReplayBuffer:
    buffer = ReplayBuffer(100, LINE)
    for column, steps in enumerate(lengths):
        buffer.extend(episode(steps, terminates), column=column)
    return buffer


@pytest.mark.parametrize("bias", [0.0, 2.0, -3.0])
def test_q_gap_of_episodes_that_terminate_is_the_bias(bias):
    out = q_gap(Exact(7, bias), held_out(7, 7, terminates=True), GAMMA)
    assert out["mean"] == pytest.approx(bias, abs=1e-4)
    assert out["abs"] == pytest.approx(abs(bias), abs=1e-4)
    assert out["rows"] == 14
    assert out["q"] - out["real"] == pytest.approx(out["mean"], abs=1e-4)


def test_q_gap_of_truncated_episodes_bootstraps_and_counts_the_first_half():
    assert q_gap(Exact(), held_out(9, terminates=False), GAMMA)["mean"] == pytest.approx(0, abs=1e-3)
    out = q_gap(Exact(bias=2.0), held_out(9, terminates=False), GAMMA)
    assert out["rows"] == 5
    assert out["mean"] == pytest.approx(2 * (1 - sum(GAMMA ** (9 - t) for t in range(5)) / 5), abs=1e-3)


def test_q_gap_without_a_whole_episode_is_empty():
    buffer = ReplayBuffer(10, LINE)
    buffer.extend(Experience(*(x[:3] for x in episode(5, True))), column=0)
    assert q_gap(Exact(), buffer, GAMMA) == {}
    assert headline({"q_gap": {}}) == {}


def test_headline_has_the_gap():
    out = q_gap(Exact(7, 2.0), held_out(7, terminates=True), GAMMA)
    assert headline({"q_gap": out}) == {
        "diagnose/q_gap": out["mean"],
        "diagnose/q_gap_abs": out["abs"],
        "diagnose/optimism": out["optimism"],
    }


def test_optimism_is_the_gap_beside_the_mean_absolute_return():
    out = q_gap(Exact(7, 2.0), held_out(7, terminates=True), GAMMA)
    assert out["optimism"] == pytest.approx(2.0 / abs(out["real"]), rel=1e-3)  # these returns all have one sign


def test_compared_soft_return_pays_the_entropy_of_later_states_only():
    torch.manual_seed(0)
    agent, t = SAC(WIDE, SACConfig(hidden=(8,), temperature=0.3), GAMMA), 6
    path, action, reward, last = torch.randn(t + 1, 3), torch.rand(t, 2), torch.randn(t), torch.arange(t) == t - 1
    rows = Experience(path[:-1], action, reward, path[1:], last, last)
    torch.manual_seed(3)
    q, real = compared(agent, rows, GAMMA)
    torch.manual_seed(3)
    paid = agent.path_bonus(path[:-1], action)
    for i in range(t):
        expected = reward[i] + sum(GAMMA ** (j - i) * (reward[j] + paid[j]) for j in range(i + 1, t))
        torch.testing.assert_close(real[i], expected)
    torch.testing.assert_close(q, agent.target_critics(path[:-1], action).amin(0))


def test_compared_munchausen_return_pays_the_bonus_of_its_own_step():
    torch.manual_seed(0)
    agent, t = MunchausenDQN(EnvSpec(3, 4, CPU, discrete=True), MunchausenConfig(hidden=(8,)), GAMMA), 5
    path, action, reward, last = torch.randn(t + 1, 3), torch.randint(4, (t,)), torch.randn(t), torch.arange(t) == t - 1
    _, real = compared(agent, Experience(path[:-1], action, reward, path[1:], last, last), GAMMA)
    own, later = agent.bonus(path[:-1], action), agent.path_bonus(path[:-1], action)
    for i in range(t):
        expected = reward[i] + own[i] + sum(GAMMA ** (j - i) * (reward[j] + later[j]) for j in range(i + 1, t))
        torch.testing.assert_close(real[i], expected)


def test_critic_is_an_agent_with_action_values():
    assert isinstance(Exact(), Critic)
    assert not isinstance(object(), Critic)
