"""Seeds and scores of evaluations."""

from functools import partial

import pytest
import torch
from episodes import COUNTING, Still

from mbkit import envs
from mbkit.run import evaluation
from mbkit.run.evaluation import diagnose, diagnose_values, evaluation_seed, score


def make_env(num_envs: int, seed: int) -> envs.Environment:
    return envs.make(COUNTING, num_envs=num_envs, seed=seed)


def test_evaluation_seed_is_one_formula_far_from_training():
    assert evaluation_seed(0) == 10**9
    assert evaluation_seed(3, 7) == 10**9 + 3000 + 7


def test_score_starts_episode_i_from_evaluation_seed_i(monkeypatch):
    """Episodes with seeds of residue 0, 1, 2 have returns 3, 6, 6; so many side by side make no difference."""
    expected = [3.0 if evaluation_seed(2, i) % 3 == 0 else 6.0 for i in range(7)]
    for side_by_side in (10, 3):
        monkeypatch.setattr(evaluation, "SIDE_BY_SIDE", side_by_side)
        result = score(make_env, lambda env: Still(), seed=2, episodes=7, keep_rows=False)
        assert result.returns.tolist() == expected
        assert result.rows == []


class Drawing(Still):
    """Acts at random."""

    def act(self, obs, explore=True):
        return torch.rand(len(obs), 1)


def test_score_depends_on_the_policy_alone_and_leaves_random_numbers_as_they_were():
    actions = []
    for _ in range(2):
        torch.rand(3)
        before = torch.get_rng_state()
        result = score(make_env, lambda env: Drawing(), seed=2, episodes=2, keep_rows=True)
        actions.append(torch.stack([row.action for row in result.rows]))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*actions)


def test_diagnose_leaves_random_numbers_as_they_were(monkeypatch):
    result = score(make_env, lambda env: Still(), seed=0, episodes=3, keep_rows=True)
    asked = []

    def measure(model, held_out, policy, gamma):
        asked.append((model, len(held_out), policy, gamma, torch.rand(1).item()))
        return {"holdout": {}}

    monkeypatch.setattr(evaluation, "diagnose_model", measure)
    before = torch.get_rng_state()
    run = partial(diagnose, "model", result, make_env(1, 0).spec, None, gamma=0.9)
    assert [run(seed=s) for s in (1, 1, 2)] == [{"holdout": {}}] * 3
    assert torch.equal(torch.get_rng_state(), before)
    assert asked[0] == asked[1] == ("model", int(result.lengths.sum()), None, 0.9, pytest.approx(asked[0][-1]))
    assert asked[2][-1] != asked[0][-1]


def test_diagnose_values_of_an_actor_without_action_values_is_empty():
    result = score(make_env, lambda env: Still(), seed=2, episodes=2, keep_rows=True)
    assert diagnose_values(Still(), result, make_env(1, 0).spec, seed=2, gamma=0.9) == {}


def test_diagnose_values_compares_q_with_the_return_and_leaves_random_numbers_as_they_were():
    class Zero(Still):
        def value(self, obs):
            return torch.rand(len(obs))

        def backup_q(self, obs, action):
            return torch.zeros(2, len(obs))

    result = score(make_env, lambda env: Still(), seed=2, episodes=3, keep_rows=True)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    gap = diagnose_values(Zero(), result, make_env(1, 0).spec, seed=2, gamma=0.9)["q_gap"]
    assert torch.rand(1) == expected
    assert gap["q"] == 0
    assert gap["mean"] == pytest.approx(-gap["real"])
    assert gap["real"] > 0
