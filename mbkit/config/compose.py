"""YAML preset + command-line overrides -> one typed, validated, frozen `Experiment`.

An algorithm's registry entry says which groups it has and which part stands in each by default (`planner="icem"`); a preset in
`configs/ALGO/ENV.yaml` and the user's `key=value` words go on top, in that order. Every mistake is a `UserError` that names the key.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mbkit import registry
from mbkit.config.schema import GROUPS, CheckpointConfig, EvalConfig, Experiment, LoopConfig, Options, Part
from mbkit.errors import UserError
from mbkit.registry import Entry, nearest

REGISTRIES = {"agent": registry.agents, "dynamics": registry.dynamics, "planner": registry.planners}


REGISTRIES = {"agent": registry.agents, "dynamics": registry.dynamics, "planner": registry.planners}

# --- reading


def config_root() -> Path:
    """Where the presets live: inside the installed package, or at the top of the source tree."""
    installed = Path(__file__).parent.parent / "configs"
    return installed if installed.is_dir() else installed.parent.parent / "configs"


ODD = {
    r"[+-]?0[0-9_]+(\.[0-9_]*)?([eE][+-]?[0-9]+)?": "has a leading zero, which YAML may read as octal; write the number without it",
    r"[+-]?[0-9_]+(:[0-5]?[0-9])+(\.[0-9_]*)?": "is a number to the base of sixty in YAML; write it in seconds, or in quotes",
}


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


def preset_path(algo: str, env: str, preset: str | None) -> Path | None:
    """File of the preset, None where the environment has no default one; an unknown named preset is an error."""
    stem = env.replace("/", "-") + (f".{preset}" if preset else "")
    path = config_root() / algo / f"{stem}.yaml"
    if path.is_file():
        return path
    if preset is None:
        return None
    have = [p.stem.removeprefix(env + ".") for p in (config_root() / algo).glob(f"{env.replace('/', '-')}.*.yaml")]
    raise UserError(f"there is no preset {preset!r} for {algo} on {env}; {nearest(preset, have)}")


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """["agent.lr=1e-3", "planner=cem"] -> {"agent": {"lr": 0.001}, "planner": {"name": "cem"}}; later words win."""
    tree: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key):
            raise UserError(f"cannot read {word!r}: options are written key=value, for example steps=3000 or planner.iterations=5")
        value = _scalar(text, word)
        *path, last = key.split(".")
        if not path and last in REGISTRIES and not isinstance(value, Mapping):
            path, last = [last], "name"
        node = tree
        for name in path:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise UserError(f"{word!r} sets a part of {name!r}, which an earlier option set to {node!r}")
        node[last] = value
    return tree


def _scalar(text: str, word: str) -> Any:
    try:
        refuse_odd_numbers(text, word)
        return OmegaConf.to_container(OmegaConf.create(f"value: {text}" if text else "value: ''"))["value"]  # type: ignore[call-overload,index]
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"cannot read the value of {word!r}: {str(error).splitlines()[0]}") from error


# ------------------------------------------------------------------------------------------------------------------- composing


def algorithm(algo: str) -> Entry:
    """Recipes and agents share one namespace."""
    if algo in registry.recipes:
        return registry.recipes[algo]
    if algo in registry.agents:
        return registry.agents[algo]
    known = [entry.name for kind in (registry.recipes, registry.agents) for entry in kind]
    raise UserError(f"unknown algorithm {algo!r}; {nearest(algo, known)}")


def compose(algo: str, overrides: Sequence[str] = ()) -> Experiment:
    """Defaults <- preset <- `key=value` words. Raises UserError naming the first key that is unknown, mistyped or out of range."""
    entry = algorithm(algo)
    words = parse_overrides(overrides)
    chosen = words.get("agent")
    for key, given in (("algo", "algo" in words), ("agent", isinstance(chosen, Mapping) and "name" in chosen)):
        if given and (key == "algo" or "agent" not in entry.defaults):
            raise UserError(f"{key}= is not an option: the algorithm is the word after `train`, here {algo!r}")
    env = words.get("env", entry.defaults.get("env"))
    if not isinstance(env, str):
        raise UserError(f"env must be the name of an environment, e.g. env=cartpole or env=HalfCheetah-v5; came {env!r}")
    layers = [dict(entry.defaults)]
    path = preset_path(algo, env, words.get("preset"))
    if path is not None:
        layers.append(read_yaml(path.read_text(), path.name) or {})
    tree: dict[str, Any] = {}
    for layer in [*layers, words]:
        tree = _merge(tree, layer)
    return from_dict({**tree, "algo": algo, "env": env})


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`high` wins; a group whose part is swapped forgets the fields of the old part."""
    out = dict(low)
    for key, value in high.items():
        if key in REGISTRIES and isinstance(value, str):
            value = {"name": value}
        old = out.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            swapped = key in REGISTRIES and value.get("name", old.get("name")) != old.get("name")
            value = dict(value) if swapped else _merge(old, value)
        out[key] = value
    return out


def from_dict(tree: Mapping[str, Any]) -> Experiment:
    """The tree of a config.yaml, checked field by field."""
    if not isinstance(tree, Mapping):
        raise UserError(f"a configuration is a mapping of options to values; came a {type(tree).__name__}")
    entry = algorithm(str(tree.get("algo")))
    top = {k: v for k, v in tree.items() if k not in GROUPS}
    nested = {"eval": EvalConfig, "checkpoint": CheckpointConfig, "loop": LoopConfig}
    known = {f.name for f in fields(Experiment)}
    for key in tree:
        if key not in known:
            raise UserError(f"unknown option {key!r}; {nearest(key, known)}")
    values: dict[str, Any] = {k: _fill(cls, top.pop(k, {}), f"{k}.") for k, cls in nested.items()}
    for group in GROUPS:
        values[group] = _part(entry, group, tree.get(group))
    options = _fill(Options, top, "")
    return Experiment(**{f.name: getattr(options, f.name) for f in fields(Options)}, **values)


def own_group(entry: Entry) -> str:
    """The group that the algorithm's own configuration fills: a recipe round an exchangeable agent says how it imagines."""
    return "imagination" if "agent" in entry.defaults else "agent"


def _part(entry: Entry, group: str, given: Any) -> Part | None:
    given = {"name": given} if isinstance(given, str) else dict(given or {})
    if group == own_group(entry):
        given.pop("name", None)
        return Part(entry.name, _fill(entry.config, given, f"{group}."))
    if group not in entry.defaults:
        if given:
            raise UserError(f"{entry.name} has no {group}: the option {group}={given!r} does not apply")
        return None
    name = given.pop("name", entry.defaults[group]["name"])
    return Part(name, _fill(REGISTRIES[group][str(name)].config, given, f"{group}."))


def _fill(cls: type, given: Any, prefix: str) -> Any:
    """`cls` with the given fields set, one at a time so that the culprit can be named."""
    if not isinstance(given, Mapping):
        raise UserError(f"{prefix.rstrip('.')} is a group of options ({', '.join(f.name for f in fields(cls))}); came {given!r}")
    known = {f.name: f for f in fields(cls)}
    plain = OmegaConf.structured(cls)
    for key, value in given.items():
        if key not in known:
            raise UserError(f"unknown option {prefix}{key!s}; {nearest(f'{prefix}{key}', [prefix + name for name in known])}")
        if isinstance(value, float) and value.is_integer() and get_type_hints(cls)[key] is int:
            value = int(value)  # steps=1e5
        try:
            plain = OmegaConf.merge(plain, {key: value})
        except OmegaConfBaseException:
            raise UserError(f"{prefix}{key}={value!r} does not fit: expected {type_words(cls, key)}") from None
    config = OmegaConf.to_object(plain)
    for name, f in known.items():
        check_range(f.metadata, getattr(config, name), f"{prefix}{name}")
    return config


def check_range(limits: Mapping[str, Any], value: Any, name: str) -> None:
    """UserError where a number, or one of several, lies outside a field's range."""
    for number in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            continue
        low, high = limits.get("low", -math.inf), limits.get("high", math.inf)
        above, below = limits.get("above", -math.inf), limits.get("below", math.inf)
        if not math.isfinite(number) or not (low <= number <= high and above < number < below):
            raise UserError(f"{name}={value!r} is out of range: expected {range_words(limits) or 'a number'}")


def range_words(limits: Mapping[str, Any]) -> str:
    """'> 0', '>= 1', 'in [0, 1]', 'in [0, 1)' or ''."""
    if "below" in limits:
        return f"in [{limits['low']}, {limits['below']})"
    if "above" in limits:
        return f"> {limits['above']}"
    if "low" in limits and "high" in limits:
        return f"in [{limits['low']}, {limits['high']}]"
    return f">= {limits['low']}" if "low" in limits else f"<= {limits['high']}" if "high" in limits else ""


def type_words(cls: type, key: str) -> str:
    """A field's type as a user reads it."""
    hint = get_type_hints(cls)[key]
    words = getattr(hint, "__name__", str(hint)) if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)
    return words.replace("typing.", "").replace("Literal", "one of ")


def to_yaml(experiment: Experiment) -> str:
    """The experiment as a config.yaml that `from_dict` takes back."""
    return yaml.safe_dump(experiment.to_dict(), sort_keys=False, default_flow_style=None)
