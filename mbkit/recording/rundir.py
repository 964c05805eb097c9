"""A run directory: where it lies, and its summary."""

import platform
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from mbkit.errors import UserError
from mbkit.storage import write_json

PACKAGES = ("mbkit", "torch", "gymnasium", "mujoco", "numpy")


def versions() -> dict[str, str | None]:
    """What a result depends on: Python and the packages underneath; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def create_run_dir(algo: str, env: str, seed: int, run_dir: str | Path | None = None) -> Path:
    """Make `run_dir`, or runs/ALGO/ENV/SEED-TIME under the working directory.

    Raises:
        UserError: `run_dir` is empty, the directory cannot be made or written to, or it holds a run already.
    """
    if run_dir is not None and not str(run_dir).strip():
        raise UserError(f"run_dir must name a directory, got {str(run_dir)!r}")
    path = Path("runs", algo, env.replace("/", "-"), f"{seed}-{time.strftime('%Y%m%d-%H%M%S')}") if run_dir is None else Path(run_dir)
    if (path / "config.yaml").exists() and run_dir is not None:
        if any((path / "checkpoint").glob("step-*.pt")):
            way_on = f"holds a run already; `mbkit resume {path}` continues it, another run_dir= starts a new one"
        else:
            way_on = "holds a run that died before its first checkpoint; remove it, or choose another with run_dir="
        raise UserError(f"run directory {path} {way_on}")
    try:
        path = _make_new(path) if run_dir is None else path
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"run directory {path} cannot be written to ({error.strerror}); choose another with run_dir=") from error
    return path


def _make_new(path: Path) -> Path:
    """Make this directory, or one with a number behind its name: runs that start in the same second get one each."""
    for number in count(2):
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            path = path.with_name(f"{path.name.split('_')[0]}_{number}")
    return path


@dataclass(frozen=True)
class Summary:
    """What is left of a run in one look: `summary.json`. Scores are the final policy's on fresh evaluation seeds unless they say best."""

    algo: str
    env: str
    seed: int
    steps: int  # environment steps taken
    eval_return_mean: float | None
    eval_return_std: float | None
    eval_episodes: int
    best_eval_return: float | None
    wall_seconds: float  # over all sittings
    device: str
    versions: dict[str, str | None] = field(default_factory=versions)


def write_summary(run_dir: str | Path, summary: Summary, **more: Any) -> None:
    """Write `summary.json`; whatever a recipe wants to add goes beside the fixed keys."""
    write_json(Path(run_dir) / "summary.json", asdict(summary) | more)
