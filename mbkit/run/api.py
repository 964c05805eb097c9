"""Train, resume, load: what the command line and Python both call."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from mbkit import config, recording
from mbkit.config import Experiment, imports
from mbkit.dynamics import files
from mbkit.errors import UserError
from mbkit.loops.interrupt import interrupted
from mbkit.paths import is_file
from mbkit.recording.notes import noted
from mbkit.recording.trackers import check_installed
from mbkit.run.closing import closed_on_failure
from mbkit.run.data import RunData, completed, open_data
from mbkit.run.objects import handed_again, named, resumption, taken_up, with_objects
from mbkit.run.placement import placed
from mbkit.run.reading import read_config
from mbkit.run.run import Run
from mbkit.run.seeds import Reopened, of_seeds, resume_seeds, train_seeds
from mbkit.storage import read_json


@overload
def train(algo: str, *arguments: str, seeds: Sequence[int], **options: Any) -> list[Run]: ...


@overload
def train(algo: str, *arguments: str, **options: Any) -> Run: ...


def train(algo: str, *arguments: str, **options: Any) -> Any:
    """Train an algorithm: `train("pets", env="InvertedPendulum-v5", steps=2000, planner={"iterations": 5})`.

    Options are those of `mbkit config ALGO`, as keywords or as "key=value" arguments. `env` may also be a class of environments, a function
    that makes one, or a specification of Gymnasium; `reward` and `termination`, short for `dynamics.reward` and `dynamics.termination`,
    functions. Returns the finished run, its environments closed; `run.agent` acts.

    `seeds=[11, 12, 13]` trains those seeds of ddpg, td3, sac, dqn, double_dqn, or of mbpo, mba, dyna or loop with them, side by side,
    with one update for all, and returns a list of runs.
    """
    with ExitStack() as opened:
        opened.enter_context(interrupted(lambda: "nothing was written yet; the same command starts again"))
        seeds, plain, options = config.taken_seeds(arguments, options)
        came = named(options)
        experiment = with_objects(config.compose(algo, plain, completed(algo, plain, came.values)), came)
        imports.import_typed(experiment)
        check_installed(experiment.tracker, seeds)
        if seeds is not None:
            return train_seeds([resolved(each) for each in of_seeds(experiment, seeds)])
        run = opened.enter_context(Run(resolved(experiment), data=open_data(experiment)))
        opened.enter_context(interrupted(run.how_to_go_on))
        run.start()
        run.open()
        run.train()
    return run


def resolved(experiment: Experiment) -> Experiment:
    """The experiment with what `dynamics.load` decides (widths, members, ...) written into it, so that a run needs that file only once.

    UserError where the file is a model of another task.
    """
    part = experiment.dynamics
    if part is None or part.name != "ensemble" or part.config.load is None:
        return experiment
    files.check_task(part.config.load, experiment.env)
    cfg = files.config(part.config.load, part.config)
    if cfg.termination != part.config.termination and imports.FUNCTION.fullmatch(cfg.termination):
        imports.announce_path(part.config.load, "dynamics.termination", cfg.termination)
    return replace(experiment, dynamics=part._replace(config=cfg))


def without_load(experiment: Experiment) -> Experiment:
    """The experiment as it is rebuilt round a checkpoint, which holds all weights of an ensemble."""
    part = experiment.dynamics
    if part is None or part.name != "ensemble":
        return experiment
    return replace(experiment, dynamics=part._replace(config=replace(part.config, load=None)))


def load(
    directory: str | Path,
    checkpoint: str | int = "last",
    device: str | None = None,
    *,
    env: Any = None,
    reward: Any = None,
    termination: Any = None,
) -> Run:
    """A run as it stood at a checkpoint ("last", "best" or a stored step), ready to act and to be evaluated.

    `close` it, or use it as a context. `device` is the one it was trained on unless given; a run of a GPU is loaded on the CPU,
    with a note, where there is no GPU. `env`, `reward` and `termination` are the objects that the run was trained with, where they have no
    import path, or the path of its config.yaml leads nowhere here.

    Raises:
        UserError: no run, no such checkpoint, one that is damaged or of another experiment, or an object that is missing.
    """
    experiment, notes = placed(read_config(directory), device)
    experiment = taken_up(experiment, {"env": env, "reward": reward, "termination": termination}, directory)
    data = None if experiment.data is None else RunData.stored(Path(directory))
    run = Run(without_load(experiment), restored=True, data=data)
    with closed_on_failure(run):
        run.directory = Path(directory)
        step, state = recording.named_checkpoint(run.path / "checkpoint", checkpoint)
        run.restore(state, step)
    run.notes = noted(run.notes, *notes)
    return run


@overload
def resume(directory: str | Path, *arguments: str, **options: Any) -> Run: ...


@overload
def resume(directory: Sequence[str | Path], *arguments: str, **options: Any) -> list[Run]: ...


def resume(directory: Any, *arguments: str, **options: Any) -> Any:
    """Go on from the last checkpoint, bit for bit on the same device and number of threads; `steps=M` goes further than planned.

    With `device=cpu|cuda` or `threads=N` it goes on elsewhere than it began, where last digits differ; `data=FILE` is where the data set
    of an offline run lies now. `env`, `reward` and `termination` are the objects that the run was trained with, where they have no import
    path. Several directories, of seeds that were trained side by side, go on side by side.
    """
    if not isinstance(directory, str | Path):
        return resume_seeds(list(directory), lambda opened, each: reopened(opened, each, arguments, options))
    with ExitStack() as opened:
        run, state, experiment = reopened(opened, directory, arguments, options)
        run.write_config(experiment)
        run.train(state)
    return run


def reopened(opened: ExitStack, directory: str | Path, arguments: Sequence[str], options: Mapping[str, Any]) -> Reopened:
    """The run of a directory at its last checkpoint, ready to go on; `opened` closes and unlocks it."""
    before, options = handed_again(read_config(directory), options, directory)
    changes = config.parse_resumption(arguments, before, options)
    experiment = replace(config.from_dict({**before.to_dict(), **changes}), objects=before.objects)
    experiment, _ = placed(experiment, experiment.device)
    imports.announce(experiment, directory)
    opened.enter_context(interrupted(lambda: f"{resumption(experiment, directory)} goes on"))
    opened.enter_context(recording.run_lock(Path(directory)))
    step, state = recording.load_checkpoint(Path(directory) / "checkpoint")
    if step > experiment.steps or (step == experiment.steps and summarised(Path(directory), step)):
        raise UserError(f"{directory} has {step} steps already; steps=M with M > {step} goes further")
    data = open_data(experiment)
    if data is not None:
        data.check_same(RunData.stored(Path(directory)))
    run = opened.enter_context(Run(without_load(experiment), restored=True, data=data))
    run.directory = Path(directory)
    run.restore(state, step)
    if experiment.threads != before.threads:
        told = f"From step {step} on, threads={experiment.threads} rather than {before.threads}: last digits differ."
        run.notes = noted(run.notes, told)
    return Reopened(run, state, experiment)


def summarised(directory: Path, step: int) -> bool:
    """Whether the run was finished at this step: the summary of an earlier end counts no more once it was extended."""
    path = directory / "summary.json"
    if not is_file(path):
        return False
    summary = read_json(path)
    return isinstance(summary, dict) and summary.get("steps") == step
