"""Evaluation against episodes whose returns are known beforehand."""

import pytest
import torch
from episodes import COUNTING, Still

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
