"""What makes two runs the same experiment: one list of the options that may differ, for resumption and for the groups of a report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mbkit.config.dialect import tagged, value_text
from mbkit.errors import UserError

# Options that change how, where or for how long a run goes on, but not what it learns; a name stands for its whole group.
INCIDENTAL = ("run_dir", "steps", "device", "threads", "preset", "precision", "tensorboard", "tracker", "eval", "checkpoint")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of a nested configuration as "group.key" -> value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def comparable(value: Any) -> Any:
    """A value in terms of numbers, text and lists: NumPy arrays and paths as they are written, tuples as lists."""
    if isinstance(value, list | tuple):
        return [comparable(item) for item in value]
    return value_text(value) if tagged(value) else value


def group_identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What all runs of one group agree in, as flat key -> value: everything but the seed and incidental options."""
    return {key: comparable(value) for key, value in flatten(config).items() if key.split(".")[0] not in (*INCIDENTAL, "seed", "continues")}


def run_identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run and its resumption agree in; the checkpoint holds all weights, so that `dynamics.load` may be gone.

    Execution modes (`loop.mode`, ...) do not count either: a CPU goes on where CUDA graphs left off.
    """
    flat = flatten(config).items()
    identity = {key: comparable(value) for key, value in flat if key.split(".")[0] not in INCIDENTAL and not key.endswith(".mode")}
    for elsewhere in ("dynamics.load", "data", "continues"):  # a file or run may have moved; the checkpoint knows the data by its contents
        identity.pop(elsewhere, None)
    return identity


def check_same(expected: Mapping[str, Any], saved: Mapping[str, Any], path: Path) -> None:
    """UserError naming the first option in which a run's config.yaml (`expected`) and its checkpoint (`saved`) differ."""
    for key in [*expected, *(k for k in saved if k not in expected)]:
        here, there = expected.get(key), saved.get(key)
        if here != there and repr(here) != repr(there):  # nan equals nan
            raise UserError(f"{path}: its config.yaml has {key}={here!r}, but its checkpoint is of a run with {key}={there!r}")
