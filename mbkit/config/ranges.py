"""Ranges and types of options, checked and as a user reads them."""

import math
import re
from collections.abc import Mapping
from typing import Any, get_type_hints

from mbkit.config.schema import Experiment
from mbkit.errors import UserError


def check_steps(experiment: Experiment) -> None:
    """UserError for a run of no steps, unless it scores a planner with a model that need not learn: a loaded one, or the true one."""
    part = experiment.dynamics
    ready = part is not None and (part.name == "mujoco" or getattr(part.config, "load", None) is not None)
    plans_only = (
        experiment.planner is not None and getattr(experiment.agent, "name", "") == experiment.algo
    )  # no agent besides, which would have to learn
    if experiment.steps == 0 and not (ready and plans_only):
        model = "with pets a model that has learned, dynamics.load=FILE, or the true one"
        raise UserError(f"steps=0 is out of range: {experiment.algo} would score what learned nothing; expected >= 1, or {model}")


def check_range(limits: Mapping[str, Any], value: Any, name: str) -> None:
    """UserError where a number, or one of several, lies outside a field's range."""
    for number in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            continue
        low, high, above = limits.get("low", -math.inf), limits.get("high", math.inf), limits.get("above", -math.inf)
        if not math.isfinite(number) or not (low <= number <= high and number > above):
            raise UserError(f"{name}={value!r} is out of range: expected {range_text(limits) or 'a number'}")


def range_text(limits: Mapping[str, Any]) -> str:
    """'> 0', '>= 1', '<= 0', 'in [0, 1]' or ''."""
    if "above" in limits:
        return f"> {limits['above']}"
    if "low" in limits and "high" in limits:
        return f"in [{limits['low']}, {limits['high']}]"
    return f">= {limits['low']}" if "low" in limits else f"<= {limits['high']}" if "high" in limits else ""


def type_text(cls: type, key: str) -> str:
    """A field's type as a user reads it."""
    hint = get_type_hints(cls)[key]
    text = getattr(hint, "__name__", str(hint)) if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)
    text = re.sub(r"Optional\[(.*)\]", r"\1 | None", text.replace("typing.", ""))
    return text.replace("Literal", "one of ")
