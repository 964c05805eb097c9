"""The metrics of a run in wandb, trackio or swanlab too, through the three calls that all of them have: init, log, finish.

Each is an extra, imported when a run uses it. Where it records (online or offline, which project, which folder) are its own environment
variables. What fails in it ends no run: the failure is noted once, and the run goes on without it.
"""

import json
import logging
import math
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from mbkit.errors import UserError
from mbkit.paths import exists
from mbkit.recording.progress import say
from mbkit.storage import plain, read_json, write_json

FILE = "tracker.json"
ALONE = ("trackio", "swanlab")  # follow one run in a process
PROJECT = "mbkit"  # unless WANDB_PROJECT, TRACKIO_PROJECT or SWANLAB_PROJECT names another
log = logging.getLogger("mbkit")


def check_installed(name: str | None, seeds: Sequence[int] | None = None) -> None:
    """UserError where the tracker is not installed, or cannot follow several `seeds` in one process.

    A folder of its name, which it leaves in the working directory, is not it.
    """
    if seeds is not None and name in ALONE:
        raise UserError(
            f"tracker={name} follows one run in a process, and seeds= has several; expected tracker=wandb, or a run for each seed="
        )
    spec = find_spec(name) if name is not None else None
    if name is not None and (spec is None or spec.origin is None):
        raise UserError(f'tracker={name}: {name} is not installed; `pip install "mbkit[{name}]"` brings it')


@contextmanager
def unnoticed() -> Iterator[None]:
    """What a tracker prints goes to stderr, and random numbers that it draws are drawn again by the run."""
    states = random.getstate(), np.random.get_state()
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


class Tracker:
    """A run in a tracker; a run that is resumed goes on in the same one.

    Args:
        name: "wandb", "trackio" or "swanlab".
        run_dir: the run directory, whose `tracker.json` holds the run's name and identifier there.
        config: the experiment as a nested dictionary, of which `algo`, `env` and `seed` make the name.
        notes: where a failure is noted.

    Raises:
        UserError: the tracker is not installed.
    """

    def __init__(self, name: str, run_dir: str | Path, config: Mapping[str, Any], notes: list[str]) -> None:
        check_installed(name)
        self.name, self.notes = name, notes
        self.known_to = -1  # step to which the tracker knows the run from before it was resumed
        self._run: Any = None
        label = identified(name, Path(run_dir), config)
        with self._surviving("could not be started"):
            module = import_module(name)
            start = {"wandb": _start_wandb, "trackio": _start_trackio, "swanlab": _start_swanlab}[name]
            self._run = start(module, Path(run_dir), label, os.environ.get(f"{name.upper()}_PROJECT", PROJECT), plain(config))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics, without values that are no finite numbers."""
        finite = {key: value for key, value in values.items() if math.isfinite(value)}
        if self._run is None or not finite or step <= self.known_to:
            return
        with self._surviving("took no more metrics"):
            if self.name == "wandb":  # whose own steps may not fall, as those of lines of metrics do
                self._run.log({"step": step, **finite})
            else:
                self._run.log(finite, step=step)

    def finish(self) -> None:
        """Hand over what is left, and end the run there."""
        run, self._run = self._run, None
        if run is not None:
            with self._surviving("could not be finished"):
                run.finish()

    @contextmanager
    def _surviving(self, what: str) -> Iterator[None]:
        """A failure inside is told, and ends the tracking rather than the run."""
        try:
            with unnoticed():
                yield
        except Exception as error:  # whatever a tracker, its service or its server raises
            self._run = None
            why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            note = f"{self.name} {what} ({why}); the run went on without it, and metrics.jsonl holds everything."
            log.debug("%s", note, exc_info=True)
            self.notes.append(note)
            say(note)


def identified(name: str, run_dir: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The run's name and identifier in the tracker: those of before where the run is resumed, else new ones, which are stored."""
    path = run_dir / FILE
    if exists(path):
        stored = read_json(path)
        if isinstance(stored, dict) and stored.get("tracker") == name and all(isinstance(stored.get(key), str) for key in ("id", "name")):
            return stored
    identifier = uuid4().hex[:8]
    task = "-".join(str(config.get(key)).replace("/", "-") for key in ("algo", "env", "seed"))
    label = {"tracker": name, "id": identifier, "name": f"{task}-{identifier}"}
    write_json(path, label)
    return label


def _start_wandb(wandb: Any, run_dir: Path, label: Mapping[str, str], project: str, config: dict[str, Any]) -> Any:
    run = wandb.init(
        project=project,
        id=label["id"],
        name=label["name"],
        dir=str(run_dir),
        config=config,
        resume="allow",
        reinit="create_new",  # of several seeds in one process each is a run
        settings=wandb.Settings(console="off"),
    )
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return run


def _start_trackio(trackio: Any, run_dir: Path, label: Mapping[str, str], project: str, config: dict[str, Any]) -> Any:
    return trackio.init(project, name=label["name"], config=config, resume="allow", embed=False)


def _start_swanlab(swanlab: Any, run_dir: Path, label: Mapping[str, str], project: str, config: dict[str, Any]) -> Any:
    folder = str(run_dir / "swanlog")
    return swanlab.init(project=project, id=label["id"], name=label["name"], log_dir=folder, config=config, resume="allow")


def last_step(path: Path, position: int) -> int:
    """The last step of the lines of metrics that a resumption cuts off, those behind `position`; -1 where there are none."""
    with open(path, "rb") as file:
        file.seek(position)
        lines = file.read().splitlines()
    return max((int(json.loads(line)["step"]) for line in lines if line.endswith(b"}")), default=-1)
