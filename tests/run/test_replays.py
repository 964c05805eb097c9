"""A run's replay as a data set is what the run stored, in the order in which it happened."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mbkit
from mbkit.data import read, write
from mbkit.errors import UserError
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.run.replays import episodes_of, replay_of
from mbkit.types import EnvSpec

QUICK = ["threads=1", "eval.episodes=1", "eval.video=false", "agent.hidden=[8]", "loop.batch_size=8"]
SPEC = EnvSpec(1, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A SAC on two pendulums, whose replay has lost its first rows; checkpoints at 200, 400 and 520."""
    path = tmp_path_factory.mktemp("runs") / "sac@home"
    options = ["env=Pendulum-v1", "steps=520", "loop.num_envs=2", "loop.warmup_steps=100", "loop.buffer_size=450"]
    options += ["eval.every=200", "checkpoint.every=200", "checkpoint.keep=all", "env_kwargs.max_episode_steps=70"]
    trained = mbkit.train("sac", *QUICK, *options, f"run_dir={path}")
    return path, trained.parts.store


def test_replay_is_what_the_run_stored(run, tmp_path):
    path, replay = run
    data = read(path)
    rows, batch = data.columns(), replay.all()
    column = replay.origin[replay.order(), 0]
    for i in range(2):  # each environment's rows are consecutive episodes
        part = np.concatenate([np.flatnonzero(rows.episode == e) for e in range(data.episodes) if in_column(rows, e, batch, column) == i])
        stored = column == i
        assert np.array_equal(rows.obs[part], batch.obs[stored])
        assert np.array_equal(rows.next_obs[part], batch.next_obs[stored])
        assert np.array_equal(rows.reward[part], batch.reward[stored])
        assert np.array_equal(data.scaled(rows.action)[part], batch.action[stored])
    assert (data.format, data.env, data.env_kwargs, data.rows) == ("run", "Pendulum-v1", {"max_episode_steps": 70}, 450)
    assert np.array_equal(data.box, [[-2], [2]])
    assert rows.obs.dtype == rows.reward.dtype == rows.action.dtype == np.float32
    lengths = [35, 35, 70, 70, 70, 70, 50, 50]  # 35 rows of both first episodes were overwritten, and the last ones were running
    assert data.lengths.tolist() == lengths
    assert rows.truncated.sum() == 6
    assert not rows.terminated.any()
    assert (data.source["unflagged_ends"], data.source["lost_beginnings"], data.source["step"]) == (2, 2, 520)
    assert any("float32" in note for note in data.notes)
    assert read(write(data, tmp_path / "replay.h5")).sha256 == data.sha256


def in_column(rows, episode, batch, column):
    """The environment of an episode, by its first observation."""
    first = rows.obs[rows.episode == episode][0]
    return int(column[(batch.obs == torch.from_numpy(first)).all(1)][0])


def test_replay_of_a_named_checkpoint(run):
    path, _ = run
    data = read(f"{path}@200")
    assert (data.rows, data.source["step"], str(data.path)) == (200, 200, f"{path}@200")
    assert data.source["lost_beginnings"] == 0
    assert read(f"{path}@best").source["step"] in (200, 400, 520)
    with pytest.raises(UserError, match=r"checkpoint=7: .* holds no checkpoint of that step; stored steps: 0, 200, 400, 520"):
        read(f"{path}@7")
    with pytest.raises(UserError, match="expected last, best or a stored step"):
        read(f"{path}@first")
    with pytest.raises(UserError, match="the replay of this checkpoint is empty"):
        read(f"{path}@0")


def test_replay_fills_a_buffer_again(run):
    path, _ = run
    data = read(path)
    replay = data.buffer(data.spec())
    assert len(replay) == 450
    assert int((replay.link[:-1] < 450).sum()) == 450 - data.episodes


def test_replay_of_discrete_actions(tmp_path):
    trained = mbkit.train(
        "dqn", *QUICK, "env=CartPole-v1", "steps=60", "loop.num_envs=1", "loop.warmup_steps=20", f"run_dir={tmp_path / 'run'}"
    )
    data = read(tmp_path / "run")
    rows, batch = data.columns(), trained.parts.store.all()
    assert (data.choices, data.start) == (2, 0)
    assert np.array_equal(rows.action, batch.action)
    assert np.array_equal(rows.terminated, batch.discount == 0)
    assert np.array_equal(rows.obs, batch.obs)


def test_run_without_a_replay_is_refused(tmp_path):
    options = ["env=Pendulum-v1", "steps=64", "loop.num_envs=1", "loop.rollout_steps=32", f"run_dir={tmp_path / 'run'}"]
    mbkit.train("ppo", *(option for option in QUICK if "batch" not in option), *options)
    with pytest.raises(UserError, match="holds no replay: ppo stores no transitions"):
        read(tmp_path / "run")


def test_run_without_a_checkpoint_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("algo: sac\nenv: Pendulum-v1\n")
    with pytest.raises(UserError, match="holds no checkpoint"):
        read(tmp_path)


@settings(max_examples=50)
@given(data=st.data(), capacity=st.integers(2, 12), columns=st.integers(1, 3))
def test_episodes_are_those_that_the_links_tell(data, capacity, columns):
    """Against a walk along each row: same column, nothing ended or cut between."""
    capacity = max(capacity, columns)
    buffer, alive, label, labels = ReplayBuffer(capacity, SPEC), list(range(columns)), columns, {}
    for step in range(data.draw(st.integers(1, 12))):
        ended = [data.draw(st.booleans()) for _ in range(columns)]
        number = torch.tensor([[float(step * columns + i)] for i in range(columns)])
        flags = torch.zeros(columns, dtype=torch.bool), torch.tensor(ended)
        mask = torch.tensor([data.draw(st.integers(0, 4)) > 0 for _ in range(columns)])
        buffer.extend(Experience(number, number * 0, number[:, 0], number, *flags), mask)
        for i in range(columns):
            if mask[i]:
                labels[step * columns + i] = alive[i]
            if ended[i] or not mask[i]:
                alive[i], label = label, label + 1
    if not len(buffer):
        return
    positions, episode, begun = episodes_of(buffer)
    numbers = buffer.rows_at(positions).reward.long().tolist()
    assert sorted(numbers) == sorted(labels)[-capacity:]
    groups = [[n for n, e in zip(numbers, episode, strict=True) if e == k] for k in range(int(episode[-1]) + 1)]
    stored = sorted(labels)[-capacity:]
    wanted = {}
    for n in stored:
        wanted.setdefault(labels[n], []).append(n)
    assert groups == sorted(wanted.values())
    assert begun == sum(any(labels[n] == label and n not in stored for n in labels) for label in wanted)


def test_run_on_an_object_needs_it_again(tmp_path):
    import gymnasium
    from gymnasium.envs.classic_control import PendulumEnv

    class Local(PendulumEnv):
        """A task without an import path."""

    gymnasium_task = lambda: gymnasium.wrappers.TimeLimit(Local(), 20)  # noqa: E731
    run = mbkit.train("sac", *QUICK, "steps=30", "loop.warmup_steps=10", f"run_dir={tmp_path / 'run'}", env=gymnasium_task)
    with pytest.raises(UserError, match="Python object without an import path"):
        read(tmp_path / "run")
    data = replay_of(tmp_path / "run", env=gymnasium_task)
    assert np.array_equal(data.columns().obs, run.parts.store.all().obs)
