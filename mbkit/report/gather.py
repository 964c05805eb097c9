"""The run directories that paths stand for: a run, or every run below a directory, such as that of a sweep."""

from collections.abc import Sequence
from pathlib import Path

from mbkit.errors import UserError
from mbkit.paths import is_dir, is_file, resolved, short
from mbkit.recording.following import run_directories as runs_below
from mbkit.report.collect import RunRecord, read_run

FILES = ("config.yaml", "metrics.jsonl")


def run_directories(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The run directories, each once, and a sentence for each directory below which runs have logged nothing yet.

    Raises:
        UserError: a path is no run directory and has no runs below it, or none that has logged something.
    """
    runs: dict[Path, None] = {}
    notes = []
    for path in map(resolved, paths):
        if is_run(path) or not is_dir(path) or any(is_file(path / name) for name in FILES):
            runs[path] = None  # what is missing of it is told when it is read
            continue
        below = runs_below(path)
        logged = [run for run in below if is_file(run / FILES[1]) and (run / FILES[1]).stat().st_size]
        if not below:
            raise UserError(f"{short(path)} is not a run directory: expected a file {FILES[0]} in it, or runs below it, found none")
        if not logged:
            raise UserError(f"none of the {len(below)} runs below {short(path)} holds metrics: expected at least one line with a step")
        if len(logged) < len(below):
            notes.append(f"{len(below) - len(logged)} of {len(below)} runs below {path.name} have logged nothing yet and are left out.")
        runs |= dict.fromkeys(logged)
    return list(runs), notes


def read_runs(paths: Sequence[Path]) -> tuple[list[RunRecord], list[str]]:
    """The runs that paths stand for, and a sentence for those below a directory that are left out, since they cannot be read.

    Raises:
        UserError: a path that is named cannot be read, or none of the runs below it.
    """
    directories, notes = run_directories(paths)
    named = {resolved(path) for path in paths}
    runs, refused = [], []
    for path in directories:
        try:
            runs.append(read_run(path))
        except UserError as error:
            if path in named:
                raise
            refused.append(error)
    if not runs:
        raise refused[0]
    return runs, [*notes, *(f"Left out: {error}." for error in refused)]


def is_run(path: Path) -> bool:
    """Whether a directory has the files of a run."""
    return all(is_file(path / name) for name in FILES)
