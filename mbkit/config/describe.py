"""Every option with its value, type, range and meaning: what `mbkit config` prints. A field's help is the comment on its line."""

import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

from mbkit.config.compose import REGISTRIES, range_words, type_words
from mbkit.config.schema import GROUPS, Experiment


class Described(NamedTuple):
    """One line of `mbkit config`."""

    key: str
    value: Any
    kind: str
    limits: str
    meaning: str


def comments(cls: type) -> dict[str, str]:
    """Field name -> the comment that closes its definition: that is its help text."""
    found = {key: text for base in cls.__bases__ if is_dataclass(base) for key, text in comments(base).items()}
    name = ""
    for token in tokenize.generate_tokens(io.StringIO(inspect.cleandoc(inspect.getsource(cls))).readline):
        if token.type == tokenize.NAME and re.match(rf"\s+{token.string}\s*:", token.line):
            name = token.string
        elif token.type == tokenize.COMMENT and name:
            words, goes_on = token.string.lstrip("# "), token.line.strip().startswith("#")
            found[name] = f"{found[name]} {words}" if goes_on and name in found else words
    return found


def describe(experiment: Experiment) -> Iterator[Described]:
    """Every field of the experiment with its value, type, range and meaning."""
    yield from _describe(experiment, "", skip={"algo", *GROUPS})
    for group in GROUPS:
        part = getattr(experiment, group)
        if part is None:
            continue
        if group in REGISTRIES:
            names = ", ".join(e.name for e in REGISTRIES[group])
            yield Described(group, part.name, "name", "", f"one of {names}")
        yield from _describe(part.config, f"{group}.")


def _describe(config: Any, prefix: str, skip: set[str] = frozenset()) -> Iterator[Described]:  # type: ignore[assignment]
    meanings = comments(type(config))
    for f in fields(config):
        value = getattr(config, f.name)
        if f.name in skip:
            continue
        if is_dataclass(value):
            yield from _describe(value, f"{prefix}{f.name}.")
        else:
            kind = type_words(type(config), f.name)
            yield Described(f"{prefix}{f.name}", value, kind, range_words(f.metadata), meanings.get(f.name, ""))
