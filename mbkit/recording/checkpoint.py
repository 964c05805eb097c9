"""Checkpoints that a kill at any moment cannot spoil, and that need no pickle to read."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mbkit.errors import UserError
from mbkit.recording.rundir import versions
from mbkit.storage import read_json, read_tensors, replacing, write_json
from mbkit.types import State

FORMAT = "mbkit checkpoint 1"
Keep = Literal["last", "best", "all"]
log = logging.getLogger("mbkit")


def storable(value: Any, where: str = "state") -> Any:
    """The same state of plain containers, with tensors that share a larger storage copied out of it.

    Raises:
        TypeError: something that `torch.load(weights_only=True)` would refuse, found before it is written rather than at resume.
    """
    if isinstance(value, Tensor):
        value = value.detach()
        return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value
    if isinstance(value, Mapping):
        return {key: storable(x, f"{where}.{key}") for key, x in value.items()}
    if type(value) in (list, tuple):
        return type(value)(storable(x, f"{where}[{i}]") for i, x in enumerate(value))
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"{where} is a {type(value).__name__}; a checkpoint holds tensors, numbers, strings and containers of them only")


def save_checkpoint(directory: str | Path, step: int, state: State, keep: Keep = "last", score: float | None = None) -> Path:
    """Write step-N.pt with step-N.json beside it, then delete those not to be kept.

    The new file is in place and on the disk before an old one goes; `keep="best"` keeps the best score and the newest.

    Raises:
        UserError: the disk refused.
        TypeError: the state holds something other than tensors, numbers, strings and containers of them.
    """
    directory = Path(directory)
    path = directory / f"step-{step:010d}.pt"
    content = {"format": FORMAT, "step": step, "state": storable(state)}
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"checkpoint directory {directory} cannot be made ({error.strerror})") from error
    write_json(path.with_suffix(".json"), {"step": step, "score": score, "versions": versions()})
    with replacing(path) as file:
        torch.save(content, file)
    if keep != "all":
        _prune(directory, {path} | ({best} if keep == "best" and (best := best_checkpoint(directory)) else set()))
    return path


def _prune(directory: Path, kept: set[Path]) -> None:
    """Delete other checkpoints, and what a killed writer left behind."""
    stems = {path.stem for path in kept}
    for path in directory.glob("step-*"):
        if path.name.split(".")[0] not in stems or path.suffix == ".tmp":
            path.unlink(missing_ok=True)


def checkpoints(directory: str | Path) -> list[Path]:
    """Checkpoint files, oldest first."""
    return sorted(Path(directory).glob("step-*.pt"))


def best_checkpoint(directory: str | Path) -> Path | None:
    """The one with the highest score, the newer of equals; None where none has a score."""
    scored = []
    for path in checkpoints(directory):
        score = read_json(path.with_suffix(".json"))["score"] if path.with_suffix(".json").exists() else None
        if score is not None:
            scored.append((score, path))
    return max(scored)[1] if scored else None


def read_checkpoint(path: str | Path) -> tuple[int, State]:
    """Step and state of one file, tensors on the CPU; UserError naming it where it is damaged or something else."""
    content = read_tensors(path, FORMAT, {"step": int, "state": dict})
    return content["step"], content["state"]


def load_checkpoint(directory: str | Path, which: Literal["last", "best"] = "last") -> tuple[int, State]:
    """Step and state of the newest checkpoint that can be read, or of the best one.

    A damaged newest one is passed over with a warning in the log.

    Raises:
        UserError: there is none, or none can be read.
    """
    found = checkpoints(directory)[::-1]
    if which == "best" and (best := best_checkpoint(directory)):
        found = [best]
    if not found:
        raise UserError(f"{directory} holds no checkpoint: expected a file step-N.pt")
    for path in found[:-1]:
        try:
            return read_checkpoint(path)
        except UserError as error:
            log.warning("%s; trying the checkpoint before it", error)
    return read_checkpoint(found[-1])
