"""Several seeds of one experiment in one process: `mbkit train sac seeds=11,12,13`, one run directory for each.

Every seed has its own environment, replay and random numbers; the updates of all agents are one, with the seeds as a leading dimension.
Each run is what it would have been alone, but for rounding, and its checkpoints are those of a single run.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from mbkit import recording
from mbkit.config import Experiment
from mbkit.config.identity import group_identity
from mbkit.errors import UserError
from mbkit.loops.interrupt import interrupted
from mbkit.run.reading import read_config
from mbkit.run.run import Run
from mbkit.run.training import how_to_go_on, side_by_side, train_together
from mbkit.streams import Stream


def of_seeds(experiment: Experiment, seeds: Sequence[int]) -> list[Experiment]:
    """The experiment with each of the seeds, whose directories lie in `run_dir` where that is set; UserError for a data set."""
    if experiment.data is not None:
        raise UserError(f"data={experiment.data} has one seed a run: seed=N; several seeds at once learn in an environment")
    folders = [None if experiment.run_dir is None else str(Path(experiment.run_dir) / f"seed-{seed}") for seed in seeds]
    return [replace(experiment, seed=seed, run_dir=folder) for seed, folder in zip(seeds, folders, strict=True)]


def train_seeds(experiments: Sequence[Experiment]) -> list[Run]:
    """Train these experiments, which differ in their seeds, side by side; UserError where their agents cannot be updated together."""
    with ExitStack() as opened:
        runs, streams = [], []
        for experiment in experiments:
            runs.append(opened.enter_context(Run(experiment)))
            streams.append(Stream())
        loop = side_by_side(runs, streams)
        opened.enter_context(interrupted(lambda: how_to_go_on(runs)))
        for run, stream in zip(runs, streams, strict=True):
            with stream.active():
                run.start()
        for run in runs:
            run.open()
        train_together(runs, streams, loop, [None] * len(runs))
    return runs


def resume_seeds(directories: Sequence[str | Path], reopened: Callable[[ExitStack, str | Path], tuple[Run, Any]]) -> list[Run]:
    """Go on with runs that were trained side by side, bit for bit.

    Args:
        directories: of the runs, in the order of their seeds.
        reopened: opens one of them at its last checkpoint; the run and the checkpoint.

    Raises:
        UserError: runs that differ in more than their seeds, or that stand at different steps.
    """
    check_alike(directories)
    with ExitStack() as opened:
        runs, states, streams = [], [], []
        for directory in directories:
            run, state = reopened(opened, directory)
            runs.append(run)
            states.append(state)
            streams.append(Stream())
        if len({run.loop.step for run in runs}) > 1:
            where = ", ".join(f"{recording.shown(run.path)} at {run.loop.step}" for run in runs)
            raise UserError(f"runs go on side by side from the same step; these stand at different ones: {where}; resume each alone")
        train_together(runs, streams, side_by_side(runs, streams), states)
    return runs


def check_alike(directories: Sequence[str | Path]) -> None:
    """UserError where the runs are not those of different seeds of one experiment."""
    first, *others = [(directory, read_config(directory)) for directory in directories]
    expected = group_identity(first[1].to_dict())
    for directory, experiment in others:
        came = group_identity(experiment.to_dict())
        for key in sorted(expected | came):
            if expected.get(key) != came.get(key):
                here, there = f"{first[0]} has {key}={expected.get(key)}", f"{directory} {came.get(key)}"
                raise UserError(f"runs go on side by side where only their seeds differ: {here}, {there}")
    seeds = [experiment.seed for _, experiment in (first, *others)]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"runs go on side by side where their seeds differ; these have seeds {', '.join(map(str, seeds))}")
