"""Defaults <- preset <- the user's options, composed to one typed, validated, frozen `Experiment`.

An algorithm's registry entry says which groups it has, which part stands in each by default and which class of loop options it uses. Every
mistake is a `UserError` that names the option; an option without a meaning in the experiment is a mistake too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mbkit import registry
from mbkit.config import dialect
from mbkit.config.conditions import UNKNOWN, counting, default_of, meaningless
from mbkit.config.identity import flatten
from mbkit.config.ranges import check_range, check_steps, type_text
from mbkit.config.reading import is_own_file, parse_overrides, read_preset
from mbkit.config.regimes import (
    OFFLINE_DEFAULTS,
    ONLINE,
    algorithm,
    check_agent,
    check_offline,
    have,
    loop_class,
    only_offline,
    own_group,
    refuse_foreign,
)
from mbkit.config.schema import (
    GROUPS,
    CheckpointConfig,
    EvalConfig,
    Experiment,
    Options,
    Part,
)
from mbkit.config.short import spelled_out
from mbkit.config.threads import default_threads
from mbkit.errors import UserError
from mbkit.registry import Entry, nearest

TEXT = (str, str | None)  # types of options that are names or paths
REGISTRIES = {"agent": registry.agents, "dynamics": registry.dynamics, "planner": registry.planners}


def is_text(key: str) -> bool:
    """Whether the option "group.key" is a name or a path, so that its text is not interpreted."""
    group, _, name = key.rpartition(".")
    classes = [entry.config for entry in REGISTRIES[group]] if group in REGISTRIES else [] if group else [Options]
    return any(get_type_hints(cls).get(name) in TEXT for cls in classes)


def compose(algo: str, overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None) -> Experiment:
    """The experiment of an algorithm, its preset, `key=value` options and options as Python values, {"planner": {"elites": 5}}.

    Raises:
        UserError: an option that is unknown, mistyped, out of range, or without a meaning here.
    """
    entry = algorithm(algo)
    options = spelled_out(entry, parse_overrides(overrides, options=values, verbatim=is_text))
    agent = options.get("agent")
    for key, typed in (("algo", "algo" in options), ("agent", isinstance(agent, Mapping) and "name" in agent)):
        if typed and (key == "algo" or "agent" not in entry.defaults):
            raise UserError(f"{key}= is not an option: the algorithm is the word after `train`, here {algo!r}")
    offline, defaults = options.get("data") is not None or only_offline(entry), entry.defaults
    if offline and not only_offline(entry):
        check_offline(entry, str(options["data"]))
        defaults = {k: v for k, v in defaults.items() if k not in ONLINE}
    env = options.get("env", "none" if offline else defaults.get("env"))
    if not isinstance(env, str):
        raise UserError(f"env must be the name of an environment, for example env=cartpole or env=HalfCheetah-v5; came {env!r}")
    preset = read_preset(algo, env, options.get("preset"))
    if offline and not only_offline(entry) and not is_own_file(options.get("preset")):
        preset = {k: v for k, v in preset.items() if k not in ONLINE}
    defaults = merge(OFFLINE_DEFAULTS, defaults) if offline else defaults
    typed_tree = merge(preset, options) if is_own_file(options.get("preset")) else options
    if options.get("continues") is not None:
        raise UserError(f"continues= is not an option of train: `mbkit finetune {options['continues']}` goes on from a run")
    return composed({**merge(merge(defaults, preset), options), "algo": algo, "env": env}, frozenset(flatten(typed_tree)), entry)


def composed(tree: Mapping[str, Any], typed: frozenset[str], entry: Entry) -> Experiment:
    """The experiment of a tree; UserError where the keys that the user typed have no meaning in it."""
    experiment = from_dict(tree, typed)
    without = meaningless(experiment, entry)
    refuse_meaningless(experiment, entry, without)
    counted = without_keys(tree, without)  # without what a preset sets beside a condition that an option removed
    return experiment if counted == tree else from_dict(counted, experiment.typed)


def merge(low: Mapping[str, Any], high: Mapping[str, Any], parts: Mapping[str, Any] = REGISTRIES) -> dict[str, Any]:
    """`high` wins; a group whose part is exchanged forgets the options of the old part."""
    out = dict(low)
    for key, value in high.items():
        if key in parts and isinstance(value, str):
            value = {"name": value}
        old = out.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            swapped = key in parts and value.get("name", old.get("name")) != old.get("name")
            value = dict(value) if swapped else merge(old, value, {})
        out[key] = value
    return out


def without_keys(tree: Mapping[str, Any], keys: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The tree without the leaves named in `keys`, "agent.tau"."""
    pruned = {k: without_keys(v, keys, f"{prefix}{k}.") if isinstance(v, Mapping) else v for k, v in tree.items()}
    return {k: v for k, v in pruned.items() if f"{prefix}{k}" not in keys}


def refuse_meaningless(experiment: Experiment, entry: Entry, without: Mapping[str, str]) -> None:
    """UserError where the user typed options that mean nothing, naming them, what they need, and what counts instead."""
    typed = [key for key in without if key in experiment.typed]
    if not typed:
        return
    needs = "; ".join(f"{key} counts only where {without[key]}" for key in typed)
    group = typed[0].rpartition(".")[0]
    names = counting(experiment, group, dict(without))
    where = f"{group}.*" if group else "all options"
    raise UserError(f"{', '.join(typed)} {have(typed)} no meaning here: {needs}; of {where} these have one: {', '.join(names) or 'none'}")


def from_dict(tree: Mapping[str, Any], typed: frozenset[str] = frozenset()) -> Experiment:
    """The tree of a config.yaml, checked option by option; `typed` are the keys that the user set himself."""
    if not isinstance(tree, Mapping):
        raise UserError(f"a configuration is a mapping of options to values; came a {type(tree).__name__}")
    entry = algorithm(str(tree.get("algo")))
    offline, top = tree.get("data") is not None, {k: v for k, v in tree.items() if k not in GROUPS}
    continues = tree.get("continues") is not None
    nested = {"eval": EvalConfig, "checkpoint": CheckpointConfig, "loop": loop_class(entry, offline, continues)}
    known = {f.name for f in fields(Experiment)} - {"typed", "objects"}
    for key in tree:
        if key not in known:
            raise UserError(f"unknown option {key!r}; {nearest(str(key), known)}")
    refuse_foreign(entry, top.get("loop", {}), offline, continues)
    values: dict[str, Any] = {k: filled(cls, top.pop(k, {}), f"{k}.") for k, cls in nested.items()}
    for group in GROUPS:
        values[group] = _part(entry, group, tree.get(group))
    options = filled(Options, top, "")
    check_agent(entry, values["agent"], offline or only_offline(entry))
    if options.gamma == 1 and not (entry.loop is not None and own_group(entry) == "agent"):
        raise UserError("gamma=1 is out of range: expected in [0, 1), since values of an endless future are learned")
    experiment = Experiment(**{f.name: getattr(options, f.name) for f in fields(Options)}, **values, typed=typed)
    check_steps(experiment)
    return experiment if experiment.threads else replace(experiment, threads=default_threads(experiment))


def _part(entry: Entry, group: str, options: Any) -> Part | None:
    if options is not None and not isinstance(options, (str, Mapping)):
        raise UserError(f"{group} is a group of options, or the name of a part; came {options!r}")
    options = {"name": options} if isinstance(options, str) else dict(options or {})
    if group == own_group(entry):
        options.pop("name", None)
        return Part(entry.name, filled(entry.config, options, f"{group}."))
    if group == "imagination" and entry.imagination is not None:
        options.pop("name", None)
        return Part(entry.name, filled(entry.imagination, options, f"{group}."))
    if group not in entry.defaults:
        if options:
            raise UserError(f"{entry.name} has no {group}: the option {group}={options!r} does not apply")
        return None
    name = options.pop("name", entry.defaults[group]["name"])
    return Part(name, filled(REGISTRIES[group][str(name)].config, options, f"{group}."))


def filled(cls: type, options: Any, prefix: str) -> Any:
    """`cls` with these options set, one at a time so that the culprit can be named."""
    if not isinstance(options, Mapping):
        raise UserError(f"{prefix.rstrip('.')} is a group of options ({', '.join(f.name for f in fields(cls))}); came {options!r}")
    known, hints = {f.name: f for f in fields(cls)}, get_type_hints(cls)
    plain, exact = OmegaConf.structured(cls), {}
    for key, value in options.items():
        if key not in known:
            raise UserError(f"unknown option {prefix}{key!s}; {nearest(f'{prefix}{key}', [prefix + name for name in known])}")
        if hints[key] in (*TEXT, dict[str, Any]):
            exact[key] = _exact(hints[key], value, f"{prefix}{key}")
            value = "" if hints[key] is str else plain[key]
        elif isinstance(value, float) and value.is_integer() and hints[key] is int:
            value = int(value)  # steps=1e5
        try:
            if _refers(value) or _nested(value):
                raise OmegaConfBaseException
            plain = OmegaConf.merge(plain, {key: value})
        except (OmegaConfBaseException, TypeError, ValueError):  # the latter two of a mapping where a list is expected
            raise UserError(f"{prefix}{key}={value!r} does not fit: expected {type_text(cls, key)}") from None
    try:
        config = replace(OmegaConf.to_object(plain), **exact)  # type: ignore[type-var]
    except OmegaConfBaseException as error:  # a value that refers to another with ${...}, or an option without a default
        raise UserError(f"{prefix}{error.full_key} has no value: {str(error).splitlines()[0]}") from None
    for name, f in known.items():
        check_range(f.metadata, getattr(config, name), f"{prefix}{name}")
    return config


def _exact(hint: Any, value: Any, name: str) -> Any:
    """A name, a path, or the arguments of a task, which OmegaConf would convert or resolve; UserError where it is none."""
    if hint == dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise UserError(f"{name}={value!r} does not fit: expected a mapping of names to values")
        return dialect.argument_value(value, name)
    if isinstance(value, str | Path) or type(value) is int or (value is None and hint is not str):
        return value if value is None else str(value)
    raise UserError(f"{name}={value!r} does not fit: expected text")


def _refers(value: Any) -> bool:
    """Whether text in the value would be resolved by OmegaConf (`${...}`) or stand for a missing value (`???`)."""
    if isinstance(value, str):
        return "${" in value or value == "???"
    return isinstance(value, list | tuple) and any(map(_refers, value))


def _nested(value: Any) -> bool:
    """Whether a list holds lists or mappings, which no option does."""
    return isinstance(value, list | tuple) and any(isinstance(item, list | tuple | Mapping) for item in value)


def check_actions(experiment: Experiment, actions: str) -> None:
    """UserError where the user typed an option that means nothing with the environment's kind of actions, `EnvSpec.actions`."""
    entry = algorithm(experiment.algo)
    refuse_meaningless(experiment, entry, meaningless(experiment, entry, actions))


def to_yaml(experiment: Experiment, actions: str | None = None) -> str:
    """The experiment as a config.yaml that `from_dict` takes back; options without a meaning are left out at their defaults.

    `actions` is the kind of the environment's, `EnvSpec.actions`, where it is known.
    """
    without = meaningless(experiment, algorithm(experiment.algo), actions)
    at_default = {key: None for key in without if _is_default(experiment, key)}
    return dialect.dump(without_keys(experiment.to_dict(), at_default))


def _is_default(experiment: Experiment, key: str) -> bool:
    group, _, name = key.rpartition(".")
    options = experiment.group(group)
    default = next(default_of(f) for f in fields(options) if f.name == name)
    return default is not UNKNOWN and getattr(options, name) == default
