"""Runs on a data set: with and without an environment, killed and resumed, and everything that they refuse."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pendulum_data import pendulum
from recorded import columns, dataset
from resumption import check_killed

import mbkit
from mbkit import registry
from mbkit.data import write
from mbkit.errors import UserError
from mbkit.run import Run

SMALL = ("agent.hidden=[8]", "loop.batch_size=16", "loop.log_every=10", "threads=1", "eval.video=false")
OFFLINE = [entry.name for entry in registry.agents if entry.learns_from == ("dataset",)]
DISCRETE = ["ddqn_bc", "cql_discrete"]  # those that take discrete actions alone


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pendulum(tmp_path_factory.mktemp("data") / "pendulum.h5")


@pytest.fixture(scope="module")
def discrete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(dataset([9, 12, 30], choices=4), tmp_path_factory.mktemp("data") / "discrete.h5")


def train(algo: str, path: Path, folder: Path, *options: str) -> Run:
    return mbkit.train(algo, f"data={path}", f"run_dir={folder}", *SMALL, "eval.episodes=2", "eval.every=0", *options)


def test_a_run_takes_its_environment_from_the_file(file: Path, tmp_path: Path) -> None:
    run = train("td3_bc", file, tmp_path / "run", "steps=40", "eval.every=20")
    assert (run.config.env, run.loop.step, run.unit) == ("Pendulum-v1", 40, "update")
    summary = run.summary()
    assert summary["steps"] == 40
    assert summary["eval_return_mean"] is not None
    assert summary["data"]["rows"] == 100
    scores = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in scores if "eval/return" in line] == [20, 40]


def test_a_run_without_environment_is_not_scored_and_acts_in_native_units(file: Path, tmp_path: Path) -> None:
    run = mbkit.train("sac", f"data={file}", "env=none", f"run_dir={tmp_path / 'run'}", *SMALL[:-1], "steps=20")
    assert run.summary()["eval_return_mean"] is None
    loaded = mbkit.load(tmp_path / "run")
    obs = np.array([[0.1, 0.2, 0.3], [1, 2, 3]])
    action = loaded.act(obs)
    assert action.shape == (2, 1)
    np.testing.assert_allclose(action, 2 * loaded.agent.act(obs, explore=False).numpy(), rtol=1e-6)
    with pytest.raises(UserError, match="no environment"):
        mbkit.evaluate(tmp_path / "run")


def test_the_best_share_of_the_episodes(file: Path, tmp_path: Path) -> None:
    run = train("bc", file, tmp_path / "run", "steps=2", "data_top=0.5")
    rewards = run.parts.recorded.all().reward
    assert run.data is not None
    assert run.data.about["rows"] == len(rewards) == 50
    assert rewards.min() > -1  # episodes 2 and 3, whose rewards lie about 0 and 1


@pytest.mark.parametrize("at_once", [1, 7])
@pytest.mark.parametrize("algo", [*OFFLINE, "sac"])
def test_killed_and_resumed_is_uninterrupted(algo: str, at_once: int, file: Path, discrete: Path, tmp_path: Path) -> None:
    file = discrete if algo in DISCRETE else file
    options = ["steps=50", "checkpoint.every=10", f"loop.updates_at_once={at_once}", "env=none"]
    begin: Callable[[Path], Run] = lambda folder: mbkit.train(algo, f"data={file}", f"run_dir={folder}", *SMALL[:-1], *options)  # noqa: E731
    check_killed(tmp_path, begin)


def test_resume_refuses_another_file_and_takes_one_that_moved(tmp_path: Path) -> None:
    file = pendulum(tmp_path / "one.h5")
    run = train("td3_bc", file, tmp_path / "run", "steps=10")
    other = pendulum(tmp_path / "other.h5", episodes=5)
    file.rename(tmp_path / "moved.h5")
    with pytest.raises(UserError, match=r"there is no file .*one\.h5"):
        mbkit.resume(run.path, "steps=20")
    with pytest.raises(UserError, match=r"other\.h5 is not the data set of this run"):
        mbkit.resume(run.path, "steps=20", f"data={other}")
    other.rename(file)
    with pytest.raises(UserError, match=r"one\.h5 is not the data set of this run: expected sha256"):
        mbkit.resume(run.path, "steps=20")
    assert mbkit.resume(run.path, "steps=20", f"data={tmp_path / 'moved.h5'}").loop.step == 20
    mbkit.load(run.path).close()  # acting needs no data


REFUSED = {
    "iql without data": (["iql"], "iql learns from a fixed data set; data=FILE is missing"),
    "on-policy": (["ppo", "data={file}"], "data=.* has no meaning for ppo, which learns from trajectories of its policy"),
    "pets": (["pets", "data={file}"], "data=.* has no meaning for pets, .*`mbkit dynamics fit .*dynamics.load=dynamics.pt"),
    "random": (["random", "data={file}"], "data=.* has no meaning for random"),
    "another regime's option": (["sac", "data={file}", "loop.warmup_steps=3"], "loop.warmup_steps has no meaning for sac"),
    "online option of an offline agent": (["iql", "data={file}", "loop.num_envs=2"], "loop.num_envs has no meaning for iql"),
    "offline option online": (["sac", "env=Pendulum-v1", "loop.updates_at_once=2"], "loop.updates_at_once has no meaning for sac"),
    "share without data": (["sac", "env=Pendulum-v1", "data_top=0.5"], "data_top has no meaning here"),
    "share out of range": (["sac", "data={file}", "data_top=0"], "data_top=0.0 is out of range"),
    "no file": (["sac", "data=nowhere.h5"], "there is no file nowhere.h5"),
    "other observations": (["sac", "data={file}", "env=InvertedPendulum-v5"], "has 4 observations and 1 actions, but data=.* has 3 observ"),
    "other action box": (["sac", "data={narrow}", "env=Pendulum-v1"], r"env=Pendulum-v1 has actions in \[-2.0\] to \[2.0\], but data"),
    "discrete agent on boxes": (["dqn", "data={file}"], "dqn needs discrete actions"),
    "continuous agent on choices": (["td3", "data={discrete}"], "td3 needs continuous actions"),
    "offline agent on choices": (["td3_bc", "data={discrete}"], "td3_bc needs continuous actions"),
    "best without scores": (["sac", "data={file}", "env=none", "checkpoint.keep=best"], "checkpoint.keep=best needs scores"),
    "evaluation without environment": (["sac", "data={file}", "env=none", "eval.episodes=3"], "eval.episodes counts only where env!=none"),
    "rewards for cross-entropy": (
        ["cql_discrete", "data={discrete}", "agent.loss=cross_entropy"],
        r"agent.loss=cross_entropy needs rewards > 0, but the smallest of the data is 0; agent.reward_shift=0.1",
    ),
    "share of a log without rewards": (["bc", "data={mute}", "data_top=0.5"], "has no rewards"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused_and_nothing_written(case: str, file: Path, discrete: Path, tmp_path: Path) -> None:
    arguments, sentence = REFUSED[case]
    narrow, mute = pendulum(tmp_path / "narrow.h5", low=-1, high=1), write(dataset([3, 4], has_reward=False), tmp_path / "mute.h5")
    algo, *options = (text.format(file=file, discrete=discrete, narrow=narrow, mute=mute) for text in arguments)
    with pytest.raises(UserError, match=sentence):
        mbkit.train(algo, *options, f"run_dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


def test_columns_reach_the_agent_scaled_and_whole(discrete: Path, tmp_path: Path) -> None:
    run = mbkit.train("dqn", f"data={discrete}", f"run_dir={tmp_path / 'run'}", *SMALL[:-1], "steps=5")
    rows, expected = run.parts.recorded.all(), columns([9, 12, 30], choices=4)
    assert rows.action.tolist() == (expected.action - 3).tolist()
    assert run.config.env == "none"
    action = mbkit.load(tmp_path / "run").act(expected.obs)
    assert set(np.unique(action)) <= {3, 4, 5, 6}
