"""A checkpoint is taken up as a whole, and exactly, or refused: what was restored has the form that the file says."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mbkit.errors import UserError
from mbkit.loops import Offline, Online
from mbkit.run.data import RunData
from mbkit.types import State, Stateful


def restore_parts(parts: Mapping[str, Stateful], saved: Mapping[str, Any]) -> None:
    """Fill every part with its saved state.

    Raises:
        UserError: the checkpoint has other parts, a part took something else than the file holds, or an optimizer was set otherwise.
    """
    if parts.keys() != saved.keys():
        raise UserError(f"it holds {', '.join(map(str, saved)) or 'nothing'}; expected {', '.join(parts) or 'nothing'}")
    for name, part in parts.items():
        before = settings(part.state_dict())
        part.load_state_dict(saved[name])
        restored = part.state_dict()
        rates = [undecayed(*pair) for pair in zip(settings(restored), before, strict=True)]
        if difference := differing(saved[name], restored, name) or differing(rates, before, name):
            raise UserError(difference)


def restore_loop(loop: Online | Offline, saved: State, step: int) -> None:
    """Fill the loop; UserError where its counters or shapes are not those of this run at `step`."""
    if isinstance(loop, Offline):
        if saved["step"] != step:
            raise UserError(f"it is of update {step}, and its loop counts {saved['step']!r}")
        loop.load_state_dict(saved)
        return
    kinds: dict[str, tuple[type, ...]] = {"step": (int,), "episodes": (int,), "episode_ended": (bool,), "last_return": (float, type(None))}
    for name, expected in kinds.items():
        if type(saved[name]) not in expected:
            raise UserError(f"loop.{name} is {saved[name]!r}")
    if saved["step"] != step or step % loop.stride or not 0 <= saved["episodes"] <= step:
        raise UserError(f"it is of step {step}, and its loop counts {saved['step']} steps and {saved['episodes']} episodes")
    for name in ("obs", "returns", "lengths"):
        if difference := differing(saved[name], getattr(loop, name), f"loop.{name}"):
            raise UserError(difference)
        if not saved[name].isfinite().all():
            raise UserError(f"loop.{name} has numbers that are not finite")
    if not isinstance(saved["env"]["reason"], str | None):
        raise UserError(f"loop.env.reason is {saved['env']['reason']!r}")
    if not whole(saved["env"]["steps"]):
        raise UserError(f"loop.env.steps is {saved['env']['steps']!r}")
    loop.load_state_dict(saved)


def check_data(saved: Any, data: RunData | None) -> None:
    """UserError unless the checkpoint is of a run on this data set, or on none."""
    expected = None if data is None else data.about["sha256"]
    if saved != expected:
        raise UserError(f"it is of a run on the data set {form(saved)}; expected {form(expected)}")


def check_recorder(saved: State) -> None:
    """UserError unless a recorder can go on from this state."""
    if not (whole(saved["position"]) and whole(saved["step"]) and 0 <= float(saved["seconds"]) < math.inf):
        raise UserError(f"recorder stands at byte {saved['position']!r}, step {saved['step']!r}, {saved['seconds']!r} seconds")
    sums, count = saved["sums"], saved["count"]
    numbers = all(value.shape == () if isinstance(value, Tensor) else isinstance(value, float) for value in sums.values())
    if not numbers or sums.keys() != count.keys() or not all(whole(n) and n for n in count.values()):
        raise UserError("recorder's sums of metrics are no numbers, or lack their counts")


def checked_score(saved: Any) -> float | None:
    """The best score; UserError where it is neither a number nor missing."""
    if saved is None or (type(saved) is float and not math.isnan(saved)):
        return saved
    raise UserError(f"best is {form(saved)}, expected a score or none")


def whole(value: Any) -> bool:
    """Whether this is a whole number of at least 0 that a file or a run can count."""
    return type(value) is int and 0 <= value < 2**62


def differing(saved: Any, expected: Any, where: str) -> str | None:
    """How a saved state differs from the expected one in keys, shapes, types or plain values; None where it does not."""
    if isinstance(saved, Tensor) or isinstance(expected, Tensor):
        here, there = form(saved), form(expected)
        return None if here == there else f"{where} is {here}, expected {there}"
    if isinstance(saved, Mapping) and isinstance(expected, Mapping):
        if odd := saved.keys() ^ expected.keys():
            return f"{where} has the keys {', '.join(map(str, saved))}; expected {', '.join(map(str, expected))}"[:300] if odd else None
        return next((d for key in saved if (d := differing(saved[key], expected[key], f"{where}.{key}"))), None)
    if isinstance(saved, (list, tuple)) and isinstance(expected, (list, tuple)):
        if len(saved) != len(expected):
            return f"{where} has {len(saved)} entries, expected {len(expected)}"
        return next((d for i, pair in enumerate(zip(saved, expected, strict=True)) if (d := differing(*pair, f"{where}[{i}]"))), None)
    nans = isinstance(saved, float) and isinstance(expected, float) and math.isnan(saved) and math.isnan(expected)
    return None if nans or (type(saved) is type(expected) and saved == expected) else f"{where} is {saved!r}, expected {expected!r}"[:300]


def form(value: Any) -> str:
    """Shape and type of a tensor; the value of anything else."""
    return f"{str(value.dtype).removeprefix('torch.')} {[*value.shape]}" if isinstance(value, Tensor) else repr(value)[:100]


def settings(state: Any) -> list[Any]:
    """Learning rates and the like: everything under `param_groups`, wherever optimizers stand in a state."""
    if not isinstance(state, Mapping):
        return []
    return [value for key, entry in state.items() for value in ([entry] if key == "param_groups" else settings(entry))]


def undecayed(groups: list[dict[str, Any]], initial: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An optimizer's groups with their initial learning rates where those are lower by now, as schedules make them."""
    pairs = zip(groups, initial, strict=True)
    return [{**group, "lr": first["lr"]} if "lr" in first and 0 <= group["lr"] <= first["lr"] else group for group, first in pairs]


def refusal(path: Path, error: Exception) -> UserError:
    """The sentence for a checkpoint that cannot be taken up."""
    if isinstance(error, UserError) and str(error).startswith(str(path)):
        return UserError(" ".join(str(error).split())[:400])
    reason = f"it lacks {error.args[0]!r}" if isinstance(error, KeyError) else " ".join(str(error).split())[:300]
    return UserError(f"the checkpoint in {path} does not fit this run, or this version of mbkit: {reason or type(error).__name__}")
