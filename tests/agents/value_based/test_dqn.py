"""DQN and double DQN: targets by hand, what n-step rows make of them, the bias of the maximum, and Q* of a chain."""

import pytest
import torch
from torch import nn
from toys import WIDE

from mbkit.agents.value_based.double_dqn import DoubleDQN
from mbkit.agents.value_based.dqn import DQN, DQNConfig, greedy_target
from mbkit.imagination.mve import ValueExpansion
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.n_step import NStep
from mbkit.targets import one_step
from mbkit.testing import random_batch
from mbkit.types import EnvSpec, Rollout, Step, Targets, Transition

DISCRETE = WIDE._replace(discrete=True, action_dim=4)
BOTH = pytest.mark.parametrize("cls", [DQN, DoubleDQN])


def make(cls=DQN, spec=DISCRETE, gamma=0.9, target=one_step, **options):
    """An agent whose target network differs from its network."""
    torch.manual_seed(0)
    agent = cls(spec, DQNConfig(**{"hidden": (16, 16), **options}), gamma, target)
    for p in agent.target_q.parameters():
        p.add_(0.1 * torch.randn_like(p))
    return agent


class Table(nn.Module):
    """Values [1, B, A] from a table; the observation is the row."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values = values

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.values[obs[:, 0].long()][None]


# ------------------------------------------------------------------------------------------------------------------------- targets
@BOTH
def test_targets_by_hand(cls):
    agent, batch = make(cls), random_batch(DISCRETE, 32)
    y = agent.targets(batch)
    assert 0 < (batch.discount == 0).sum() < 32
    for i in range(32):
        s = batch.next_obs[i : i + 1]
        online, target = agent.q(s)[0, 0].tolist(), agent.target_q(s)[0, 0].tolist()
        best = max(target) if cls is DQN else target[online.index(max(online))]
        expected = float(batch.reward[i]) + (0.9 * best if batch.discount[i] else 0.0)
        assert y.target[i].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert y.weight is None
    assert not y.target.requires_grad


@BOTH
def test_targets_equal_one_step(cls):
    agent, batch = make(cls), random_batch(DISCRETE, 64)
    for ours, general in zip(agent.targets(batch), one_step(agent, batch, 0.9), strict=True):
        torch.testing.assert_close(ours, general)


def test_greedy_target_multiplies_the_discount():
    batch = random_batch(DISCRETE, 3)._replace(reward=torch.tensor([1.0, 2.0, 3.0]), discount=torch.tensor([1.0, 0.0, 0.5]))
    y = greedy_target(batch, torch.tensor([10.0, 1e9, -4.0]), 0.9)
    assert y.target.tolist() == pytest.approx([10.0, 2.0, 1.2])


@BOTH
def test_target_function_is_called_with_gamma(cls):
    calls = []

    def strange(agent, batch, gamma):
        calls.append(gamma)
        return Targets(batch.obs, batch.action, torch.zeros(len(batch.reward)), torch.ones(len(batch.reward)))

    agent, batch = make(cls, target=strange), random_batch(DISCRETE, 8)
    agent.update(batch)
    assert calls == [0.9]


def test_double_dqn_with_equal_networks_is_dqn():
    single, double, batch = make(), make(DoubleDQN), random_batch(DISCRETE, 64)
    assert not torch.allclose(single.targets(batch).target, double.targets(batch).target)
    for agent in (single, double):
        agent.target_q.load_state_dict(agent.q.state_dict())
    torch.testing.assert_close(single.targets(batch).target, double.targets(batch).target)


def test_double_dqn_targets_never_exceed_dqn_s():
    """max_a Q_target(s', a) >= Q_target(s', any a)."""
    single, double, batch = make(), make(DoubleDQN), random_batch(DISCRETE, 256)
    assert (double.targets(batch).target <= single.targets(batch).target + 1e-6).all()


def test_targets_of_noisy_values_have_the_maximum_s_bias_only_in_dqn():
    """Ten actions worth 0, with standard normal errors: the mean maximum is 1.53875; of an action chosen by other errors the mean is 0."""
    n, spec = 40_000, EnvSpec(1, 10, torch.device("cpu"), discrete=True)
    batch = Transition(torch.zeros(n, 1), torch.zeros(n, dtype=torch.int64), torch.zeros(n), torch.arange(n)[:, None], torch.ones(n))
    draw, means = torch.Generator().manual_seed(0), {}
    for cls in (DQN, DoubleDQN):
        agent = make(cls, spec, gamma=1.0)
        agent.q, agent.target_q = (Table(torch.randn(n, 10, generator=draw)) for _ in range(2))
        y = agent.targets(batch).target
        means[cls] = y.mean().item(), (y.std() / n**0.5).item()
    for cls, expected in ((DQN, 1.53875), (DoubleDQN, 0.0)):
        mean, error = means[cls]
        assert abs(mean - expected) < 4 * error


@BOTH
def test_targets_of_n_step_rows_by_hand(cls):
    """Rewards 1, 2, 3 and then the end of the replay: three steps before the bootstrap, two, one; a terminal row has none."""
    agent = make(cls)
    buffer = ReplayBuffer(10, DISCRETE)
    path = torch.randn(4, 3)
    for t in range(3):
        ends = torch.tensor([False])
        buffer.extend(Experience(path[t : t + 1], torch.tensor([t]), torch.tensor([t + 1.0]), path[t + 1 : t + 2], ends, ends))
    y = agent.targets(NStep(buffer, 3, 0.9).at(torch.arange(3))).target
    action = agent.backup_action(path[3:])[0]
    last = agent.backup_q(path[3:], action).item()
    assert y.tolist() == pytest.approx([1 + 1.8 + 0.81 * 3 + 0.729 * last, 2 + 2.7 + 0.81 * last, 3 + 0.9 * last], rel=1e-5)


# ------------------------------------------------------------------------------------------------------------------------ learning
def chain_batch(n: int) -> Transition:
    """Cells 0, 1, 2, one-hot; action 1 goes right and pays 1 for leaving cell 2, which ends it; action 0 stays and pays 0.1."""
    cell, action = torch.randint(3, (n,)), torch.randint(2, (n,))
    end = (cell == 2) & (action == 1)
    reward = torch.where(end, 1.0, torch.where(action == 0, 0.1, 0.0))
    following = (cell + action).clamp(max=2)
    eye = torch.eye(3)
    return Transition(eye[cell], action, reward, eye[following], (~end).float())


Q_STAR = torch.tensor([[0.1 + 0.8 * 0.64, 0.64], [0.1 + 0.8 * 0.8, 0.8], [0.1 + 0.8 * 1.0, 1.0]])  # gamma 0.8: 1, 0.8, 0.64


@BOTH
@pytest.mark.parametrize(("loss", "options"), [("mse", {"target_every": 10}), ("huber", {"target_every": 0, "tau": 0.1})])
def test_update_on_a_chain_learns_the_optimal_values(cls, loss, options):
    agent = make(cls, EnvSpec(3, 2, torch.device("cpu"), discrete=True), 0.8, lr=1e-2, loss=loss, **options)
    torch.manual_seed(1)
    for _ in range(400):
        metrics = agent.update(chain_batch(64))
    torch.testing.assert_close(agent.q(torch.eye(3))[0].detach(), Q_STAR, rtol=0, atol=0.03)
    assert agent.act(torch.eye(3), explore=False).tolist() == [1, 1, 1]
    torch.testing.assert_close(agent.value(torch.eye(3)), Q_STAR.amax(1), rtol=0, atol=0.03)
    assert metrics["critic/loss"] < 1e-3


# ---------------------------------------------------------------------------------------------------------------- in other recipes
class Chain:
    """The chain as a model, for the rollouts of MVE."""

    def init(self, obs: torch.Tensor) -> torch.Tensor:
        return obs

    def step(self, carry: torch.Tensor, action: torch.Tensor) -> Step:
        cell = carry.argmax(-1)
        end = (cell == 2) & (action == 1)
        after = torch.eye(3)[(cell + action).clamp(max=2)]
        return Step(after, after, torch.where(end, 1.0, torch.where(action == 0, 0.1, 0.0)), end)

    def rollout(self, carry: torch.Tensor, actions: torch.Tensor) -> Rollout:
        raise NotImplementedError


@BOTH
@pytest.mark.parametrize("horizon", [0, 1, 3])
def test_targets_value_expansion_of_the_optimum_is_the_optimum(cls, horizon):
    """With the true model and Q* as the target network every target, on model transitions too, is Q* of its state and action."""
    agent = make(cls, EnvSpec(3, 2, torch.device("cpu"), discrete=True), 0.8, ValueExpansion(Chain(), horizon), hidden=())
    for network in (agent.q, agent.target_q):
        for p in network.parameters():
            p.data.zero_()
        network.net.weight[0].data[0] = Q_STAR
    y = agent.targets(chain_batch(50))
    assert y.action.dtype == torch.int64
    assert y.target.shape == (50 * (horizon + 1),)
    counted = y.weight > 0
    assert counted.sum() >= 50
    expected = Q_STAR[y.obs.argmax(-1), y.action]
    torch.testing.assert_close(y.target[counted], expected[counted])
    assert agent.update(chain_batch(50))["critic/loss"] < 1e-10
