"""Replays of mbkit's runs as data sets: RUN, RUN@best, RUN@STEP.

What knows a run lies above this package, and is loaded by its name, as the parts of a registry are.
"""

from importlib import import_module
from pathlib import Path

from mbkit.data.dataset import Dataset
from mbkit.paths import exists, is_file

READER = "mbkit.run.replays"


def recognises(path: Path, head: bytes = b"") -> bool:
    """Whether this is a run directory, or one with a checkpoint behind an @."""
    return is_file(split(path)[0] / "config.yaml")


def split(path: str | Path) -> tuple[Path, str]:
    """The directory and the checkpoint, "last" unless one is named: a directory of the whole name comes first."""
    directory, at, checkpoint = str(path).rpartition("@")
    return (Path(directory), checkpoint) if at and directory and not exists(path) else (Path(path), "last")


def read(path: Path) -> Dataset:
    """The replay in a run's checkpoint; UserError where there is none."""
    data: Dataset = import_module(READER).replay_of(*split(path))
    return data
