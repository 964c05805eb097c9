"""Checkpoints: written atomically, so that a kill at any moment leaves one to resume from, and read without pickle."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from mbkit.errors import UserError
from mbkit.paths import exists, matching, reason, short
from mbkit.recording.rundir import versions
from mbkit.storage import read_json, read_tensors, write_json, write_tensors
from mbkit.types import State

FORMAT = "mbkit checkpoint 1"
Keep = Literal["last", "best", "all"]
log = logging.getLogger("mbkit")


def storable(value: Any, where: str = "state") -> Any:
    """A copy of the state in plain containers; a tensor that is a view into a larger storage is copied out of it.

    Args:
        value: a state, or a part of one.
        where: the path to `value` inside the state, for messages.

    Raises:
        TypeError: the state holds something that `torch.load(weights_only=True)` would refuse when the run is resumed.
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
    """Write step-N.pt with step-N.json beside it, then delete the checkpoints that `keep` does not retain.

    An old checkpoint is deleted only after the new one is on the disk.

    Args:
        directory: where checkpoints lie; created if absent, in a directory that exists.
        step: environment step N.
        state: tensors, numbers, strings and containers of them.
        keep: which checkpoints remain: the last, the last and the one with the highest score, or all.
        score: evaluation return of the policy at this step, if it was evaluated.

    Raises:
        UserError: the file cannot be written.
        TypeError: the state holds something other than tensors, numbers, strings and containers of them.
    """
    directory = Path(directory)
    path = directory / f"step-{step:010d}.pt"
    content = {"step": step, "state": storable(state)}
    try:
        directory.mkdir(exist_ok=True)  # without its parents: a run directory that was deleted stays deleted
    except (OSError, ValueError) as error:
        raise UserError(f"checkpoint directory {short(directory)} cannot be created ({reason(error)})") from error
    write_json(path.with_suffix(".json"), {"step": step, "score": score, "versions": versions()})
    write_tensors(path, FORMAT, content)
    if keep != "all":
        _delete_others(directory, {path} | ({best} if keep == "best" and (best := best_checkpoint(directory)) else set()))
    return path


def _delete_others(directory: Path, retained: set[Path]) -> None:
    """Delete all other checkpoints, and temporary files of a writer that was killed."""
    stems = {path.stem for path in retained}
    for path in matching(directory, "step-*"):
        if path.name.split(".")[0] not in stems or path.suffix == ".tmp":
            path.unlink(missing_ok=True)


def checkpoints(directory: str | Path) -> list[Path]:
    """Checkpoint files, oldest first."""
    return matching(directory, "step-*.pt")


def best_checkpoint(directory: str | Path) -> Path | None:
    """The checkpoint with the highest score, the newer one of equals; None if no checkpoint has a score."""
    scored = []
    for path in checkpoints(directory):
        score = read_score(path.with_suffix(".json"))
        if score is not None:
            scored.append((score, path))
    return max(scored)[1] if scored else None


def read_score(sidecar: Path) -> float | None:
    """The score in a step-N.json; None where it has none, or is missing."""
    if not exists(sidecar):
        return None
    content = read_json(sidecar)
    score = content.get("score", content) if isinstance(content, dict) else content
    if isinstance(content, dict) and (score is None or (type(score) in (int, float) and -math.inf < score < math.inf)):
        return score  # type: ignore[no-any-return]
    raise UserError(f"{sidecar} must hold the score of its checkpoint, a number or null; came {str(score)[:60]}")


def read_checkpoint(path: str | Path) -> tuple[int, State]:
    """Step and state of one file, tensors on the CPU; UserError if the file is damaged or is not a checkpoint."""
    content = read_tensors(path, FORMAT, {"step": int, "state": dict})
    return content["step"], content["state"]


def load_checkpoint(directory: str | Path, which: Literal["last", "best"] = "last") -> tuple[int, State]:
    """Step and state of the newest readable checkpoint, or of the one with the highest score.

    A damaged checkpoint is skipped with a warning in the log, and the one before it is read.

    Raises:
        UserError: there is no checkpoint, or none can be read.
    """
    candidates = checkpoints(directory)[::-1]
    if which == "best" and (best := best_checkpoint(directory)):
        candidates = [best]
    if not candidates:
        raise UserError(f"{short(directory)} holds no checkpoint: expected a file step-N.pt")
    for path in candidates[:-1]:
        try:
            return read_checkpoint(path)
        except UserError as error:
            log.warning("%s; trying the checkpoint before it", error)
    return read_checkpoint(candidates[-1])
