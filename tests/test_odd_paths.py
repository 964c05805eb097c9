"""Paths that no file can have: each is refused with one sentence and status 2, and nothing is left behind."""

import shutil
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from odd_values import refusal_of

import mbkit
from mbkit import cli, recording
from mbkit.data import read, write
from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.dynamics.mbrl.convert import export_ensemble, import_ensemble, read_replay
from mbkit.export import export
from mbkit.recording.recorder import read_metrics
from mbkit.report import write_report
from mbkit.run import collect
from mbkit.run.fitting import fit_dynamics
from mbkit.run.replays import replay_of
from mbkit.theory import make_folder
from mbkit.types import EnvSpec, TaskKnowledge

LONG = "x" * 300  # longer than the 255 bytes of a file's name
DEEP = "d/" * 2100 + "d"  # longer than the 4096 bytes of a path
ODD = {"long": LONG, "deep": DEEP, "NUL": "a\0b", "two lines": "a\nb", "below a file": "data.h5/x"}
SMALL = ("threads=1", "steps=20", "loop.warmup_steps=10", "loop.batch_size=4", "eval.episodes=1", "eval.video=false", "agent.hidden=[4]")
LOOKED_UP = [
    "config dqn preset={}",
    "train dqn env={}",
    "train dqn preset={}",
    "train dqn preset={}.yaml",
    "train bc data={}",
    "train bc data={} env=none",
    "train ppo data={}",
    "train pets data={}",
    "train mbpo env=Pendulum-v1 steps=2 dynamics.load={}",
    "train kl_sac env=Pendulum-v1 steps=2 agent.prior={}",
    "resume {}",
    "resume offline steps=9 data={}",
    "finetune {}",
    "finetune {}@best",
    "finetune run data={}",
    "finetune offline env=CartPole-v1 data={}",
    "evaluate {}",
    "evaluate {} env_kwargs.g=1",
    "evaluate run --checkpoint {}",
    "evaluate {}@best --data data.h5",
    "evaluate run --data {}",
    "evaluate run --data data.h5 --method model --dynamics {}",
    "report {}",
    "report run {}",
    "export {} --out p.pt2",
    "data inspect {}",
    "data convert {} out.h5",
    "data collect {} --steps 5 --out out.h5",
    "data collect {} --replay --out out.h5",
    "dynamics fit {} --out m.pt",
]
WRITTEN = [
    "train random env=Pendulum-v1 steps=2 eval.video=false run_dir={}",
    "export run --out {}.pt2",
    "report run --out {}",
    "data convert data.h5 {}",
    "data convert data.h5 {} --to npz",
    "data convert data.h5 {} --to d4rl",
    "data convert data.h5 {} --to minari --id some/name-v0",
    "data collect random --env Pendulum-v1 --steps 5 --out {}",
    "dynamics fit data.h5 --out {}",
    "theory d1 --quick --out {}",
]
SPEC = EnvSpec(obs_dim=2, action_dim=1, device=torch.device("cpu"))
CALLS = {
    "load": mbkit.load,
    "load of a checkpoint": lambda path: mbkit.load("run", path),
    "resume": mbkit.resume,
    "resume with data": lambda path: mbkit.resume("run", data=path),
    "finetune": mbkit.finetune,
    "evaluate": mbkit.evaluate,
    "evaluate by data": lambda path: mbkit.evaluate("run", data=path),
    "evaluate by a model": lambda path: mbkit.evaluate("run", data="data.h5", method="model", dynamics=path),
    "export": lambda path: export(path, "p.pt2"),
    "write_report": lambda path: write_report([path]),
    "read": read,
    "replay_of": replay_of,
    "collect": lambda path: collect([path], 5),
    "fit_dynamics": fit_dynamics,
    "read_metrics": read_metrics,
    "Ensemble.load": lambda path: ensemble().load(path),
    "import_ensemble": lambda path: import_ensemble(path, SPEC),
    "read_replay": read_replay,
    "train with a task": lambda path: mbkit.train("dqn", env=path),
    "train with a preset": lambda path: mbkit.train("dqn", preset=path),
    "train with data": lambda path: mbkit.train("bc", data=path),
    "train with a model": lambda path: mbkit.train("mbpo", env="Pendulum-v1", steps=2, dynamics={"load": path}),
    "train with a prior": lambda path: mbkit.train("kl_sac", env="Pendulum-v1", steps=2, agent={"prior": path}),
}
WRITES = {
    "train": lambda path: mbkit.train("random", env="Pendulum-v1", steps=2, eval={"video": False}, run_dir=path),
    "export": lambda path: export("run", f"{path}.pt2"),
    "write_report": lambda path: write_report(["run"], path),
    "write": lambda path: write(read("data.h5"), path),
    "write npz": lambda path: write(read("data.h5"), path, "npz"),
    "write minari": lambda path: write(read("data.h5"), path, "minari", "some/name-v0"),
    "write minari of a long name": lambda path: write(read("data.h5"), "out", "minari", f"some/{path.replace('/', '-')}-v0"),
    "fit_dynamics": lambda path: fit_dynamics("data.h5", out=path),
    "Ensemble.save": lambda path: ensemble().save(path),
    "export_ensemble": lambda path: export_ensemble(ensemble(), path),
    "make_folder": lambda path: make_folder(Path(path)),
    "save_checkpoint": lambda path: recording.save_checkpoint(path, 1, {}),
    "write_json": lambda path: recording.write_json(path, {}),
}


@cache
def ensemble() -> Ensemble:
    """A small one."""
    return Ensemble(SPEC, EnsembleConfig(members=2, elites=2, hidden=(4,)), TaskKnowledge())


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run, `run`, a data set, `data.h5`, and a run on it, `offline`."""
    folder = tmp_path_factory.mktemp("things")
    mbkit.train("dqn", *SMALL, env="CartPole-v1", run_dir=folder / "run")
    data = write(collect(["random"], 50, "CartPole-v1"), folder / "data.h5")
    mbkit.train("ddqn_bc", "threads=1", "steps=3", "agent.hidden=[4]", data=data, env="none", run_dir=folder / "offline")
    return folder


@pytest.fixture
def before(things: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The content of the working directory, which is `things`."""
    monkeypatch.chdir(things)
    return content()


def content() -> dict[str, int]:
    """All files and directories below the working directory, with the sizes of the former."""
    return {str(path): path.stat().st_size if path.is_file() else 0 for path in Path().rglob("*")}


def check_sentence(told: str | None) -> None:
    """One line that shows no more of a name than needed."""
    assert told is not None
    assert told.isprintable()
    assert len(told) < 900
    assert "x" * 101 not in told


def refusal_of_command(monkeypatch, capsys, arguments: list[str]) -> str:
    """What a command that is refused tells on stderr."""
    monkeypatch.setattr(sys, "argv", ["mbkit", *arguments])
    with pytest.raises(SystemExit) as status:
        cli.main()
    told = capsys.readouterr()
    assert (status.value.code, told.out) == (2, "")
    assert told.err.startswith("mbkit: ")
    return told.err.removesuffix("\n")


@pytest.mark.parametrize("command", [*LOOKED_UP, *WRITTEN])
@pytest.mark.parametrize("name", ["long", "two lines", "below a file"])  # the others: in the calls of Python
def test_main_path_that_no_file_can_have_is_one_sentence(command, name, before, monkeypatch, capsys):
    if name == "two lines" and command in WRITTEN:
        return  # a file may have this name
    check_sentence(refusal_of_command(monkeypatch, capsys, [part.format(ODD[name]) for part in command.split()]))
    assert content() == before


@pytest.mark.parametrize("command", WRITTEN)
def test_main_long_name_in_absent_folders_makes_none_of_them(command, before, monkeypatch, capsys):
    check_sentence(refusal_of_command(monkeypatch, capsys, [part.format(f"absent/folder/{LONG}") for part in command.split()]))
    assert content() == before


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ["deep", "NUL"])
def test_call_with_a_path_that_no_file_can_have_is_refused(call, name, before):
    check_sentence(refusal_of(lambda: CALLS[call](ODD[name])))
    assert content() == before


@pytest.mark.parametrize("call", WRITES)
@pytest.mark.parametrize("name", ["deep", "NUL"])
def test_call_that_writes_to_a_path_that_no_file_can_have_is_refused(call, name, before):
    check_sentence(refusal_of(lambda: WRITES[call](ODD[name])))
    assert content() == before


@pytest.mark.parametrize("entry", ["env: {}", "preset: {}", "data: {}", "algo: {}", "continues: {}", "agent: {{prior: {}}}", "run_dir: {}"])
@pytest.mark.parametrize("name", [LONG, '"a\\0b"'])
def test_load_run_whose_configuration_holds_a_path_that_no_file_can_have_is_refused_or_loaded(entry, name, things, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.copytree(things / "run", tmp_path / "run"))
    file = run / "config.yaml"
    key, _, _ = entry.partition(":")
    lines = [line for line in file.read_text().splitlines() if not line.startswith(f"{key}:")]
    file.write_text("\n".join([*lines, entry.format(name), ""]))
    for attempt in (lambda: mbkit.load(run).close(), lambda: mbkit.resume(run, steps=1)):
        refusal_of(attempt)
