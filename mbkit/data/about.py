"""What is known of a data set beside its rows, as JSON and back."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mbkit.data.dataset import Dataset
from mbkit.errors import UserError

KINDS: dict[str, type | tuple[type, ...]] = {  # of the values, as JSON has them
    "env": (str, type(None)),
    "env_kwargs": dict,
    "obs_names": list,
    "action_names": list,
    "action_low": (list, type(None)),
    "action_high": (list, type(None)),
    "choices": int,
    "start": int,
    "has_reward": bool,
    "source": dict,
    "notes": list,
}


def to_json(data: Dataset) -> str:
    """Everything but the rows, their lengths and the file."""
    return json.dumps({key: _plain(getattr(data, key)) for key in KINDS})


def from_json(text: str | bytes, path: Path) -> dict[str, Any]:
    """Arguments of Dataset; UserError where the text is not what `to_json` writes."""
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: what it says of its rows is not valid JSON ({error})") from error
    if not isinstance(about, dict) or set(about) != set(KINDS):
        raise UserError(f"{path}: expected the entries {', '.join(KINDS)} beside its rows, got {_outline(about)}")
    for key, kind in KINDS.items():
        if not isinstance(about[key], kind) or (kind is int and isinstance(about[key], bool)):
            raise UserError(f"{path}: {key} is {about[key]!r:.60}; expected {_outline(kind)}")
    for key in ("action_low", "action_high"):
        if about[key] is not None and not all(isinstance(x, int | float) for x in about[key]):
            raise UserError(f"{path}: {key} is {about[key]!r:.60}; expected numbers")
    names = {key: tuple(map(str, about[key])) for key in ("obs_names", "action_names")}
    return {**about, **names, "notes": list(map(str, about["notes"]))}


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else list(value) if isinstance(value, tuple) else value


def _outline(value: Any) -> str:
    if isinstance(value, type | tuple):
        return " or ".join(kind.__name__ for kind in (value if isinstance(value, tuple) else (value,)))
    return ", ".join(map(str, value)) if isinstance(value, dict) else type(value).__name__
