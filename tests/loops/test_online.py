"""The online loop against episodes whose returns are known beforehand; environments that cannot be saved go on with new episodes."""

import gymnasium
import numpy as np
import pytest
import torch
from clocks import StoredMetrics
from episodes import COUNTING, Still

from mbkit import envs
from mbkit.envs.environment import single
from mbkit.errors import UserError
from mbkit.loops import Online, random_action
from mbkit.replay.buffer import ReplayBuffer
from mbkit.replay.n_step import NStep
from mbkit.replay.trajectory import TrajectoryBuffer
from mbkit.replay.windows import windows
from mbkit.types import EnvSpec


def counting(num_envs: int, warmup: int = 0) -> Online:
    """A started loop over `num_envs` counting environments."""
    env = envs.make(COUNTING, num_envs=num_envs)
    online = Online(env, Still(), ReplayBuffer(300, env.spec), warmup)
    online.recorder = StoredMetrics()
    online.start()
    return online


def test_online_stores_every_transition_with_its_true_successor():
    online = counting(1)
    online.run(7, [])
    rows = online.store.all()
    assert rows.obs.flatten().tolist() == [0, 1, 0, 1, 0, 1, 0]  # length 2 each: the successor of 1 is 2, never the reset 0
    assert rows.next_obs.flatten().tolist() == [1, 2, 1, 2, 1, 2, 1]
    assert rows.discount.tolist() == [1, 0, 1, 0, 1, 0, 1]


def test_online_counts_episodes_and_resets_per_environment():
    online = counting(3)  # seeds 0, 1, 2: the first episodes have lengths 2, 3 and 3 (truncated)
    online.run(9, [])
    assert [event for _, event in online.recorder.events] == [
        {"episode/return": 3, "episode/length": 2},
        {"episode/return": 6, "episode/length": 3},
        {"episode/return": 6, "episode/length": 3},
    ]
    assert online.actor.resets == [[True] * 3, [True, False, False], [False, True, True]]
    assert online.episodes == 3


def test_online_is_a_clock_of_environment_steps():
    online = counting(3)
    online.run(7, [])
    assert (online.stride, online.step) == (3, 9)


def test_online_warm_up_explores_the_whole_box():
    online = counting(1, warmup=200)
    online.run(200, [])
    action = online.store.all().action
    assert action.abs().max() <= 1
    assert action.min() < -0.9
    assert action.max() > 0.9


def test_random_action_discrete_covers_all_of_them():
    action = random_action(EnvSpec(1, 3, torch.device("cpu"), discrete=True), 100)
    assert action.dtype == torch.int64
    assert set(action.tolist()) == {0, 1, 2}


def test_random_action_several_discrete_ones_cover_all_combinations():
    action = random_action(EnvSpec(1, 5, torch.device("cpu"), True, (3, 2)), 200)
    assert action.dtype == torch.int64
    assert set(map(tuple, action.tolist())) == {(a, b) for a in range(3) for b in range(2)}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_online_refuses_an_action_that_is_not_finite(bad):
    online = counting(2)
    online.run(4, [])
    online.actor.act = lambda obs, explore=True: torch.tensor([[0.0], [bad]])
    with pytest.raises(UserError, match=r"the agent's action is not finite at step 4: .* a smaller agent\.lr is safer"):
        online.run(8, [])
    assert len(online.store) == 4


# -------------------------------------------------------------------------------------------------------------------- restarts


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


def continued(make):
    """Three steps, a checkpoint, five more of an environment that had to begin anew."""
    env = single("unsavable", [Unsavable()], 0)
    store = make(env.spec)
    online = Online(env, Still(discrete=True), store)
    online.recorder = StoredMetrics()
    online.start()
    online.run(3, [])
    saved = online.state_dict(), store.state_dict()
    env = single("unsavable", [Unsavable(50)], 0)
    store = make(env.spec)
    store.load_state_dict(saved[1])
    online = Online(env, Still(discrete=True), store)
    online.recorder = StoredMetrics()
    online.load_state_dict(saved[0])
    assert env.restart_reason
    online.run(8, [])
    return store


def test_online_restart_ends_the_episode_of_a_trajectory():
    t = continued(lambda spec: TrajectoryBuffer(8, 1, spec)).take()
    going_on = ~t.ended[:-1, 0]
    assert torch.equal(t.next_obs[:-1, 0][going_on], t.obs[1:, 0][going_on])


def test_online_restart_ends_the_episode_in_the_replay():
    buffer = continued(lambda spec: ReplayBuffer(100, spec))
    sums = NStep(buffer, 3, 1.0).at(torch.arange(8))
    assert torch.equal(sums.obs[:, 0], sums.next_obs[:, 0])
    assert (windows(buffer, 4).obs[..., 0].std(1) == 0).all()
