"""YAML text and `key=value` options, read the same way; a mistake names its source."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mbkit.config import dialect
from mbkit.config.dialect import ODD
from mbkit.config.schema import Experiment
from mbkit.errors import UserError
from mbkit.paths import is_dir, is_file, matching, read_text, short
from mbkit.registry import nearest

TASK = "env_kwargs"  # the group whose values are the task's, and reach it as they are


def config_root() -> Path:
    """Where the presets live: inside the installed package, or at the top of the source tree."""
    package = Path(__file__).parent.parent
    installed = package / "configs"
    return installed if is_dir(installed) else package.parent / "configs"


def refuse_odd_numbers(text: str, where: str) -> None:
    """YAML reads `lr: 00143` as octal 99 and `steps: 1:30` as 90; nobody means that."""
    numbers = (token.value for token in yaml.scan(text) if isinstance(token, yaml.ScalarToken) and token.plain)  # type: ignore[no-untyped-call]
    for number in numbers:
        refuse_odd_number(number, where)


def refuse_odd_number(number: str, where: str) -> None:
    """UserError for one such number."""
    for pattern, why in ODD.items():
        if re.fullmatch(pattern, number):
            raise UserError(f"{where}: {number} {why}")


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML (1e-3 is a number, `no` is text); a syntax error names its source."""
    try:
        refuse_odd_numbers(text, where)
        return dialect.load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not valid YAML: {str(error).splitlines()[0]}") from error


def read_value(text: str, where: str, verbatim: bool = False, of_task: bool = False) -> Any:
    """The value of `key=value`: a list, a mapping or quoted text as YAML reads it, else a number, true, false, null or text.

    Args:
        text: what stands behind `key=`.
        where: the whole option, for messages.
        verbatim: the option is a name or a path: all text but `null` and text in quotes stands for itself.
        of_task: the option is an argument of a task, where 007 is text.
    """
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    if verbatim and not quoted:
        return None if text == "null" else text
    try:
        if quoted and text[0] == '"':
            return json.loads(text)
    except ValueError:
        pass  # YAML has more escapes
    try:
        if dialect.STRUCTURE.match(text):
            if not of_task:
                refuse_odd_numbers(text, where)
            return dialect.load(text)
        if not of_task:
            refuse_odd_number(text, where)
        return dialect.scalar(text)
    except yaml.YAMLError as error:
        raise UserError(f"cannot read the value of {where!r}: {str(error).splitlines()[0]}") from error


def parse_overrides(
    arguments: Sequence[str],
    named: Sequence[str] = ("agent", "dynamics", "planner"),
    options: Mapping[str, Any] | None = None,
    verbatim: Callable[[str], bool] = lambda key: key == "run_dir",
) -> dict[str, Any]:
    """["agent.lr=1e-3", "planner=cem"] -> {"agent": {"lr": 0.001}, "planner": {"name": "cem"}}; later ones win.

    Args:
        arguments: `key=value` texts.
        named: the groups whose part is chosen by its bare name.
        options: the same as Python values, which win: {"planner": {"elites": 5}, "env_kwargs": {"mass": 1.5}}.
        verbatim: whether the option "group.key" is a name or a path, whose text is not interpreted.
    """
    tree: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not re.fullmatch(r"[^\W\d][\w.]*", key):
            raise UserError(f"cannot read {argument!r}: options are written key=value, for example steps=3000 or planner.iterations=5")
        _set(tree, key.split("."), read_value(text, argument, verbatim(key), key.startswith(TASK)), argument, named)
    for path, value in _leaves(options or {}):
        _set(tree, path, value, f"{'.'.join(map(str, path))}={value!r}", named)
    return tree


def _leaves(options: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[list[str], Any]]:
    """Python options with the paths to them; a task's arguments are left as they are."""
    for key, value in options.items():
        path = (*prefix, *key.split(".")) if isinstance(key, str) and prefix != (TASK,) else (*prefix, key)
        if isinstance(value, Mapping) and (len(path) == 1 or path[0] != TASK):
            yield from _leaves(value, path)
        else:
            yield list(path), value if path[0] == TASK else _plain(value)


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's, a path as text."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _set(tree: dict[str, Any], path: list[str], value: Any, text: str, named: Sequence[str]) -> None:
    """Set a leaf of the tree; `text` is the option as the user wrote it."""
    *groups, last = path
    if not groups and last in named and not isinstance(value, Mapping):
        groups, last = [last], "name"
    node = tree
    for name in groups:
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise UserError(f"{text!r} sets a part of {name!r}, which an earlier option set to {node!r}")
    node[last] = value


def is_own_file(preset: Any) -> bool:
    """Whether `preset=` names a YAML file of the user's rather than a preset that mbkit ships."""
    return isinstance(preset, str) and preset.endswith((".yaml", ".yml"))


def preset_text(experiment: Experiment) -> str:
    """The preset of an experiment in words: "preset demo", "default preset" or "no preset"."""
    if experiment.preset is not None:
        return f"preset {short(experiment.preset)}"
    has = is_file(config_root() / experiment.algo / f"{experiment.env.replace('/', '-')}.yaml")
    return "default preset" if has else "no preset"


def read_preset(algo: str, env: str, preset: Any) -> dict[str, Any]:
    """Options of the preset, none where the environment has no default one; UserError where a named preset or file does not exist."""
    path = Path(str(preset)) if is_own_file(preset) else _shipped(algo, env, preset)
    if path is None:
        return {}
    options = read_yaml(read_text(path, "preset="), short(path.name))
    if options is not None and not isinstance(options, dict):
        raise UserError(f"{short(path.name)} must hold a mapping of options to values, came a {type(options).__name__}")
    return options or {}


def _shipped(algo: str, env: str, preset: Any) -> Path | None:
    stem = env.replace("/", "-")
    path = config_root() / algo / f"{stem}.{preset}.yaml" if preset else config_root() / algo / f"{stem}.yaml"
    if is_file(path):
        return path
    if preset is None:
        return None
    files = (p for p in matching(config_root() / algo, "*.yaml") if p.name.startswith(f"{stem}."))
    known = [p.stem.removeprefix(f"{stem}.") for p in files if p.stem != stem]
    raise UserError(f"there is no preset '{short(preset)}' for {algo} on {short(env)}; {nearest(str(preset), known)}")
