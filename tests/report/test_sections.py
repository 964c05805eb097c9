"""Every metric and diagnostic that the report reads is logged by some training, as real and small trainings show."""

import json
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pendulum_data import pendulum
from run_directories import add_diagnostics, add_learner, make_run

import mbkit
from mbkit.config import check_actions, compose
from mbkit.report.chapters import Figures, draw_sections, model_numbers
from mbkit.report.collect import Group, RunRecord, Series, group_runs, read_run
from mbkit.report.command import full_command
from mbkit.report.plots import Curves
from mbkit.report.sections import SECTIONS, metrics_read

COMMON = ("threads=1", "eval.episodes=2", "eval.video=false", "checkpoint.every=0", "loop.log_every=10")
MODEL = ("dynamics.hidden=[8]", "dynamics.members=3", "dynamics.elites=2", "dynamics.max_epochs=2")
PLANNER = ("planner.candidates=6", "planner.iterations=1", "planner.elites=2", "agent.horizon=3", "agent.particles=3")
REPLAY = ("agent.hidden=[8]", "loop.batch_size=8", "loop.updates_per_step=1", "steps=35", "loop.warmup_steps=30")
ROLLOUT = ("env=CartPole-v1", "agent.hidden=[8]", "steps=128", "loop.num_envs=1", "loop.rollout_steps=64")
TRAININGS = {
    "pets": (*MODEL, *PLANNER, "env=cartpole", "env_kwargs.max_episode_steps=35", "steps=72", "loop.warmup_steps=35", "eval.every=70"),
    "mbpo": (*MODEL, *REPLAY, "env=InvertedPendulum-v5"),
    "mve": (*MODEL, *REPLAY, "env=InvertedPendulum-v5"),
    "svg": (*MODEL, *REPLAY, "env=InvertedPendulum-v5", "imagination.spread=2"),
    "sac": (*REPLAY, "env=InvertedPendulum-v5"),
    "kl_sac": (*REPLAY, "env=InvertedPendulum-v5"),
    "dqn": (*REPLAY, "env=CartPole-v1"),
    "soft_q": (*REPLAY, "env=CartPole-v1"),
    "ppo": (*ROLLOUT, "agent.kl_target=0.01", "agent.epochs=1"),
    "iql": ("data={data}", "agent.hidden=[8]", "loop.batch_size=8", "steps=30"),
    **dict.fromkeys(("trpo", "npg", "vtrace", "retrace", "reinforce"), ROLLOUT),
}


class Reads(dict[str, Any]):
    """A dictionary, nested ones included, that notes the keys by which it is read, "calibration.nominal"."""

    def __init__(self, data: dict[str, Any], keys: set[str], prefix: str = "") -> None:
        super().__init__({k: Reads(v, keys, f"{prefix}{k}.") if isinstance(v, dict) else v for k, v in data.items()})
        self.keys_read, self.prefix = keys, prefix

    def get(self, key: str, default: Any = None) -> Any:
        self.keys_read.add(f"{self.prefix}{key}")
        return super().get(key, default)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunRecord]:
    """Small trainings, by their algorithm."""
    folder = tmp_path_factory.mktemp("runs")
    data = pendulum(folder / "pendulum.h5")
    for algo, options in TRAININGS.items():
        mbkit.train(algo, *COMMON, *(option.format(data=data) for option in options), f"run_dir={folder / algo}")
    return {algo: read_run(folder / algo) for algo in TRAININGS}


class Drawn(NamedTuple):
    """Titles of the figures of each training, and all metrics that were read to draw them."""

    titles: dict[str, set[str]]
    keys: set[str]


@pytest.fixture(scope="module")
def drawn(runs: dict[str, RunRecord]) -> Drawn:
    """The figures of the trainings."""
    keys, series = set[str](), RunRecord.series

    def noting_series(run: RunRecord, *names: str) -> Series:
        keys.update(names)
        return series(run, *names)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunRecord, "series", noting_series)
        figures = {algo: draw_sections([Group(algo, [run])]).values() for algo, run in runs.items()}
    return Drawn({algo: {title for section in sections for title in titles(section)} for algo, sections in figures.items()}, keys)


def titles(section: Figures) -> set[str]:
    """Titles of a section's figures, and of the numbers in their place where a training logged a single point."""
    return {plot.title for plot in section.plots} | {name.split(", ")[0] for name, _ in section.numbers}


def logged(runs: dict[str, RunRecord]) -> set[str]:
    """Names of all metrics of the runs."""
    return {key for run in runs.values() for row in run.rows for key in row}


def diagnosed(run: RunRecord) -> set[str]:
    """Names of all diagnostics of a run, "calibration.nominal"."""
    return {f"{section}.{name}" for section, values in run.diagnostics.items() for name in values}


def test_metrics_read_are_logged_by_some_training(runs: dict[str, RunRecord]) -> None:
    assert metrics_read() <= logged(runs)


def test_metrics_read_names_all_that_the_figures_read(drawn: Drawn) -> None:
    members = {key for key in drawn.keys if key.startswith("model/holdout_error/")}
    assert drawn.keys - members | {"model/holdout_error/0"} == metrics_read()
    assert members == {f"model/holdout_error/{member}" for member in range(3)}


def test_sections_read_diagnostics_that_a_training_wrote(runs: dict[str, RunRecord]) -> None:
    run, keys = runs["pets"], set[str]()
    written = diagnosed(run)
    groups = [Group("pets", [RunRecord(**{**vars(run), "diagnostics": Reads(run.diagnostics, keys)})])]
    draw_sections(groups)
    assert len(model_numbers(groups)) == 1
    read = {key for key in keys if "." in key}
    assert read <= written
    assert read >= {"calibration.per_dim", "one_step.per_dim", "one_step.relative", "horizon.baseline"}


def test_sections_every_figure_is_drawn_of_some_training(drawn: Drawn) -> None:
    curve_titles = {slot.figure.title for slots in SECTIONS.values() for slot in slots if isinstance(slot.figure, Curves)}
    assert curve_titles <= set().union(*drawn.titles.values())
    assert {"Score of the plan", "Calibration", "Evaluation error of each dimension"} <= drawn.titles["pets"]
    assert {"Model transitions stored", "Temperature"} <= drawn.titles["mbpo"]


def test_make_run_has_metrics_of_real_runs(runs: dict[str, RunRecord], tmp_path: Path) -> None:
    run = read_run(add_learner(add_diagnostics(make_run(tmp_path / "run"))))
    known = logged(runs) | {f"model/holdout_error/{member}" for member in range(5)}
    assert {key for row in run.rows for key in row} <= known
    assert diagnosed(run) <= diagnosed(runs["pets"])
    assert run.summary.keys() <= runs["pets"].summary.keys()
    assert [path.name for path in run.videos] == ["step-3000.mp4"]


def test_group_runs_of_real_seeds_is_one_group(runs: dict[str, RunRecord]) -> None:
    run = runs["sac"]
    other = json.loads(json.dumps(run.config)) | {"seed": 1, "run_dir": "elsewhere", "tensorboard": True, "precision": "high"}
    (group,) = group_runs([run, RunRecord(**{**vars(run), "config": other})])
    assert group.label == "sac"


def test_full_command_discrete_actions_is_accepted(runs: dict[str, RunRecord]) -> None:
    for algo in ("dqn", "soft_q", "ppo", "trpo", "npg", "vtrace", "retrace", "reinforce"):
        arguments = shlex.split(full_command(runs[algo]))
        check_actions(compose(arguments[2], arguments[3:]), "discrete")
