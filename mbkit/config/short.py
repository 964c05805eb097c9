"""Short forms of options: `reward=` and `termination=` for `dynamics.reward=` and `dynamics.termination=`."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mbkit import registry
from mbkit.config.imports import SHORT
from mbkit.errors import UserError
from mbkit.registry import Entry


def spelled_out(entry: Entry, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with short forms in their group; UserError where the algorithm has no model that could use them."""
    long = {key: value for key, value in options.items() if key not in SHORT}
    for short in SHORT.keys() & options.keys():
        if "dynamics" not in entry.defaults:
            raise UserError(
                f"{short}= has no meaning for {entry.name}, which has no model to use it: it learns from what the task itself returns"
            )
        group = dict(long.get("dynamics") or {})
        if short in group:
            raise UserError(f"{short}= and {SHORT[short]}= set the same option; expected one of them")
        name = str(group.get("name", entry.defaults["dynamics"]["name"]))
        if name in registry.dynamics and short not in {f.name for f in fields(registry.dynamics[name].config)}:
            raise UserError(f"{short}= has no meaning for dynamics={name}, which takes what the task itself returns")
        long["dynamics"] = {**group, short: options[short]}
    return long
