"""The command that repeats a run."""

import re
import shlex
from collections.abc import Mapping
from typing import Any

from mbkit.config import GROUPS, REGISTRIES, compose
from mbkit.config.dialect import value_text
from mbkit.config.identity import comparable, flatten
from mbkit.errors import UserError
from mbkit.report.collect import RunRecord

LEADING = ("env", "preset", "seed", "steps")  # options that come first
DECIDED = ("continues", "preset", "data_top")  # options that a run decides for the one that goes on from it
PLAIN_TEXT = re.compile(r"(?!(?:true|false|null|yes|no|on|off|y|n|nan|inf)$)[A-Za-z_][\w./:-]*", re.IGNORECASE)


def command(run: RunRecord) -> str:
    """`mbkit train ...` with the options that differ from defaults and preset, or with all where those cannot be composed here."""
    if run.config.get("continues") is not None:
        return full_command(run)
    options = settings(run.config)
    chosen = {key: options[key] for key in ("env", "preset") if options.get(key) is not None}
    parts = {key: options[key] for key in REGISTRIES if options.get(key) is not None}
    try:
        default = _composed(run.algo, chosen | parts) | {
            key: value for key, value in _composed(run.algo, chosen).items() if key in REGISTRIES
        }
    except UserError:  # a plug-in that is not installed here, or a configuration of another version
        return full_command(run)
    shown = (*chosen, "seed", "steps")
    same = {key for key in options if key in default and comparable(default[key]) == comparable(options[key])}
    return _line(run, {key: value for key, value in options.items() if key in shown or key not in same})


def _composed(algo: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    return settings(compose(algo, [f"{key}={override(value)}" for key, value in chosen.items()]).to_dict())


def full_command(run: RunRecord) -> str:
    """`mbkit train ...` with every option of the run's configuration, so that a later change of a preset changes nothing."""
    return _line(run, settings(run.config))


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as options of the command line: `dynamics=ensemble`, not `dynamics.name`; without the run directory."""
    implied = [(f"{group}.name", config.get("algo")) for group in GROUPS]  # the algorithm itself fills this group
    leaves = {key: value for key, value in flatten(config).items() if key not in ("algo", "run_dir") and (key, value) not in implied}
    return {key.removesuffix(".name") if key.removesuffix(".name") in REGISTRIES else key: value for key, value in leaves.items()}


def _line(run: RunRecord, leaves: Mapping[str, Any]) -> str:
    begin = ["mbkit train", run.algo]
    if (before := run.config.get("continues")) is not None:
        begin = ["mbkit finetune", shlex.quote(str(before))]
        leaves = {key: value for key, value in leaves.items() if key not in DECIDED}
    keys = [key for key in LEADING if key in leaves] + [key for key in leaves if key not in LEADING]
    return " ".join([*begin, *(shlex.quote(f"{key}={override(leaves[key])}") for key in keys)])


def override(value: Any) -> str:
    """A value as written on the command line: 0.001, null, [200,200]; text without quotes where YAML reads it as text."""
    return value if isinstance(value, str) and PLAIN_TEXT.fullmatch(value) else value_text(value)
