"""Which options count in an experiment: those of its regime, and of the conditional ones those whose condition (`when=`) holds."""

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields
from typing import Any

import yaml

from mbkit.config.schema import GROUPS, Experiment, OfflineLoop
from mbkit.registry import Entry

COMPARISON = re.compile(r"\s*([\w.]+)\s*(!=|<=|>=|=|<|>)\s*(\S+)\s*")
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
NESTED = ("", "eval", "checkpoint", "loop", *GROUPS)
UNKNOWN = object()  # the value of an option that the experiment lacks, or that is not known yet


def comparisons(when: str) -> Iterator[tuple[str, str, Any]]:
    """ "gate=m2ac, loop.fit=true" -> ("gate", "=", "m2ac"), ("loop.fit", "=", True)."""
    for text in when.split(","):
        match = COMPARISON.fullmatch(text)
        if match is None:
            raise ValueError(f"when={when!r}: expected comparisons such as gate=m2ac, divided by commas")
        left, sign, right = match.groups()
        yield left, sign, yaml.safe_load(right)


def value_of(experiment: Experiment, group: str, key: str, actions: str | None) -> Any:
    """The value that a condition of an option in `group` compares; UNKNOWN where there is none."""
    if key == "actions":
        return actions or UNKNOWN
    if key in GROUPS:
        part = getattr(experiment, key)
        return UNKNOWN if part is None else part.name
    if key in ("algo", "env", "data", "continues"):
        return getattr(experiment, key)
    if key == "loop.fit" and isinstance(experiment.loop, OfflineLoop):
        return getattr(experiment.group("dynamics"), "load", None) is None  # a data set's model is fitted once, or loaded
    group, _, name = key.rpartition(".") if "." in key else (group, "", key)
    return getattr(experiment.group(group), name, UNKNOWN)


def failing(experiment: Experiment, group: str, when: str, actions: str | None = None) -> str:
    """The first comparison of `when` that does not hold, with the names a user types; "" where all hold or cannot be known."""
    for left, sign, right in comparisons(when) if when else ():
        value = value_of(experiment, group, left, actions)
        sibling = getattr(experiment.group(group), right, UNKNOWN) if isinstance(right, str) else UNKNOWN
        wanted = right if sibling is UNKNOWN else sibling
        if value is not UNKNOWN and not OPERATORS[sign](value, wanted):
            prefix = "" if left in (*GROUPS, "algo", "env", "data", "continues", "actions") or "." in left or not group else f"{group}."
            return f"{prefix}{left}{sign}{text_of(right)}"
    return ""


def text_of(value: Any) -> str:
    """A value as it is typed: null, true, 0.5, m2ac."""
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()


def default_of(field: "Field[Any]") -> Any:
    """The default of a dataclass's field; UNKNOWN where it has none."""
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else UNKNOWN


def meaningless(experiment: Experiment, entry: Entry, actions: str | None = None) -> dict[str, str]:
    """Every option without a meaning in the experiment, "agent.tau" -> the condition under which it would count.

    Args:
        experiment: the experiment.
        entry: the registry entry of its algorithm.
        actions: `EnvSpec.actions`, the kind of the environment's actions, where it is known; conditions on it hold otherwise.
    """
    without_model = entry.no_model and not failing(experiment, "imagination", entry.no_model)
    conditions: dict[str, str] = {}
    for group in NESTED:
        options = experiment.group(group)
        for f in fields(options) if options is not None else ():
            key = f"{group}.{f.name}" if group else f.name
            if without_model and (group == "dynamics" or key in ("loop.fit", "loop.fit_every")):
                conditions[key] = f"a model is used, which imagination.{entry.no_model} leaves out"
            elif missing := failing(experiment, group, f.metadata.get("when", ""), actions):
                conditions[key] = missing
    return conditions


def counting(experiment: Experiment, group: str, without: dict[str, str]) -> list[str]:
    """Names of the group's options that count: all but those in `without`."""
    options = experiment.group(group)
    names = [f.name for f in fields(options) if f.name not in (*GROUPS, *NESTED, "typed", "objects", "algo")] if options is not None else []
    return [name for name in names if (f"{group}.{name}" if group else name) not in without]
