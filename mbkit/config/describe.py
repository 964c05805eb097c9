"""Every option that counts with its value, type, range and meaning: what `mbkit config` prints. A field's help is the comment behind it."""

import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

from mbkit.config.compose import REGISTRIES
from mbkit.config.conditions import counting, meaningless
from mbkit.config.ranges import range_text, type_text
from mbkit.config.regimes import algorithm
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
    helps = {key: text for base in cls.__bases__ if is_dataclass(base) for key, text in comments(base).items()}
    name = ""
    for token in tokenize.generate_tokens(io.StringIO(inspect.cleandoc(inspect.getsource(cls))).readline):
        if token.type == tokenize.NAME and re.match(rf"\s+{token.string}\s*:", token.line):
            name = token.string
        elif token.type == tokenize.COMMENT and name:
            text, continues = re.sub(r"^type: ignore\S*\s*#", "", token.string.lstrip("# ")).lstrip(), token.line.strip().startswith("#")
            helps[name] = f"{helps[name]} {text}" if continues and name in helps else text
    return helps


def describe(experiment: Experiment) -> Iterator[Described]:
    """Every option of the experiment that counts, with its value, type, range and meaning."""
    without = meaningless(experiment, algorithm(experiment.algo))
    for group in ("", "eval", "checkpoint", "loop", *GROUPS):
        options = experiment.group(group)
        if options is None:
            continue
        if group in REGISTRIES and (chosen := getattr(experiment, group)).name != experiment.algo:
            yield Described(group, chosen.name, "name", "", f"one of {', '.join(e.name for e in REGISTRIES[group])}")
        names, helps = counting(experiment, group, without), comments(type(options))
        for f in fields(options):
            if f.name in names:
                key = f"{group}.{f.name}" if group else f.name
                yield Described(
                    key, getattr(options, f.name), type_text(type(options), f.name), range_text(f.metadata), helps.get(f.name, "")
                )
