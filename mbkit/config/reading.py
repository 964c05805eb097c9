"""YAML text and `key=value` options, read the same way; a mistake names its source."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mbkit.config.schema import Experiment
from mbkit.errors import UserError
from mbkit.registry import nearest

ODD = {
    r"[+-]?0[0-9_]+(\.[0-9_]*)?([eE][+-]?[0-9]+)?": "has a leading zero, which YAML may read as octal; write the number without it",
    r"[+-]?[0-9_]+(:[0-5]?[0-9])+(\.[0-9_]*)?": "is a number to the base of sixty in YAML; write it in seconds, or in quotes",
}


def config_root() -> Path:
    """Where the presets live: inside the installed package, or at the top of the source tree."""
    package = Path(__file__).parent.parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def refuse_odd_numbers(text: str, where: str) -> None:
    """YAML reads `lr: 00143` as octal 99 and `steps: 1:30` as 90; nobody means that."""
    numbers = (token.value for token in yaml.scan(text) if isinstance(token, yaml.ScalarToken) and token.plain)
    for number in numbers:
        for pattern, why in ODD.items():
            if re.fullmatch(pattern, number):
                raise UserError(f"{where}: {number} {why}")


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML the way OmegaConf does (1e-3 is a number); a syntax error names its source."""
    try:
        refuse_odd_numbers(text, where)
        return OmegaConf.to_container(OmegaConf.create({"value": OmegaConf.create(text)}))["value"]  # type: ignore[index,call-overload]
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{where} is not valid YAML: {str(error).splitlines()[0]}") from error


def read_value(text: str, where: str) -> Any:
    """The value of `key=value`, as YAML reads it."""
    try:
        refuse_odd_numbers(text, where)
        return OmegaConf.to_container(OmegaConf.create(f"value: {text}" if text else "value: ''"))["value"]  # type: ignore[call-overload,index]
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"cannot read the value of {where!r}: {str(error).splitlines()[0]}") from error


def parse_overrides(arguments: Sequence[str], named: Sequence[str] = ("agent", "dynamics", "planner")) -> dict[str, Any]:
    """["agent.lr=1e-3", "planner=cem"] -> {"agent": {"lr": 0.001}, "planner": {"name": "cem"}}; later ones win.

    `named` are the groups whose part is chosen by its bare name.
    """
    tree: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key):
            raise UserError(f"cannot read {argument!r}: options are written key=value, for example steps=3000 or planner.iterations=5")
        value = read_value(text, argument)
        *path, last = key.split(".")
        if not path and last in named and not isinstance(value, Mapping):
            path, last = [last], "name"
        node = tree
        for name in path:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise UserError(f"{argument!r} sets a part of {name!r}, which an earlier option set to {node!r}")
        node[last] = value
    return tree


def is_own_file(preset: Any) -> bool:
    """Whether `preset=` names a YAML file of the user's rather than a preset that mbkit ships."""
    return isinstance(preset, str) and preset.endswith((".yaml", ".yml"))


def preset_text(experiment: Experiment) -> str:
    """The preset of an experiment in words: "preset demo", "default preset" or "no preset"."""
    if experiment.preset is not None:
        return f"preset {experiment.preset}"
    has = (config_root() / experiment.algo / f"{experiment.env.replace('/', '-')}.yaml").is_file()
    return "default preset" if has else "no preset"


def read_preset(algo: str, env: str, preset: Any) -> dict[str, Any]:
    """Options of the preset, none where the environment has no default one; UserError where a named preset or file does not exist."""
    path = Path(str(preset)) if is_own_file(preset) else _shipped(algo, env, preset)
    if path is None:
        return {}
    try:
        options = read_yaml(path.read_text(), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"preset={preset}: {path} cannot be read ({getattr(error, 'strerror', error)})") from error
    if options is not None and not isinstance(options, dict):
        raise UserError(f"{path.name} must hold a mapping of options to values, came a {type(options).__name__}")
    return options or {}


def _shipped(algo: str, env: str, preset: Any) -> Path | None:
    stem = env.replace("/", "-")
    path = config_root() / algo / f"{stem}.{preset}.yaml" if preset else config_root() / algo / f"{stem}.yaml"
    if path.is_file():
        return path
    if preset is None:
        return None
    known = [p.stem.removeprefix(stem + ".") for p in (config_root() / algo).glob(f"{stem}.*.yaml")]
    raise UserError(f"there is no preset {preset!r} for {algo} on {env}; {nearest(str(preset), known)}")
