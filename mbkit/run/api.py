"""Train, resume, load, evaluate: what the command line and Python both call."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mbkit import config, recording
from mbkit.config import Experiment
from mbkit.dynamics import files
from mbkit.errors import UserError
from mbkit.recording.notes import noted
from mbkit.run.run import Run
from mbkit.storage import write_text


def as_arguments(arguments: tuple[str, ...], options: Mapping[str, Any]) -> list[str]:
    """train("pets", "planner=cem", env="cartpole", planner={"elites": 5}) as one list of key=value arguments."""
    listed = list(arguments)
    for key, value in options.items():
        if isinstance(value, Mapping):
            listed += [f"{key}.{argument}" for argument in as_arguments((), value)]
        else:
            listed.append(f"{key}={json.dumps(value, default=str)}")
    return listed


def train(algo: str, *arguments: str, **options: Any) -> Run:
    """Train an algorithm: `train("pets", env="InvertedPendulum-v5", steps=2000, planner={"iterations": 5})`.

    Options are those of `mbkit config ALGO`, as keywords or as "key=value" arguments. Returns the finished run; `run.agent` acts.
    """
    run = Run(resolved(config.compose(algo, as_arguments(arguments, options))))
    run.loop.start()
    run.open()
    run.train()
    return run


def resolved(experiment: Experiment) -> Experiment:
    """The experiment with what `dynamics.load` decides (widths, members, ...) written into it, so that a run needs that file only once."""
    part = experiment.dynamics
    if part is None or part.name != "ensemble" or part.config.load is None:
        return experiment
    return replace(experiment, dynamics=part._replace(config=files.config(part.config.load, part.config)))


def without_load(experiment: Experiment) -> Experiment:
    """The experiment as it is rebuilt round a checkpoint, which holds all weights of an ensemble."""
    part = experiment.dynamics
    if part is None or part.name != "ensemble":
        return experiment
    return replace(experiment, dynamics=part._replace(config=replace(part.config, load=None)))


def read_config(directory: str | Path) -> Experiment:
    """The experiment of a run directory."""
    path = Path(directory) / "config.yaml"
    if not path.is_file():
        raise UserError(f"{directory} is not a run directory: it has no config.yaml")
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a configuration: {error}") from error
    return config.from_dict(config.read_yaml(text, str(path)))


def load(directory: str | Path, checkpoint: str = "last") -> Run:
    """A run as it stood at its last (or "best") checkpoint, ready to act and to be evaluated."""
    run = Run(without_load(read_config(directory)), restored=True)
    run.directory = Path(directory)
    _, state = recording.load_checkpoint(run.path / "checkpoint", "best" if checkpoint == "best" else "last")
    run.restore(state)
    return run


def resume(directory: str | Path, *arguments: str, **options: Any) -> Run:
    """Go on from the last checkpoint, bit for bit; `steps=M` goes further than planned, `threads=N` uses another number of threads."""
    before, changes = read_config(directory), config.parse_resumption(as_arguments(arguments, options))
    step, state = recording.load_checkpoint(Path(directory) / "checkpoint")
    experiment = config.from_dict({**before.to_dict(), **changes})
    if step > experiment.steps or (step == experiment.steps and (Path(directory) / "summary.json").is_file()):
        raise UserError(f"{directory} has {step} steps already; steps=M with M > {step} goes further")
    run = Run(without_load(experiment), restored=True)
    run.directory = Path(directory)
    run.restore(state)
    if experiment.threads != before.threads:
        told = f"From step {step} on, threads={experiment.threads} rather than {before.threads}: last digits differ."
        run.notes = noted(run.notes, told)
    write_text(run.path / "config.yaml", config.to_yaml(experiment, run.actions))
    run.train(state)
    return run


def evaluate(run: Run | str | Path, episodes: int = 10, video: bool = False) -> dict[str, Any]:
    """Deterministic returns on fresh seeds: mean, std over episodes, each return, mean length, and the video's path if asked."""
    run = run if isinstance(run, Run) else load(run)
    result = run.evaluate(episodes)
    answer = {
        "return_mean": float(result.returns.mean()),
        "return_std": float(result.returns.std(correction=0)),
        "returns": result.returns.tolist(),
        "length_mean": float(result.lengths.double().mean()),
        "episodes": episodes,
        "step": run.loop.step,
    }
    if video:
        path = run.film()
        answer["video"] = run.notes[-1] if path is None else str(path)
    return answer
