"""A run directory: where it lies, and files that are there whole or not at all."""

import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from omegaconf import OmegaConf

from mbkit.types import UserError

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


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` once it is written and on the disk; after an error nothing has changed.

    Raises:
        UserError: the disk refused (full, read-only, gone).
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch.save wraps it in trying to end the archive
        if not isinstance(cause, OSError):
            raise
        raise UserError(f"{path} cannot be written ({cause.strerror or cause})") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def sync_directory(path: Path) -> None:
    """Make renames inside `path` survive a power cut, where the system can do so."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def plain(value: Any) -> Any:
    """The value as valid JSON can hold it: what is not finite becomes null, paths become text, tuples lists."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write valid JSON (null for NaN and infinities), whole or not at all."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def write_yaml(path: str | Path, value: Any) -> None:
    """Write a mapping or a dataclass as YAML, whole or not at all."""
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(value) if isinstance(value, dict) else OmegaConf.structured(value)))


def read_json(path: str | Path) -> Any:
    """The content of a JSON file; UserError where there is none, or something else."""
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


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
