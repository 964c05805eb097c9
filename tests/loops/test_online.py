"""The online loop and evaluation against episodes whose returns are known beforehand."""

import gymnasium
import numpy as np
import pytest
import torch

from mbkit import envs
from mbkit.errors import UserError
from mbkit.loops import Every, Online, evaluate_policy
from mbkit.replay.buffer import ReplayBuffer
from mbkit.replay.windows import episodes


class Count(gymnasium.Env):
    """Rewards 1, 2, 3, ...; terminates after `seed % 3 + 2` steps, or is cut after 3."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.length = (seed or 0) % 3 + 2
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.full(1, self.t, np.float32), float(self.t), self.t >= self.length, self.t >= 3, {}


class Still:
    """Acts 0 and remembers which environments it was told to forget."""

    def __init__(self):
        self.resets = []

    def act(self, obs, explore=True):
        return torch.zeros(len(obs), 1)

    def reset(self, mask):
        self.resets.append(mask.tolist())


class Log:
    """A recorder that keeps events."""

    def __init__(self):
        self.events = []

    def log(self, step, metrics):
        pass

    def event(self, step, values):
        self.events.append((step, {k: float(v) for k, v in values.items()}))


gymnasium.register("tests/Count-v0", Count)


def loop(num_envs: int, warmup: int = 0) -> Online:
    env = envs.make("tests/Count-v0", num_envs=num_envs)
    online = Online(env, Still(), ReplayBuffer(100, env.spec), warmup)
    online.recorder = Log()
    online.start()
    return online


def test_every_transition_is_stored_with_its_true_successor():
    online = loop(1)
    online.run(7, [])
    rows = online.buffer.all()
    assert rows.obs.flatten().tolist() == [0, 1, 0, 1, 0, 1, 0]  # length 2 each: the successor of 1 is 2, never the reset 0
    assert rows.next_obs.flatten().tolist() == [1, 2, 1, 2, 1, 2, 1]
    assert rows.discount.tolist() == [1, 0, 1, 0, 1, 0, 1]


def test_episode_statistics_and_resets_per_environment():
    online = loop(3)  # seeds 0, 1, 2: the first episodes have lengths 2, 3 and 3 (cut)
    online.run(9, [])
    assert [event for _, event in online.recorder.events] == [
        {"episode/return": 3, "episode/length": 2},
        {"episode/return": 6, "episode/length": 3},
        {"episode/return": 6, "episode/length": 3},
    ]
    assert online.actor.resets == [[True] * 3, [True, False, False], [False, True, True]]
    assert online.episodes == 3


def test_hooks_see_each_multiple_once_even_if_steps_jump_over_it():
    seen = []
    online = loop(3)
    online.run(24, [Every(5, lambda x: seen.append(x.step)), Every(0, lambda x: seen.append(-1))])
    assert seen == [6, 12, 15, 21]


def test_stop_is_asked_after_whole_steps():
    online = loop(2)
    online.run(100, [], stop=lambda: online.step >= 8)
    assert online.step == 8


def test_warm_up_explores_the_whole_box():
    online = loop(1, warmup=200)
    online.buffer = ReplayBuffer(300, online.env.spec)
    online.run(200, [])
    action = online.buffer.all().action
    assert action.abs().max() <= 1
    assert action.min() < -0.9
    assert action.max() > 0.9


def test_evaluation_counts_one_episode_each_and_nothing_after_it():
    env = envs.make("tests/Count-v0", num_envs=3)
    result = evaluate_policy(env, Still(), seed=0, keep_rows=True)
    assert result.returns.tolist() == [3, 6, 6]
    assert result.lengths.tolist() == [2, 3, 3]
    held_out = result.buffer(env.spec)
    assert len(held_out) == 8
    assert sorted(len(e.reward) for e in episodes(held_out)) == [2, 3, 3]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_action_that_is_not_finite_is_the_agents(bad):
    online = loop(2)
    online.run(4, [])
    online.actor.act = lambda obs, explore=True: torch.tensor([[0.0], [bad]])
    with pytest.raises(UserError, match=r"the agent's action is not finite at step 4: .* a smaller agent\.lr is safer"):
        online.run(8, [])
    assert len(online.buffer) == 4
    with pytest.raises(UserError, match=r"the agent's action is not finite at the evaluation"):
        evaluate_policy(envs.make("tests/Count-v0", num_envs=2), online.actor, seed=0)
