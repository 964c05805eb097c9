"""Episodes in a model, row by row against steps listed by hand: new ones after an end, broken steps, and the cut at the end."""

import torch
from systems import SPEC, small_ensemble
from torch import Tensor

from mbkit.agents.policy_gradient.npg import NPG, NPGConfig
from mbkit.dynamics.uncertainty import disagreement
from mbkit.imagination.pessimism import Halting
from mbkit.imagination.trajectories import model_trajectory
from mbkit.types import EnvSpec, Step, Trajectory

T, M = 6, 3


class Counter:
    """obs = (row, time); the action is added to the reward 10 row + time. A row terminates at time 3; row 2 breaks at time 2."""

    def init(self, obs):
        return obs

    def step(self, carry, action, predict=False):
        following = carry + torch.tensor([0.0, 1.0])
        broken = (following[:, 0] == 2) & (following[:, 1] == 2)
        obs = torch.where(broken[:, None], torch.nan, following)
        return Step(obs, obs, 10 * obs[:, 0] + obs[:, 1] + action[:, 0], following[:, 1] == 3)


class Tenth:
    """Acts by a tenth of the time, and tells which observations it was asked about."""

    def sample(self, obs: Tensor) -> Tensor:
        return obs[:, 1:] / 10

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        return 100 * obs[..., 0] + action[..., 0]


def rolled(model=None) -> Trajectory:
    start = torch.stack((torch.arange(float(M)), torch.zeros(M)), 1)
    restart = torch.stack((torch.arange(float(M)).expand(T, M), -torch.arange(1.0, T + 1)[:, None].expand(T, M)), -1)  # (row, -t - 1)
    return model_trajectory(model or Counter(), Tenth(), start, restart)


def test_rows_are_those_listed_by_hand():
    out = rolled()
    assert out.obs[..., 0].tolist() == [[0, 1, 2]] * T
    assert out.obs[:, 0, 1].tolist() == [0, 1, 2, -3, -2, -1]  # a new episode from restart[2], after time 3 was reached
    assert out.obs[:, 2, 1].tolist() == [0, 1, -2, -1, 0, 1]  # and from restart[1], where the step broke
    assert out.next_obs[:, 0, 1].tolist() == [1, 2, 3, -2, -1, 0]
    assert out.next_obs[:, 2, 1].tolist() == [1, 1, -1, 0, 1, 1]  # its own observation where the step broke
    torch.testing.assert_close(out.action, out.obs[..., 1:] / 10)
    reward = 10 * out.next_obs[..., 0] + out.next_obs[..., 1] + out.action[..., 0]
    broken = torch.zeros(T, M, dtype=torch.bool)
    broken[1, 2] = broken[5, 2] = True
    torch.testing.assert_close(out.reward, torch.where(broken, 0.0, reward))
    terminated = broken | (out.next_obs[..., 1] == 3)
    assert torch.equal(out.discount, (~terminated).float())
    assert torch.equal(out.ended[:-1], terminated[:-1])
    torch.testing.assert_close(out.log_prob, 100 * out.obs[..., 0] + out.action[..., 0])


def test_the_last_step_only_cuts_what_did_not_terminate():
    out = rolled()
    assert out.ended[-1].tolist() == [True] * M
    assert out.discount[-1].tolist() == [1, 1, 0]


def test_a_reward_that_is_not_finite_ends_the_episode_too():
    class Odd(Counter):
        def step(self, carry, action, predict=False):
            step = super().step(carry, action)
            return step._replace(reward=torch.where(carry[:, 0] == 1, torch.inf, step.reward))

    out = rolled(Odd())
    assert out.reward.isfinite().all()
    assert out.discount[:, 1].tolist() == [0] * T


def test_episodes_of_a_halting_ensemble_are_what_a_learner_takes():
    torch.manual_seed(0)
    agent = NPG(SPEC, NPGConfig(hidden=(8,)), 0.9)
    model, first = small_ensemble(), torch.randn(4, 3)
    with torch.no_grad():
        usual = float(disagreement(model.network.predict_targets(first, agent.sample(first))).mean())
    halting = Halting(model, disagreement, usual, -5.0)
    out = model_trajectory(halting, agent, first, torch.randn(20, 4, 3))
    assert isinstance(out, Trajectory)
    assert not out.reward.requires_grad
    assert torch.equal(out.obs[0], first)
    halted = (out.reward == -5) & (out.discount == 0)
    assert 0 < int(halted.sum()) < 80
    follows = ~out.ended[:-1]
    assert torch.equal(out.obs[1:][follows], out.next_obs[:-1][follows])
    assert not bool((out.obs[1:] == out.next_obs[:-1]).all(-1)[~follows].any())
    torch.testing.assert_close(agent.log_prob(out.obs, out.action), out.log_prob)
    assert all(value.isfinite() for value in agent.update(out).values())


def test_discrete_actions():
    spec = EnvSpec(2, 2, torch.device("cpu"), True)

    class Chosen(Counter):
        def step(self, carry, action, predict=False):
            return super().step(carry, action[:, None].float())

    agent = NPG(spec, NPGConfig(hidden=(8,)), 0.9)
    start = torch.zeros(M, 2)
    out = model_trajectory(Chosen(), agent, start, start.expand(T, M, 2))
    assert (out.action.dtype, tuple(out.action.shape)) == (torch.int64, (T, M))
