"""The run directory and its summary."""

import platform
import re
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from mbkit.errors import UserError
from mbkit.paths import check_folder, exists, is_dir, matching, reason, short
from mbkit.storage import write_json

LONGEST = "checkpoint/step-0000000000.json.tmp"  # of the files in a run directory
PACKAGES = ("mbkit", "torch", "gymnasium", "mujoco", "numpy")


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that a result depends on; None for a package that is not installed."""
    installed: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = None
    return installed


def create_run_dir(algo: str, env: str, seed: int, run_dir: str | Path | None = None) -> Path:
    """Create `run_dir`, or runs/ALGO/ENV/SEED-TIME under the working directory, and return its path.

    Raises:
        UserError: `run_dir` is an empty string, or the directory cannot be created or written to, or it already contains a run.
    """
    if run_dir is not None:
        check_new(run_dir)
    started = f"{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    path = Path("runs", directory_name(algo), directory_name(env), started) if run_dir is None else Path(run_dir)
    try:
        check_folder(path, LONGEST)
        path = _make_new(path) if run_dir is None else path
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"run directory {short(path)} cannot be written to ({reason(error)}); choose another with run_dir=") from error
    return path


def check_new(run_dir: str | Path) -> None:
    """UserError where this is an empty string, or a directory that already contains a run."""
    if not str(run_dir).strip():
        raise UserError(f"run_dir must name a directory, got {str(run_dir)!r}")
    path = Path(run_dir)
    if not exists(path / "config.yaml"):
        return
    if matching(path / "checkpoint", "step-*.pt"):
        advice = f"already contains a run; `mbkit resume {path}` continues it, another run_dir= starts a new one"
    else:
        advice = "contains a run that ended before its first checkpoint; remove it, or choose another with run_dir="
    raise UserError(f"run directory {path} {advice}")


def shown(path: str | Path) -> str:
    """A path as it is printed everywhere: relative to the working directory where it lies below it, else absolute."""
    try:
        here, absolute = Path.cwd(), Path(path).absolute()
        below = next((place for place in (absolute, absolute.resolve()) if place.is_relative_to(here)), None)
    except OSError:  # the working directory is gone
        return str(path)
    return str(absolute if below is None else below.relative_to(here))


def directory_name(name: str) -> str:
    """A part or a task as a directory's name of 60 letters at most: `/` and `:`, which stand for other things in paths, become `-`."""
    return re.sub(r"[^\w.=+,@-]", "-", name.strip("<>")).lstrip(".")[:60] or "-"


def _make_new(path: Path) -> Path:
    """Create this directory, with a number behind its name if it exists: runs started in the same second get a directory each."""
    for number in count(2):
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            if not is_dir(path):  # a folder above it is a file, or a link to nowhere
                raise
            path = path.with_name(f"{path.name.split('_')[0]}_{number}")
    return path


@dataclass(frozen=True)
class Summary:
    """The content of `summary.json`. Scores are those of the final policy on fresh evaluation seeds, except for the best one."""

    algo: str
    env: str
    seed: int
    steps: int  # environment steps taken
    eval_return_mean: float | None
    eval_return_std: float | None
    eval_episodes: int
    best_eval_return: float | None
    wall_seconds: float  # of the run and its resumptions together
    device: str
    versions: dict[str, str | None] = field(default_factory=versions)


def write_summary(run_dir: str | Path, summary: Summary, **more: Any) -> None:
    """Write `summary.json`; `more` are further keys beside those of `Summary`."""
    write_json(Path(run_dir) / "summary.json", asdict(summary) | more)
