"""From environments to updates: the same trajectories however environments are reset, with the behaviour policy's log-probabilities."""

import gymnasium
import pytest
import torch
from clocks import ManualClock, StoredMetrics
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn

from mbkit import envs
from mbkit.agents.policy_gradient.ppo import PPO, PPOConfig
from mbkit.config import OldTrajectoryLoop, TrajectoryLoop
from mbkit.errors import UserError
from mbkit.loops import Online, TrajectoryUpdates
from mbkit.replay.trajectory import TrajectoryBuffer
from mbkit.types import Metrics, Trajectory

M, T, UPDATES = 3, 16, 5
CPU = torch.device("cpu")


class Falling:
    """Pushes the cart away from under the pole: some episodes end by falling, some by time; lists what it is updated on."""

    def __init__(self) -> None:
        self.trajectories: list[Trajectory] = []
        self.remaining: list[float] = []

    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        return (obs[..., 2] < 0).long()

    def reset(self, mask: Tensor) -> None:
        pass

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """A number that shows which update it was, and the row."""
        return len(self.trajectories) + obs[..., 0]

    def anneal(self, remaining: float) -> None:
        self.remaining.append(remaining)

    def update(self, trajectory: Trajectory) -> Metrics:
        self.trajectories.append(trajectory)
        return {"critic/loss": trajectory.reward.mean()}


def wrapped(mode: AutoresetMode) -> envs.Environment:
    makers = [lambda: gymnasium.make("CartPole-v1", max_episode_steps=8)] * M
    return envs.wrap(SyncVectorEnv(makers, autoreset_mode=mode), seed=5)


def built_in() -> envs.Environment:
    return envs.make("CartPole-v1", num_envs=M, seed=5, env_kwargs={"max_episode_steps": 8})


def updated(env: envs.Environment, **options: int) -> tuple[Falling, Online]:
    """The agent after updates on five new trajectories, and on stored ones where `options` of the loop ask for these."""
    agent, cfg = Falling(), OldTrajectoryLoop(rollout_steps=T, num_envs=M, **options)
    buffer = TrajectoryBuffer(T, M, env.spec, cfg.stored_rollouts)
    online = Online(env, agent, buffer)
    online.recorder = StoredMetrics()
    hook = TrajectoryUpdates("falling", agent, buffer, cfg, env.spec.device, 10_000)
    online.start()
    while len(agent.trajectories) < UPDATES * (1 + cfg.off_policy_updates):
        online.run(online.step + M, [hook])
    return agent, online


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_trajectory_updates_wrapped_environments_give_the_same_trajectories(mode):
    ours, theirs = updated(built_in())[0].trajectories, updated(wrapped(mode))[0].trajectories
    assert any(t.ended.any() and t.discount.all(1).any() for t in ours)
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(a, b, strict=True):
            assert torch.equal(x, y)


def test_trajectory_updates_leave_out_steps_that_only_reset():
    """The first trajectory is the same; later ones begin where the slowest environment is, with steps that exist and in their order."""
    ours, theirs = updated(built_in())[0].trajectories, updated(wrapped(AutoresetMode.NEXT_STEP))[0].trajectories
    for x, y in zip(ours[0], theirs[0], strict=True):
        assert torch.equal(x, y)
    all_of_ours = [torch.cat([t[k] for t in ours]) for k in range(6)]  # without log_prob, which shows the update
    for trajectory in theirs[: UPDATES - 1]:
        for i in range(M):
            column = all_of_ours[0][:, i]
            begin = int((column == trajectory.obs[0, i]).all(-1).nonzero()[0])
            part = slice(begin, begin + T)
            assert len(column[part]) == T
            assert all(torch.equal(whole[part, i], x[:, i]) for whole, x in zip(all_of_ours, trajectory, strict=False))


def test_trajectory_updates_truncated_steps_bootstrap_and_terminated_ones_do_not():
    discount = torch.cat([t.discount[t.ended] for t in updated(built_in())[0].trajectories])
    assert 0 < discount.mean() < 1


def test_trajectory_updates_successors_are_the_next_steps_unless_an_episode_ended():
    for t in updated(built_in())[0].trajectories:
        on = ~t.ended[:-1]
        assert torch.equal(t.next_obs[:-1][on], t.obs[1:][on])
        assert not torch.equal(t.next_obs[:-1][~on], t.obs[1:][~on])


def test_trajectory_updates_stored_trajectories_hold_log_probabilities_of_their_behaviour_policy():
    agent, _ = updated(built_in(), stored_rollouts=2, off_policy_updates=3)
    newest = agent.trajectories[::4]
    stored = [t for i, t in enumerate(agent.trajectories) if i % 4]
    for k, t in enumerate(newest):
        assert torch.equal(t.log_prob, 4 * k + t.obs[..., 0])  # computed before the update, once
    assert len({float(t.log_prob.sum()) for t in stored}) > 2
    for k, t in enumerate(stored):
        last = k // 3
        assert any(t is old for old in newest[max(0, last - 1) : last + 1])


def test_trajectory_updates_anneal_by_what_remains_from_the_beginning_of_a_trajectory():
    agent, _ = updated(built_in())
    assert agent.remaining == pytest.approx([1 - k * T * M / 10_000 for k in range(UPDATES)])


def test_trajectory_updates_without_a_full_buffer_do_nothing():
    clock, agent = ManualClock(), Falling()
    clock.run(9, [TrajectoryUpdates("falling", agent, TrajectoryBuffer(2, 1, built_in().spec), TrajectoryLoop(), CPU, 100)])
    assert agent.trajectories == []
    assert clock.recorder.logs == []


def test_trajectory_updates_diverged_agent_is_named():
    agent, online = updated(built_in())
    agent.update = lambda trajectory: {"critic/loss": torch.tensor(torch.nan)}
    hook = TrajectoryUpdates("falling", agent, online.store, TrajectoryLoop(rollout_steps=T), CPU, 10_000)
    with pytest.raises(UserError, match=r"falling diverged: critic/loss is nan"):
        online.run(online.step + T * M, [hook])


def test_trajectory_updates_log_probabilities_are_those_of_the_acting_policy():
    """Also where observations are normalised by statistics that move with every update."""
    torch.manual_seed(0)
    env = built_in()
    agent = PPO(env.spec, PPOConfig(normalize_obs=True, epochs=1, minibatch=T * M, hidden=(8,)))
    buffer, acted, learned = TrajectoryBuffer(T, M, env.spec), [], []
    act, update = agent.act, agent.update

    def acting(obs: Tensor, explore: bool = True) -> Tensor:
        action = act(obs, explore)
        acted.append(agent.log_prob(obs, action))
        return action

    def updating(trajectory: Trajectory) -> Metrics:
        learned.append(trajectory.log_prob)
        return update(trajectory)

    agent.act, agent.update = acting, updating
    assert isinstance(agent, nn.Module)
    online = Online(env, agent, buffer)
    online.recorder = StoredMetrics()
    online.start()
    online.run(3 * T * M, [TrajectoryUpdates("ppo", agent, buffer, TrajectoryLoop(rollout_steps=T), env.spec.device, 1000)])
    torch.testing.assert_close(torch.cat(learned), torch.stack(acted))
