"""Rewards for planning: zero where the task terminates, and highest in the middle."""

import torch

from mbkit.envs import known, make
from mbkit.envs.shaping import upright


def test_upright_is_at_most_the_tasks_reward_and_0_after_a_fall():
    env = make("InvertedPendulum-v5", seed=3)
    obs, ends = env.reset(), 0
    for _ in range(300):
        action = torch.rand(1, 1) * 2 - 1
        out = env.step(action)
        if out.terminated:
            assert upright(obs, action, out.next_obs) == 0 == out.reward
        else:
            assert upright(obs, action, out.next_obs) <= out.reward
        ends += int(out.terminated)
        obs = out.obs
    assert ends > 3
    assert torch.equal(known.termination_fn("InvertedPendulum-v5")(obs, action, obs), torch.tensor([False]))


def test_upright_at_rest_in_the_middle_is_1():
    rest, moved = torch.zeros(1, 4), torch.eye(4) * 0.1
    assert upright(rest, rest, rest) == 1
    assert torch.allclose(upright(moved, moved, moved), 1 - torch.tensor([0.01, 0.05, 0.003, 0.0005]))
