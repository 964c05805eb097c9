"""Running statistics of wrappers travel to other copies of the task."""

import re

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import wrappers
from gymnasium.vector import SyncVectorEnv

import mbkit.envs
from mbkit.envs.environment import Environment, single
from mbkit.errors import UserError

NAME = "Pendulum-v1"


def normalised(seed: int, copies: int = 1) -> Environment:
    made = [wrappers.NormalizeReward(wrappers.NormalizeObservation(gymnasium.make(NAME))) for _ in range(copies)]
    return single("normalised", made, seed)


def after_steps(environment: Environment, steps: int = 50) -> Environment:
    environment.reset()
    for _ in range(steps):
        environment.step(torch.rand(environment.num_envs, 1) * 2 - 1)
    return environment


def numbers(env: gymnasium.Env) -> list[list[float]]:
    """Mean, variance and count of the observations and of the returns."""
    return [[*np.ravel(each.mean), *np.ravel(each.var), each.count] for each in (env.env.obs_rms, env.return_rms)]


def test_set_statistics_normalises_as_in_training_and_is_frozen() -> None:
    training, evaluation = after_steps(normalised(0)), normalised(1)
    evaluation.set_statistics(training.statistics())
    assert numbers(evaluation.envs[0]) == numbers(training.envs[0])
    after_steps(evaluation, 5)
    assert numbers(evaluation.envs[0]) == numbers(training.envs[0])
    obs, reward = np.array([0.1, 0.2, 0.3]), training.envs[0].env.obs_rms
    assert np.array_equal(evaluation.envs[0].env.observation(obs), np.float32((obs - reward.mean) / np.sqrt(reward.var + 1e-8)))
    assert training.envs[0].update_running_mean


def test_set_statistics_copies_nothing_by_reference() -> None:
    training, evaluation = after_steps(normalised(0)), normalised(1)
    evaluation.set_statistics(training.statistics(), frozen=False)
    before = numbers(training.envs[0])
    after_steps(evaluation, 5)
    assert numbers(training.envs[0]) == before
    assert numbers(evaluation.envs[0]) != before


def test_set_statistics_environment_i_takes_those_of_i_modulo_the_number_of_training_environments() -> None:
    training, evaluation = after_steps(normalised(0, copies=2)), normalised(1, copies=3)
    evaluation.set_statistics(training.statistics())
    expected = [numbers(env) for env in training.envs]
    assert expected[0] != expected[1]
    assert [numbers(env) for env in evaluation.envs] == [expected[0], expected[1], expected[0]]


def test_statistics_task_without_normalising_wrappers_has_none() -> None:
    training, evaluation = mbkit.envs.make(NAME, num_envs=2), mbkit.envs.make(NAME)
    assert training.statistics() == {"envs": [[], []], "vector": []}
    evaluation.set_statistics(training.statistics())


def test_set_statistics_other_wrappers_are_named() -> None:
    training = after_steps(normalised(0))
    expected = "running statistics of Pendulum-v1: expected those of the wrappers [], got ['NormalizeReward', 'NormalizeObservation']"
    with pytest.raises(UserError, match=re.escape(expected)):
        mbkit.envs.make(NAME).set_statistics(training.statistics())


class Counted(gymnasium.RewardWrapper):
    """A user's normaliser."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.mean, self.var, self.count = 0.0, 1.0, 1

    def reward(self, reward: float) -> float:
        self.count += 1
        self.mean += (reward - self.mean) / self.count
        return reward - self.mean


def test_set_statistics_of_a_users_wrapper() -> None:
    training, evaluation = (single("counted", [Counted(gymnasium.make(NAME))], seed) for seed in (0, 1))
    after_steps(training)
    evaluation.set_statistics(training.statistics())
    assert (evaluation.envs[0].mean, evaluation.envs[0].count) == (training.envs[0].mean, training.envs[0].count)


def test_set_statistics_vector_environments() -> None:
    def build(seed: int) -> Environment:
        return mbkit.envs.wrap(wrappers.vector.NormalizeObservation(SyncVectorEnv([lambda: gymnasium.make(NAME)] * 2)), seed=seed)

    training, evaluation = after_steps(build(0)), build(1)
    evaluation.set_statistics(training.statistics())
    after_steps(evaluation, 5)
    trained, evaluated = training._source.vector.obs_rms, evaluation._source.vector.obs_rms
    assert np.array_equal(trained.mean, evaluated.mean)
    assert trained.count == evaluated.count


def test_load_state_dict_restarted_episodes_keep_the_statistics() -> None:
    """An iterator cannot be saved, so that new episodes begin; the statistics are those of training nevertheless, and go on."""
    training, resumed = normalised(0), normalised(1)
    after_steps(training)
    training.envs[0].unwrapped.extra = iter([1])
    state = training.state_dict()
    resumed.load_state_dict(state)
    assert resumed.restart_reason is not None
    before, after = ([each[-1] for each in numbers(environment.envs[0])] for environment in (training, resumed))
    assert after == [before[0] + 1, before[1]]  # the reset is an observation, but no reward
    assert resumed.envs[0].update_running_mean
