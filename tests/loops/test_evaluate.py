"""Evaluation against episodes whose returns are known beforehand."""

import gymnasium
import pytest
import torch
from episodes import COUNTING, Counting, Still

from mbkit import envs
from mbkit.errors import UserError
from mbkit.loops import Evaluation, evaluate_policy
from mbkit.replay.windows import episodes


def test_evaluate_policy_counts_one_episode_each_and_nothing_after_it():
    env = envs.make(COUNTING, num_envs=3)
    result = evaluate_policy(env, Still(), seed=0, keep_rows=True)
    assert result.returns.tolist() == [3, 6, 6]
    assert result.lengths.tolist() == [2, 3, 3]
    held_out = result.buffer(env.spec)
    assert len(held_out) == 8
    assert sorted(len(e.reward) for e in episodes(held_out)) == [2, 3, 3]


def test_evaluate_policy_resets_the_actor_where_episodes_end():
    actor = Still()
    evaluate_policy(envs.make(COUNTING, num_envs=3), actor, seed=0)
    assert actor.resets == [[True] * 3, [False] * 3, [True, False, False], [False, True, True]]


def test_evaluate_policy_without_keep_rows_stores_none():
    assert evaluate_policy(envs.make(COUNTING, num_envs=2), Still(), seed=0).rows == []


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_evaluate_policy_refuses_an_action_that_is_not_finite(bad):
    actor = Still()
    actor.act = lambda obs, explore=True: torch.tensor([[0.0], [bad]])
    with pytest.raises(UserError, match=r"the agent's action is not finite at the evaluation"):
        evaluate_policy(envs.make(COUNTING, num_envs=2), actor, seed=0)


def test_evaluation_join_equals_one_evaluation():
    parts = [evaluate_policy(envs.make(COUNTING, num_envs=n), Still(), seed, keep_rows=True) for n, seed in ((2, 0), (1, 2))]
    joined, at_once = Evaluation.join(parts), evaluate_policy(envs.make(COUNTING, num_envs=3), Still(), seed=0)
    assert joined.returns.tolist() == at_once.returns.tolist()
    assert len(joined.buffer(envs.make(COUNTING).spec)) == 8
    metrics = {name: float(value) for name, value in joined.metrics().items()}
    assert metrics == {"eval/return": 5, "eval/return_std": pytest.approx(2**0.5), "eval/length": pytest.approx(8 / 3)}


class Forever(Counting):
    """Never ends."""

    def step(self, action):
        obs, reward, *_ = super().step(action)
        return obs, reward, False, False, {}


gymnasium.register("tests/Forever-v0", Forever)


@pytest.mark.parametrize(("max_steps", "limit", "cap"), [(7, None, 7), (0, None, 10_000), (5, 9, 5)])
def test_evaluate_policy_cuts_episodes_that_do_not_end_and_says_so(max_steps, limit, cap):
    env = envs.make("tests/Forever-v0", num_envs=2, env_kwargs={} if limit is None else {"max_episode_steps": limit})
    result = evaluate_policy(env, Still(), 0, keep_rows=True, max_steps=max_steps)
    assert result.lengths.tolist() == [cap, cap]
    assert result.cut == 2
    assert result.note().startswith(f"The score counts {cap} steps of 2 of 2 evaluation episodes")
    assert result.rows[-1].ended.all()  # no window of the diagnostics goes on into the next episodes
    assert not result.rows[-2].ended.any()


def test_evaluate_policy_within_the_time_limit_cuts_nothing():
    env = envs.make("tests/Forever-v0", env_kwargs={"max_episode_steps": 9})
    result = evaluate_policy(env, Still(), 0)
    assert (result.lengths.tolist(), result.cut, result.note()) == ([9], 0, None)
