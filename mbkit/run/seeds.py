"""Several seeds of one experiment in one process: `mbkit train sac seeds=11,12,13`, one run directory for each.

Every seed has its own environment, replay and random numbers; the updates of all agents are one, with the seeds as a leading dimension.
Each run is what it would have been alone, but for rounding, and its checkpoints are those of a single run.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from mbkit import recording
from mbkit.config import Experiment
from mbkit.config.identity import group_identity
from mbkit.errors import UserError
from mbkit.loops.interrupt import interrupted
from mbkit.loops.seeds import naming
from mbkit.run.objects import resumption
from mbkit.run.reading import read_config
from mbkit.run.run import Run
from mbkit.run.training import how_to_go_on, side_by_side, train_together
from mbkit.streams import Stream
from mbkit.types import State

TOGETHER = ("steps", "device", "threads", "precision")  # options of one process, which need not agree in runs of a group


def of_seeds(experiment: Experiment, seeds: Sequence[int]) -> list[Experiment]:
    """The experiment with each of the seeds, whose directories lie in `run_dir` where that is set; UserError for a data set."""
    if experiment.data is not None:
        raise UserError(f"data={experiment.data} has one seed a run: seed=N; several seeds at once learn in an environment")
    if experiment.run_dir is not None:
        recording.check_new(experiment.run_dir)
    folders = [None if experiment.run_dir is None else str(Path(experiment.run_dir) / f"seed-{seed}") for seed in seeds]
    return [replace(experiment, seed=seed, run_dir=folder) for seed, folder in zip(seeds, folders, strict=True)]


def train_seeds(experiments: Sequence[Experiment]) -> list[Run]:
    """Train these experiments, which differ in their seeds, side by side; UserError where their agents cannot be updated together."""
    for experiment in experiments:
        if experiment.run_dir is not None:
            recording.check_new(experiment.run_dir)
    with ExitStack() as opened:
        runs, streams = [], []
        for experiment in experiments:
            runs.append(opened.enter_context(Run(experiment)))
            streams.append(Stream())
        loop = side_by_side(runs, streams)
        opened.enter_context(interrupted(lambda: how_to_go_on(runs)))
        for run, stream in zip(runs, streams, strict=True):
            with naming(run.config.seed), stream.active():
                run.start()
        for run in runs:
            run.open()
        train_together(runs, streams, loop, [None] * len(runs))
    return runs


class Reopened(NamedTuple):
    """A run at its last checkpoint, that checkpoint, and the experiment with which it goes on."""

    run: Run
    checkpoint: State
    experiment: Experiment


def resume_seeds(directories: Sequence[str | Path], reopened: Callable[[ExitStack, str | Path], Reopened]) -> list[Run]:
    """Go on with runs that were trained side by side, bit for bit. Nothing is written where they cannot.

    Args:
        directories: of the runs, in the order of their seeds.
        reopened: opens one of them.

    Raises:
        UserError: runs that differ in more than their seeds, or that stand at different steps.
    """
    check_alike(directories)
    with ExitStack() as opened:
        each, streams = [], []
        for directory in directories:
            each.append(reopened(opened, directory))
            streams.append(Stream())
        runs = [run for run, *_ in each]
        opened.enter_context(interrupted(lambda: f"{resumption(runs[0].config, *directories)} goes on"))
        if len({run.loop.step for run in runs}) > 1:
            where = ", ".join(f"{recording.shown(run.path)} at {run.loop.step}" for run in runs)
            raise UserError(f"runs go on side by side from the same step; these stand at different ones: {where}; resume each alone")
        for key in TOGETHER:
            came = [getattr(run.config, key) for run in runs]
            other = next((n for n, value in enumerate(came) if value != came[0]), None)
            if other is not None:
                raise different(key, (directories[0], came[0]), (directories[other], came[other]))
        loop = side_by_side(runs, streams)
        for run, _, experiment in each:
            run.write_config(experiment)
        train_together(runs, streams, loop, [state for _, state, _ in each])
    return runs


def different(key: str, *runs: tuple[str | Path, Any]) -> UserError:
    """Two directories, each with its value of an option."""
    (first, expected), (other, came) = runs
    return UserError(f"runs go on side by side where only their seeds differ: {first} has {key}={expected}, {other} {came}")


def check_alike(directories: Sequence[str | Path]) -> None:
    """UserError where the runs are not those of different seeds of one experiment."""
    if not directories:
        raise UserError("resume: expected the directories of runs, came an empty list")
    first, *others = [(directory, read_config(directory)) for directory in directories]
    expected = group_identity(first[1].to_dict())
    for directory, experiment in others:
        came = group_identity(experiment.to_dict())
        for key in sorted(expected | came):
            if expected.get(key) != came.get(key):
                raise different(key, (first[0], expected.get(key)), (directory, came.get(key)))
    seeds = [experiment.seed for _, experiment in (first, *others)]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"runs go on side by side where their seeds differ; these have seeds {', '.join(map(str, seeds))}")
