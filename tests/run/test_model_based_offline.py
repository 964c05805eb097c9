"""Whole runs of MOPO, MOReL, COMBO, RAMBO and MOBILE: killed and resumed, with one file of a model for all, and its terminations."""

import hashlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from model_based_offline import EPISODES, MODEL, MOREL_SAC, ROLLOUTS, SCORED, SMALL, random_steps, train
from resumption import check_killed
from typer.testing import CliRunner

import mbkit
from mbkit import cli
from mbkit.data import Columns, Dataset, read, write
from mbkit.dynamics import files
from mbkit.errors import UserError
from mbkit.run import Run
from mbkit.run.fitting import fit_dynamics


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_steps(tmp_path_factory.mktemp("data") / "random.h5")


@pytest.fixture(scope="module")
def file(data: Path) -> Path:
    fit_dynamics(data, *MODEL, out=data.parent / "dynamics.pt")
    return data.parent / "dynamics.pt"


# ------------------------------------------------------------------------------------------------------------- killed and resumed
KILLED: dict[str, tuple[str, ...]] = {
    "mopo": SMALL["mopo"],
    "mopo of td3_bc": (*ROLLOUTS, "agent=td3_bc", "agent.hidden=[8]"),
    "morel": (*EPISODES, "imagination.bc_updates=0"),
    "morel cloned before": (*EPISODES, "imagination.bc_updates=12"),
    "morel inside cloning": (*EPISODES, "imagination.bc_updates=30"),
    "morel of sac": (*MOREL_SAC, "imagination.bc_updates=12"),
    "combo": SMALL["combo"],
    "combo pushing the model's states": (*SMALL["combo"], "agent.push_down=model"),
    "rambo": SMALL["rambo"],
    "rambo inside cloning": (*SMALL["rambo"], "imagination.bc_updates=25"),
    "mobile": SMALL["mobile"],
    "mve": ("agent=td3_bc", "agent.hidden=[8]", "imagination.horizon=2"),
}


STRIDES = [(case, at_once) for case in KILLED for at_once in ((1, 7) if case in SMALL else (7,))]


@pytest.mark.parametrize(("case", "at_once"), STRIDES)
def test_killed_and_resumed_is_uninterrupted(case: str, at_once: int, data: Path, tmp_path: Path) -> None:
    options = [*MODEL, *KILLED[case], "steps=40", "checkpoint.every=10", f"loop.updates_at_once={at_once}"]
    run = check_killed(tmp_path, lambda folder: train(case.split()[0], data, folder, *options))
    assert run.loop.step == 40


def test_a_run_is_loaded_and_acts_without_its_data(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.h5"
    copy.write_bytes(data.read_bytes())
    for algo, options in SMALL.items():
        run = train(algo, copy, tmp_path / algo, *MODEL, *options, "steps=4")
        obs = torch.randn(3, 4)
        expected = run.agent.act(obs, explore=False)
        copy.rename(tmp_path / "moved.h5")
        with mbkit.load(tmp_path / algo) as loaded:
            assert torch.equal(loaded.agent.act(obs, explore=False), expected)
        (tmp_path / "moved.h5").rename(copy)


# ------------------------------------------------------------------------------------------------------------ one file of a model
PLANS = ("planner.candidates=8", "planner.elites=2", "planner.iterations=1", "agent.horizon=2", "agent.particles=2")
ONLINE = (*SCORED, "env=InvertedPendulum-v5", "threads=1", "steps=6", "loop.fit=false", "loop.warmup_steps=4")
AGENT = ("agent.hidden=[8]", "loop.batch_size=8")


def consumer(algo: str, data: Path | None, file: Path, folder: Path, *options: str) -> Run:
    """A run with the model in `file`, of which nothing else is said."""
    load = f"dynamics.load={file}"
    if algo in SMALL:
        return train(algo, data, folder, load, *SMALL[algo], "steps=6", *options)
    special = {"pets": PLANS, "mbpo": (*AGENT, "imagination.memory_gb=0.01"), "mve": (*AGENT, "imagination.horizon=1")}[algo]
    return mbkit.train(algo, load, f"run_dir={folder}", *ONLINE, *special, *options)


CONSUMERS = ["pets", "mbpo", "mve", *SMALL]


@pytest.mark.parametrize("algo", CONSUMERS)
def test_one_file_of_a_model_serves_every_consumer(algo: str, data: Path, file: Path, tmp_path: Path) -> None:
    before, content = hashlib.sha256(file.read_bytes()).hexdigest(), files.read(file)
    run = consumer(algo, data, file, tmp_path / "run")
    model = run.parts.dynamics
    assert run.loop.step == 6
    assert torch.equal(model.network.elites, content["state"]["elites"])
    weights = list(model.network.net.weight[:-1])  # the last layer may have learned a reward that this consumer knows
    assert all(torch.equal(w, content["state"][f"net.weight.{n}"]) for n, w in enumerate(weights))
    assert model.fitted == content["fitted"]  # nobody fitted it again
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before


def relabelled(path: Path, env: str, **content: object) -> Path:
    """A file of the same model whose task is called `env`."""
    from mbkit.storage import write_tensors

    whole = files.read(path)
    write_tensors(path.parent / "other.pt", files.FORMAT, {**whole, "meta": {**whole["meta"], "env": env}, **content})
    return path.parent / "other.pt"


@pytest.mark.parametrize("algo", CONSUMERS)
def test_a_file_of_another_task_is_refused_by_every_consumer(algo: str, data: Path, file: Path, tmp_path: Path) -> None:
    other = relabelled(file, "Swinging-v3")
    with pytest.raises(UserError, match=r"other\.pt' does not fit: it is a model of Swinging-v3, and this run is on Invert") as caught:
        consumer(algo, data, other, tmp_path / "run")
    assert "\n" not in str(caught.value)
    wide = relabelled(file, "InvertedPendulum-v4", fits={**files.read(file)["fits"], "observation dimensions": 7})
    with pytest.raises(UserError, match=r"other\.pt' does not fit: observation dimensions must be 4, the file has 7") as caught:
        consumer(algo, data, wide, tmp_path / "run")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"nowhere\.pt' does not exist"):
        consumer(algo, data, tmp_path / "nowhere.pt", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_versions_and_registrations_of_a_task_are_the_same(data: Path, file: Path, tmp_path: Path) -> None:
    for name in ("InvertedPendulum-v4", "mine/InvertedPendulum-v5", "pkg.mod:InvertedPendulum-v5", "none"):
        assert consumer("mopo", data, relabelled(file, name), tmp_path / name.replace("/", "-")).loop.step == 6


def test_options_of_a_fit_mean_nothing_beside_a_file(data: Path, file: Path, tmp_path: Path) -> None:
    for option in ("dynamics.lr=1e-3", "dynamics.hidden=[9]", "dynamics.max_epochs=3"):
        with pytest.raises(UserError, match=r"has no meaning here: .* counts only where (loop\.fit=true|dynamics\.load=null)"):
            consumer("mopo", data, file, tmp_path / "run", option)
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------------------------- terminations
def drifting(path: Path, stand_in: str = "", env: str | None = "InvertedPendulum-v5") -> Path:
    """Random numbers in the dimensions of InvertedPendulum-v5; an episode of 10 rows ends when its last angle is set to 1.

    stand_in: what stands at terminal ends for the successor, "zeros" or "next"; else it is the true one.
    """
    draw, rows = np.random.default_rng(0), 200
    episode = np.repeat(np.arange(20), 10)
    last = np.append(np.diff(episode), 1).astype(bool)
    obs = draw.normal(size=(rows, 4)) / 20
    following = np.where(last[:, None], [0.0, 1.0, 0.0, 0.0], np.roll(obs, -1, 0))
    if stand_in:
        following = np.where(last[:, None], np.roll(obs, -1, 0) if stand_in == "next" else 0.0, following)
    reward = 1.0 - last  # as the environment has it
    columns = Columns(obs, draw.uniform(-3, 3, (rows, 1)), reward, following, last, np.zeros(rows, bool), episode)
    return write(Dataset.of(columns, env=env, action_low=[-3], action_high=[3]), path)


def noted(run: Run, text: str) -> bool:
    return any(text in note for note in run.summary()["notes"])


def test_known_terminations_are_compared_with_the_recorded_ones(tmp_path: Path) -> None:
    run = train("mopo", drifting(tmp_path / "data.h5"), tmp_path / "run", *MODEL, *ROLLOUTS)
    assert noted(run, "Termination function on the data: recall 1.000, precision 1.000 on 20 recorded terminations.")
    assert not noted(run, "without a true successor")


@pytest.mark.parametrize("stand_in", ["zeros", "next"])
def test_stand_ins_for_successors_are_counted_left_out_and_remain_labels(stand_in: str, tmp_path: Path) -> None:
    """Where all ends are such, none is left for the known function to explain, and the run is not refused."""
    path = drifting(tmp_path / "data.h5", stand_in)
    run = train("mopo", path, tmp_path / "run", *MODEL, *ROLLOUTS)
    assert noted(run, "Terminal rows without a true successor")
    assert noted(run, "leaves out: 20.")
    assert not noted(run, "Termination function on the data")
    assert run.parts.dynamics.fitted["rows"] == 180
    learned = train("mopo", path, tmp_path / "learned", *MODEL, *ROLLOUTS, "dynamics.termination=learned")
    assert learned.parts.dynamics.fitted["rows"] == 180
    assert learned.parts.dynamics.network.learns_termination


def test_rambo_does_not_meet_stand_ins_either(tmp_path: Path) -> None:
    run = train("rambo", drifting(tmp_path / "data.h5", "zeros"), tmp_path / "run", *MODEL, *SMALL["rambo"])
    known = run.parts.stateful["adversary"].known
    assert known.tolist() == [row % 10 != 9 for row in range(200)]
    plain = train("rambo", drifting(tmp_path / "plain.h5"), tmp_path / "other", *MODEL, *SMALL["rambo"])
    assert plain.parts.stateful["adversary"].known is None


def fell(obs: torch.Tensor, action: torch.Tensor, next_obs: torch.Tensor) -> torch.Tensor:
    """A termination function of a user's: the angle is beyond 0.9."""
    return next_obs[..., 1] > 0.9


@pytest.mark.parametrize("algo", SMALL)
def test_terminations_that_are_not_explained_are_refused(algo: str, tmp_path: Path) -> None:
    path = drifting(tmp_path / "data.h5", env=None)
    with pytest.raises(UserError, match=r"data=data\.h5: 20 of its rows end an episode, .*dynamics\.termination=learned, never") as caught:
        train(algo, path, tmp_path / "run", "env=none", *MODEL, *SMALL[algo])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_known_function_that_misses_terminations_is_refused(tmp_path: Path) -> None:
    """One episode in ten of InvertedPendulum-v5 ends without a fall."""
    whole = read(drifting(tmp_path / "data.h5")).columns()
    next_obs = whole.next_obs.copy()
    next_obs[[9, 109]] = 0.1
    path = write(
        Dataset.of(whole._replace(next_obs=next_obs), env="InvertedPendulum-v5", action_low=[-3], action_high=[3]), tmp_path / "odd.h5"
    )
    with pytest.raises(UserError, match=r"data=odd\.h5: the known termination function does not .*recall 0\.900, precision 1\.000 on 20"):
        train("mopo", path, tmp_path / "run", *MODEL, *ROLLOUTS)
    assert not (tmp_path / "run").exists()


def test_a_known_reward_that_is_not_the_recorded_one_is_refused(tmp_path: Path) -> None:
    whole = read(drifting(tmp_path / "data.h5")).columns()
    facts = {"env": "InvertedPendulum-v5", "action_low": [-3], "action_high": [3]}
    path = write(Dataset.of(whole._replace(reward=whole.reward - 0.1), **facts), tmp_path / "less.h5")
    sentence = r"data=less\.h5: the known reward function does not give its rewards \(root mean squares: error 0\.1, rewards 0\.85[0-9]\)"
    for algo in SMALL:
        with pytest.raises(UserError, match=sentence) as caught:
            train(algo, path, tmp_path / "run", *MODEL, *SMALL[algo])
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
    assert train("mopo", path, tmp_path / "learned", *MODEL, *ROLLOUTS, "dynamics.reward=learned").parts.dynamics.task.reward is None
    reward: Callable[..., torch.Tensor] = lambda obs, action, next_obs: torch.full((len(obs),), 7.0)  # noqa: E731
    assert train("mopo", path, tmp_path / "own", *MODEL, *ROLLOUTS, reward=reward).loop.step == 20  # the user's word counts
    nearly = write(Dataset.of(whole._replace(reward=whole.reward + 0.01), **facts), tmp_path / "nearly.h5")
    assert train("mopo", nearly, tmp_path / "nearly", *MODEL, *ROLLOUTS).loop.step == 20


WAYS_OUT: dict[str, Callable[[], dict[str, object]]] = {
    "learned": lambda: {"dynamics": {"termination": "learned"}},
    "never": lambda: {"dynamics": {"termination": "never"}},
    "pkg.mod:fn": lambda: {"dynamics": {"termination": "user_terminations:fell"}},
    "an object": lambda: {"termination": lambda obs, action, next_obs: next_obs[..., 1] > 0.9},
}


@pytest.mark.parametrize("way", WAYS_OUT)
def test_ways_out_of_terminations_that_nothing_explains(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "user_terminations.py").write_text("def fell(obs, action, next_obs):\n    return next_obs[..., 1] > 0.9\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "user_terminations", raising=False)
    path = drifting(tmp_path / "data.h5", env=None)
    run = train("mopo", path, tmp_path / "run", "env=none", *MODEL, *ROLLOUTS, **WAYS_OUT[way]())
    model, explained = run.parts.dynamics, "recall 1.000, precision 1.000 on 20 recorded terminations"
    assert noted(run, explained) == (way in ("pkg.mod:fn", "an object"))
    assert model.network.learns_termination == (way == "learned")
    assert (model.task.termination is None) == (way in ("learned", "never"))


# ------------------------------------------------------------------------------------------------------ termination of a file
def test_the_termination_of_a_file_counts_unless_the_user_names_another(tmp_path: Path) -> None:
    path, file = drifting(tmp_path / "data.h5"), tmp_path / "never.pt"
    fit_dynamics(path, *MODEL, "dynamics.termination=never", out=file)
    load = f"dynamics.load={file}"
    run = train("mopo", path, tmp_path / "file", load, *ROLLOUTS)
    assert run.parts.dynamics.task.termination is None
    assert run.config.dynamics.config.termination == "never"
    run = train("mopo", path, tmp_path / "own", load, *ROLLOUTS, termination=fell)
    assert torch.equal(run.parts.dynamics.task.termination(*torch.ones(3, 2, 4)), torch.ones(2, dtype=torch.bool))
    with pytest.raises(UserError, match=r"never\.pt' does not fit: termination must be learned, the file has known"):
        train("mopo", path, tmp_path / "no", load, *ROLLOUTS, "dynamics.termination=learned")
    fit_dynamics(path, *MODEL, "dynamics.termination=learned", out=tmp_path / "learned.pt")
    run = train("mopo", path, tmp_path / "learned", f"dynamics.load={tmp_path / 'learned.pt'}", *ROLLOUTS)
    assert run.parts.dynamics.network.learns_termination


def test_a_termination_that_a_file_names_is_imported_from_the_python_path_alone_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "user_falls.py").write_text("def fell(obs, action, next_obs):\n    return next_obs[..., 1] > 0.9\n")
    path, file = drifting(tmp_path / "data.h5"), tmp_path / "mine.pt"
    monkeypatch.syspath_prepend(str(folder))
    fit_dynamics(path, *MODEL, "dynamics.termination=user_falls:fell", out=file)
    with caplog.at_level(logging.WARNING, logger="mbkit"):
        run = train("mopo", path, tmp_path / "run", f"dynamics.load={file}", *ROLLOUTS)
    assert f"{file} names code: module 'user_falls' is imported for dynamics.termination=user_falls:fell" in caplog.text
    assert run.config.dynamics.config.termination == "user_falls:fell"


def test_a_termination_without_an_import_path_is_asked_for_again(tmp_path: Path) -> None:
    path = drifting(tmp_path / "data.h5")
    train("mopo", path, tmp_path / "run", *MODEL, *ROLLOUTS, termination=lambda obs, action, next_obs: next_obs[..., 1] > 0.9)
    load = f"dynamics.load={tmp_path / 'run' / 'dynamics.pt'}"
    with pytest.raises(UserError, match=r"dynamics\.pt' is of a model whose termination is the Python object <lambda>; expected it again"):
        train("mopo", path, tmp_path / "no", load, *ROLLOUTS)
    assert not (tmp_path / "no").exists()
    run = train("mopo", path, tmp_path / "again", load, *ROLLOUTS, termination=lambda obs, action, next_obs: next_obs[..., 1] > 0.8)
    assert run.parts.dynamics.task.termination is not None


# ---------------------------------------------------------------------------------------------------------------- command line
@pytest.mark.parametrize(
    ("algo", "options", "sentence"),
    [
        (
            "mopo",
            ["dynamics.members=1", "dynamics.elites=1", "imagination.measure=disagreement"],
            "imagination.measure=disagreement cannot",
        ),
        ("mobile", ["dynamics.elites=1"], "imagination.penalty of mobile compares elites"),
        ("morel", ["imagination.coefficient=1e-9"], "imagination.coefficient=1e-09 halts every rollout at its first step"),
        ("combo", ["imagination.real_ratio=0"], "imagination.real_ratio=0 of loop.batch_size=20 rows leaves no recorded one"),
        ("mopo", ["imagination.penalty=-1"], "imagination.penalty"),
        ("mopo", ["imagination.measure=none", "imagination.penalty=1"], "imagination.penalty counts only where imagination.measure!=none"),
        ("rambo", ["imagination.adversary_lr=0"], "imagination.adversary_lr"),
    ],
)
def test_a_mistake_ends_with_status_2_and_one_line(algo: str, options: list[str], sentence: str, data: Path, tmp_path: Path) -> None:
    arguments = [
        *MODEL,
        *SMALL[algo],
        *SCORED,
        "agent.hidden=[8]",
        "loop.batch_size=20",
        "steps=4",
        f"run_dir={tmp_path / 'run'}",
        *options,
    ]
    result = CliRunner().invoke(cli.app, ["train", algo, f"data={data}", *arguments])
    assert isinstance(result.exception, UserError | SystemExit)
    if isinstance(result.exception, SystemExit):
        assert result.exit_code == 2
    assert sentence in f"{result.exception} {result.output}"
    assert not (tmp_path / "run").exists()
