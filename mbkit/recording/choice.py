"""The checkpoint that a user names: the last, the best, or that of a step."""

import operator
from pathlib import Path
from typing import Any

from mbkit.errors import UserError
from mbkit.paths import short
from mbkit.recording.checkpoint import best_checkpoint, checkpoints, load_checkpoint, read_checkpoint
from mbkit.types import State


def named_checkpoint(directory: str | Path, which: Any) -> tuple[int, State]:
    """Step and state of the checkpoint `which`: "last", "best", or a stored step as a number or its digits.

    Raises:
        UserError: `which` is none of these, there is no such checkpoint, or it cannot be read.
    """
    if isinstance(which, str) and which == "last":
        return load_checkpoint(directory)
    stored = checkpoints(directory)
    steps = ", ".join(str(int(path.stem.removeprefix("step-"))) for path in stored if path.stem.removeprefix("step-").isdecimal())
    if isinstance(which, str) and which == "best":
        path = best_checkpoint(directory)
        if path is None:
            raise UserError(f"checkpoint=best: no checkpoint in {directory} has a score; stored steps: {steps or 'none'}")
        return read_checkpoint(path)
    step = _step(which)
    if step is None:
        raise UserError(f"checkpoint='{short(which)}': expected last, best or a stored step, of which there are {steps or 'none'}")
    path = next((path for path in stored if path.name == f"step-{step:010d}.pt"), None)
    if path is None:
        raise UserError(f"checkpoint={step}: {directory} holds no checkpoint of that step; stored steps: {steps or 'none'}")
    return read_checkpoint(path)


def _step(which: Any) -> int | None:
    """A number of environment steps, or None."""
    if isinstance(which, str):
        return int(which) if which.isascii() and which.isdecimal() else None
    try:
        return None if isinstance(which, bool) else operator.index(which)
    except TypeError:
        return None
