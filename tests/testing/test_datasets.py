"""The contract of data sets passes recorded ones, and is violated by one broken set for each clause."""

import numpy as np
import pytest
import torch

from mbkit import data as sets
from mbkit.data import Columns, Dataset
from mbkit.envs import make
from mbkit.testing import check_dataset
from mbkit.types import EnvSpec

BOX = {"action_low": [-2.0], "action_high": [2.0]}


def pendulum(episodes: int = 3, length: int = 60) -> Columns:
    """Random actions on Pendulum, in its units."""
    rows = []
    for episode in range(episodes):
        with make("Pendulum-v1", seed=episode, env_kwargs={"max_episode_steps": length}) as env:
            obs, draw = env.reset(), torch.Generator().manual_seed(episode)
            for _ in range(length):
                action = torch.rand(1, 1, generator=draw) * 2 - 1
                step = env.step(action)
                row = obs[0], env.native_action(action)[0], step.reward[0], step.next_obs[0], step.terminated[0], step.truncated[0], episode
                rows.append([np.array(x) for x in row])
                obs = step.obs
    return Columns(*(np.stack(column) for column in zip(*rows, strict=True)))


ROWS = pendulum()


def of(rows: Columns, **about) -> Dataset:
    return Dataset.of(rows, **{"env": "Pendulum-v1", **BOX, **about})


def changed(**columns) -> Columns:
    return ROWS._replace(**columns)


def test_recorded_rows_pass_in_memory_and_as_a_file(tmp_path):
    check_dataset(of(ROWS), EnvSpec(3, 1, torch.device("cpu")))
    check_dataset(sets.write(of(ROWS), tmp_path / "pendulum.mbkit"))
    check_dataset(of(ROWS, env=None))


def flag_inside() -> np.ndarray:
    flags = ROWS.terminated.copy()
    flags[10] = True
    return flags


def with_nan() -> np.ndarray:
    obs = ROWS.obs.copy()
    obs[7, 1] = np.nan
    return obs


def repeated_episode() -> Columns:
    first = [column[:60] for column in ROWS]
    again = [*first[:-1], first[-1] + 1]
    return Columns(*(np.concatenate([a, b]) for a, b in zip(first, again, strict=True)))


def repeated_rows() -> Columns:
    """A sensor that stands still for five steps of every ten, in one episode."""
    obs = ROWS.obs[:60].copy()
    action = ROWS.action[:60].copy()
    for start in range(0, 60, 10):
        obs[start : start + 6], action[start : start + 6] = obs[start], action[start]
    next_obs = np.concatenate([obs[1:], ROWS.next_obs[59:60]])
    return Columns(obs, action, *(column[:60] for column in (ROWS.reward,)), next_obs, *(column[:60] for column in ROWS[4:]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (changed(obs=with_nan()), r"obs, dimension 1 of row 7 \(episode 0, step 7\): expected finite numbers, got nan"),
        (changed(action=ROWS.action * 3), r"action, dimension 0 of row \d+ .*: expected a number in \[-2, 2\]"),
        (changed(terminated=flag_inside()), r"terminated of row 10 .*: expected False before the last row of an episode"),
        (changed(next_obs=ROWS.obs), r"next_obs, dimension \d of row 0 .*: expected .*, the observation of the following row"),
        (changed(next_obs=np.roll(ROWS.next_obs, 1, 0)), "the observation of the following row"),
        (changed(action=np.zeros_like(ROWS.action)), r"action: expected actions that differ, came \[0\.\] in all 180 rows"),
        (changed(reward=np.roll(ROWS.reward, 1)), r"reward of row 0 .*: expected -.*, which is that of Pendulum-v1, came"),
        (changed(action=np.roll(ROWS.action, 3, 0)), r"reward of row \d+ .*: expected .*, which is that of Pendulum-v1"),
        (changed(terminated=ROWS.truncated), r"terminated of row 59 .*: expected False, which is that of Pendulum-v1, came True"),
        (repeated_episode(), "episode 1 is a copy of episode 0"),
        (repeated_rows(), r"expected rows that differ, but \d+ of 60 are copies of others"),
    ],
)
def test_check_dataset_names_what_is_broken(rows, message):
    with pytest.raises(AssertionError, match=message) as raised:
        check_dataset(of(rows))
    assert "\n" not in str(raised.value)


def test_observations_that_stand_still_are_told():
    """One row to an episode, so that no following row contradicts."""
    rows = changed(next_obs=ROWS.obs, episode=np.arange(180), truncated=np.ones(180, bool))
    with pytest.raises(AssertionError, match=r"next_obs: expected the observation after the step, came obs itself in 100% of the rows"):
        check_dataset(of(rows, env=None))


def test_other_dimensions_and_needless_options_are_told(tmp_path):
    with pytest.raises(AssertionError, match="expected obs_dim=4, came 3"):
        check_dataset(of(ROWS), EnvSpec(4, 1, torch.device("cpu")))
    with pytest.raises(AssertionError, match="expected none"):
        check_dataset(of(ROWS), env="Pendulum-v1")
    with pytest.raises(AssertionError, match="there is no file"):
        check_dataset(tmp_path / "missing.h5")
