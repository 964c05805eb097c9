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
    return json.dumps({key: getattr(data, key) for key in KINDS}, default=_plain)


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


def marked(data: Dataset, unmarked: list[int]) -> str:
    """As `to_json`, for formats in which every cut episode ends with a flag; `unmarked` are those that have none."""
    return json.dumps({"about": to_json(data), "unmarked": unmarked})


def from_marked(text: bytes, path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of Dataset and `unmarked`, from what `marked` wrote; UserError for any of the user's options, which would contradict it."""
    for key, value in options.items():
        if value is not None:
            raise UserError(f"{path} names its environment and its actions itself: the option {key} has no meaning for it")
    try:
        content = json.loads(text)
        facts, unmarked = content["about"], [int(episode) for episode in content["unmarked"]]
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise UserError(f"{path}: what it says of its rows is damaged ({error})") from error
    return {**from_json(facts, path), "unmarked": unmarked}


def _plain(value: Any) -> Any:
    """Arrays and NumPy's numbers in terms of JSON."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _outline(value: Any) -> str:
    if isinstance(value, type | tuple):
        return " or ".join(kind.__name__ for kind in (value if isinstance(value, tuple) else (value,)))
    return ", ".join(map(str, value)) if isinstance(value, dict) else type(value).__name__


def action_facts(path: Path, width: int, low: Any = None, high: Any = None, choices: int | None = None) -> dict[str, Any] | None:
    """Arguments of Dataset from what the user says of the actions; None where nothing was said.

    Args:
        path: the file, for messages.
        width: A.
        low: lower bound of all dimensions, or of each.
        high: upper bounds.
        choices: number of discrete actions.

    Raises:
        UserError: one bound without the other, bounds and a number of actions, or another number of bounds than `width`.
    """
    if choices is not None:
        if low is not None or high is not None:
            raise UserError(f"{path}: expected bounds of the actions or their number, got both")
        if choices < 1:
            raise UserError(f"{path}: expected at least 1 discrete action, got {choices}")
        return {"choices": choices}
    if low is None and high is None:
        return None
    if low is None or high is None:
        raise UserError(f"{path}: expected both bounds of the actions, got only {'low' if high is None else 'high'}")
    bounds = {}
    for name, values in (("low", low), ("high", high)):
        numbers = np.array(values, np.float64).reshape(-1)
        if len(numbers) not in (1, width):
            raise UserError(f"{path}: {name}: expected 1 or {width} numbers, one for each action dimension, got {len(numbers)}")
        bounds[f"action_{name}"] = np.broadcast_to(numbers, width)
    return bounds
