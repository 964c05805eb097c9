"""The command that repeats a run."""

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from mbkit.config import GROUPS, REGISTRIES, compose
from mbkit.errors import UserError
from mbkit.report.collect import Run, flatten

LEADING = ("env", "preset", "seed", "steps")
PLAIN_TEXT = re.compile(r"(?!(?:true|false|null|yes|no|on|off|y|n|nan|inf)$)[A-Za-z_][\w./:-]*", re.IGNORECASE)


def command(run: Run) -> str:
    """`mbkit train ...` with what differs from the defaults and the preset; with everything where those cannot be composed here."""
    own = settings(run.config)
    chosen = {key: own[key] for key in ("env", "preset") if own.get(key) is not None}
    parts = {key: own[key] for key in REGISTRIES if own.get(key) is not None}
    try:
        default = _composed(run.algo, chosen | parts) | {
            key: value for key, value in _composed(run.algo, chosen).items() if key in REGISTRIES
        }
    except UserError:  # a plug-in that is not installed here, or a configuration of another version
        return full_command(run)
    named = {**chosen, "seed": own.get("seed"), "steps": own.get("steps")}
    return _line(run.algo, {key: value for key, value in own.items() if key in named or key not in default or default[key] != value})


def _composed(algo: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    return settings(compose(algo, [f"{key}={override(value)}" for key, value in chosen.items()]).to_dict())


def full_command(run: Run) -> str:
    """`mbkit train ...` with every value of the run's configuration, so that a later change of a preset changes nothing."""
    return _line(run.algo, settings(run.config))


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves by the names of the command line: `dynamics=ensemble`, not `dynamics.name`; without the run directory, which is taken."""
    own = [(f"{group}.name", config.get("algo")) for group in GROUPS]  # the group that the algorithm itself fills needs no name
    leaves = {key: value for key, value in flatten(config) if key not in ("algo", "run_dir") and (key, value) not in own}
    return {key.removesuffix(".name") if key.removesuffix(".name") in REGISTRIES else key: value for key, value in leaves.items()}


def _line(algo: str, leaves: Mapping[str, Any]) -> str:
    keys = [key for key in LEADING if key in leaves] + [key for key in leaves if key not in LEADING]
    return " ".join(["mbkit train", algo, *(shlex.quote(f"{key}={override(leaves[key])}") for key in keys)])


def override(value: Any) -> str:
    """A value as it is written on the command line: 0.001, null, [200,200]; text bare where YAML cannot mistake it."""
    return value if isinstance(value, str) and PLAIN_TEXT.fullmatch(value) else json.dumps(value, separators=(",", ":"))
