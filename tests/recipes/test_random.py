"""The baseline of every table: uniformly random actions."""

import torch

import mbkit
from mbkit import recipes
from mbkit.config import compose
from mbkit.envs import make
from mbkit.recipes.random import RandomActor
from mbkit.types import EnvSpec


def test_random_actor_covers_the_action_space():
    torch.manual_seed(0)
    box, obs = RandomActor(EnvSpec(3, 2, torch.device("cpu"))).act(torch.zeros(500, 3)), torch.zeros(500, 3)
    assert box.shape == (500, 2)
    assert -1 <= box.min() < -0.98
    assert 0.98 < box.max() <= 1
    assert set(RandomActor(EnvSpec(3, 4, torch.device("cpu"), discrete=True)).act(obs).tolist()) == {0, 1, 2, 3}
    several = RandomActor(EnvSpec(3, 5, torch.device("cpu"), True, (3, 2))).act(obs)
    assert set(map(tuple, several.tolist())) == {(a, b) for a in range(3) for b in range(2)}


def test_random_has_neither_hooks_nor_a_learned_state():
    x = recipes.build(compose("random", ["env=CartPole-v1"]), make("CartPole-v1"))
    assert x.hooks == []
    assert x.store is x.replay
    assert set(x.stateful) == {"buffer"}


def test_random_is_scored_with_random_actions(tmp_path):
    options = {"threads": 1, "steps": 30, "eval": {"video": False, "episodes": 20}}
    run = mbkit.train("random", env="CartPole-v1", run_dir=str(tmp_path / "run"), **options)
    assert 15 < run.scores["eval/return"] < 35  # 22 in the mean
    assert len(run.parts.replay) == 30
