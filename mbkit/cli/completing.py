"""What a shell completes: algorithms, option keys and values, from sources and presets; torch is imported only for the keys of a part."""

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from mbkit.paths import is_dir, matching, read_text

REGISTERED = re.compile(r"^@(?:agents|recipes)\.register\(\s*\"(\w+)\"", re.MULTILINE)
LISTS = ("agents", "recipes", "dynamics", "planners", "critics", "gates", "envs", "presets", "experiments")


def algorithms(incomplete: str) -> list[str]:
    """Built-in algorithms that begin so, read from their sources."""
    names = [name for package in ("mbkit.agents", "mbkit.recipes") for name in _registered(package)]
    return sorted(name for name in names if name.startswith(incomplete))


def _registered(package: str) -> Iterator[str]:
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for place in (Path(str(folder)), *(path for path in matching(folder, "*") if is_dir(path))):
            for file in matching(place, "*.py"):
                yield from REGISTERED.findall(read_text(file))


def lists(incomplete: str) -> list[str]:
    """What `mbkit list` lists."""
    return [name for name in LISTS if name.startswith(incomplete)]


def options(ctx: typer.Context, incomplete: str) -> list[str]:
    """Options `key=value` of the algorithm on the line: keys until there is a "=", then values of choices, presets and environments.

    bash divides words at "=": what is completed there is the value alone.
    """
    words = [str(word) for word in ctx.params.get("options") or []]
    whole = " ".join(words).replace(" = ", "=").removesuffix(" =").split(" ")
    algo = str(ctx.params.get("algo") or "")
    divided = words[-1:] == ["="] or (not incomplete and bool(whole[-1]) and "=" not in whole[-1])  # bash has dropped the sign at the end
    if divided:
        key, value = whole[-1], incomplete
    else:
        key, equals, value = incomplete.partition("=")
        if not equals:
            return [name if name.endswith(".") else f"{name}=" for name in keys(algo, incomplete) if name.startswith(incomplete)]
    return [choice if divided else f"{key}={choice}" for choice in values(algo, key, whole) if choice.startswith(value)]


def keys(algo: str, incomplete: str) -> Iterable[str]:
    """Option keys; those of a group, `agent.`, once its point is typed, as of the algorithm with its default parts."""
    from mbkit.config.schema import GROUPS

    group, point, _ = incomplete.partition(".")
    if not point:
        return [*(name for name in _hints() if "." not in name), *(f"{name}." for name in ("eval", "checkpoint", "loop", *GROUPS))]
    if group in ("eval", "checkpoint"):
        return list(_hints())
    from mbkit.config import compose
    from mbkit.config.describe import describe
    from mbkit.errors import UserError

    try:
        return [described.key for described in describe(compose(algo))]
    except UserError:  # no such algorithm
        return []


def values(algo: str, key: str, before: Iterable[str]) -> list[str]:
    """Values of an option that has few: literals, true and false, environments and presets of the algorithm."""
    from mbkit.config.presets import presets

    if key in ("env", "preset") and algo:
        listed = presets(algo)
        envs = {word.partition("=")[2] for word in before if word.startswith("env=")}
        return sorted({p.env for p in listed} if key == "env" else {p.name for p in listed if p.name and (not envs or p.env in envs)})
    hint = str(_hints().get(key, ""))
    return ["true", "false"] if hint == "<class 'bool'>" else re.findall(r"'(\w+)'", hint) if "Literal" in hint else []


def _hints() -> Mapping[str, Any]:
    """Types of the options that hold for every algorithm."""
    from typing import get_type_hints

    from mbkit.config.schema import CheckpointConfig, EvalConfig, Options

    classes = {"": Options, "eval.": EvalConfig, "checkpoint.": CheckpointConfig}
    return {
        f"{prefix}{name}": hint
        for prefix, cls in classes.items()
        for name, hint in get_type_hints(cls).items()
        if name not in ("algo", "continues")
    }
