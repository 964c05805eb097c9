"""Rows of a vector environment in every autoreset mode against stepping one environment by hand."""

import gymnasium
import torch
from gym_toys import StepCounter
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mbkit.envs
from mbkit.envs.environment import Environment, single


def counters(m: int, dictionary: bool) -> list[gymnasium.Env]:
    return [StepCounter(i, length=2 + i, dictionary=dictionary) for i in range(m)]


def vectorised(m: int, mode: AutoresetMode, dictionary: bool = False) -> Environment:
    return mbkit.envs.wrap(SyncVectorEnv([lambda env=env: env for env in counters(m, dictionary)], autoreset_mode=mode))


def policy(obs: Tensor) -> Tensor:
    """Actions that depend on the whole observation, so that a wrong `obs` changes the rows."""
    return torch.sin(obs.sum(1, keepdim=True))


def rows_of(environment: Environment, steps: int) -> list[list[list[float]]]:
    """Valid rows of each environment, in order: obs, action, reward, next_obs, terminated, truncated."""
    obs = environment.reset()
    rows: list[list[list[float]]] = [[] for _ in range(environment.num_envs)]
    for _ in range(steps):
        action = policy(obs)
        out = environment.step(action)
        table = torch.cat([obs, action, out.reward[:, None], out.next_obs, out.terminated[:, None], out.truncated[:, None]], 1)
        for i, row in enumerate(table.tolist()):
            if environment.valid[i]:
                rows[i].append(row)
        obs = out.obs
        assert environment.obs is obs
    return rows


def brute_force(env: gymnasium.Env, seed: int, steps: int) -> list[list[float]]:
    """The rows of one environment that is stepped and reset here."""
    rows, obs = [], None
    for _ in range(steps):
        if obs is None:
            obs, seed = torch.tensor(env.reset(seed=seed)[0], dtype=torch.float32), None
        action = policy(obs[None])[0]
        raw, reward, terminated, truncated, _ = env.step(action.numpy())
        successor = torch.tensor(raw, dtype=torch.float32)
        rows.append([*obs.tolist(), *action.tolist(), reward, *successor.tolist(), terminated, truncated and not terminated])
        obs = None if terminated or truncated else successor
    return rows


@settings(max_examples=20, deadline=None)
@given(m=st.integers(1, 4), steps=st.integers(1, 25), dictionary=st.booleans())
def test_vector_rows_every_autoreset_mode_equals_stepping_by_hand(m: int, steps: int, dictionary: bool) -> None:
    expected = rows_of(single("counter", counters(m, dictionary), 0), steps)
    if not dictionary:
        assert expected == [brute_force(env, i, steps) for i, env in enumerate(counters(m, False))]
    assert rows_of(vectorised(m, AutoresetMode.SAME_STEP, dictionary), steps) == expected
    assert rows_of(vectorised(m, AutoresetMode.DISABLED, dictionary), steps) == expected
    later = rows_of(vectorised(m, AutoresetMode.NEXT_STEP, dictionary), 2 * steps)
    assert [rows[:steps] for rows in later] == expected


def test_vector_rows_next_step_reset_row_is_invalid_with_the_reset_observation() -> None:
    environment = vectorised(1, AutoresetMode.NEXT_STEP)
    environment.reset()
    ended = [environment.step(torch.zeros(1, 1)) for _ in range(3)][-1]
    assert ended.terminated.item()
    out = environment.step(torch.zeros(1, 1))
    assert not environment.valid.item()
    assert out.obs[0, :2].tolist() == [2, 0]
    environment.step(torch.zeros(1, 1))
    assert environment.valid.item()


def test_vector_rows_environments_in_other_processes_yield_the_same_rows() -> None:
    make = [lambda i=i: StepCounter(i, length=2 + i) for i in range(2)]
    environment = mbkit.envs.wrap(AsyncVectorEnv(make, autoreset_mode=AutoresetMode.SAME_STEP))
    assert rows_of(environment, 9) == rows_of(single("counter", counters(2, False), 0), 9)
    assert "_state" in (environment.restart_reason or "") or "cannot be saved" in (environment.restart_reason or "")
    environment.close()
