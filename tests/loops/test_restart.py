"""A run whose environment cannot be saved goes on with new episodes: what is remembered must not join them to the old ones."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import torch

from mbkit.envs.environment import single
from mbkit.loops.online import Online
from mbkit.replay.buffer import ReplayBuffer
from mbkit.replay.n_step import NStep
from mbkit.replay.trajectory import TrajectoryBuffer
from mbkit.replay.windows import windows

QUIET = SimpleNamespace(log=lambda *_: None, event=lambda *_: None)


class Unsavable(gymnasium.Env):
    """Observes (episode, step); an iterator among its attributes keeps it out of checkpoints."""

    observation_space = gymnasium.spaces.Box(-1e6, 1e6, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    render_mode = None

    def __init__(self, first: int = 0) -> None:
        self.episode, self.opaque = first - 1, iter(())

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action):
        self.t += 1
        return np.array([self.episode, self.t], np.float32), 1.0, False, False, {}


class Still:
    def act(self, obs, explore=True):
        return torch.zeros(len(obs), dtype=torch.int64)

    def reset(self, mask):
        pass


def continued(make):
    """Three steps, a checkpoint, five more of an environment that had to begin anew."""
    env = single("unsavable", [Unsavable()], 0)
    buffer = make(env.spec)
    loop = Online(env, Still(), buffer)
    loop.recorder = QUIET
    loop.start()
    for _ in range(3):
        loop.advance()
    saved = loop.state_dict(), buffer.state_dict()
    env = single("unsavable", [Unsavable(50)], 0)
    buffer = make(env.spec)
    buffer.load_state_dict(saved[1])
    loop = Online(env, Still(), buffer)
    loop.recorder = QUIET
    loop.load_state_dict(saved[0])
    assert env.restart_reason
    for _ in range(5):
        loop.advance()
    return buffer


def test_a_restart_ends_the_episode_of_a_trajectory():
    t = continued(lambda spec: TrajectoryBuffer(8, 1, spec)).take()
    going_on = ~t.ended[:-1, 0]
    assert torch.equal(t.next_obs[:-1, 0][going_on], t.obs[1:, 0][going_on])


def test_a_restart_ends_the_episode_in_the_replay():
    buffer = continued(lambda spec: ReplayBuffer(100, spec))
    sums = NStep(buffer, 3, 1.0).at(torch.arange(8))
    assert torch.equal(sums.obs[:, 0], sums.next_obs[:, 0])
    assert (windows(buffer, 4).obs[..., 0].std(1) == 0).all()
