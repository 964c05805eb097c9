"""Every option that counts with its value, where that comes from, its type, range and meaning: what `mbkit config` prints.

A field's help is the comment behind it.
"""

import inspect
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, NamedTuple

from mbkit.config.compose import REGISTRIES, is_text
from mbkit.config.conditions import counting, meaningless
from mbkit.config.dialect import value_text
from mbkit.config.identity import comparable, flatten
from mbkit.config.ranges import range_text, type_text
from mbkit.config.reading import parse_overrides, read_preset
from mbkit.config.regimes import algorithm
from mbkit.config.schema import GROUPS, Experiment
from mbkit.config.short import spelled_out

Origin = Literal["default", "preset", "typed"]


class Described(NamedTuple):
    """One line of `mbkit config`."""

    key: str
    value: Any
    kind: str
    limits: str
    meaning: str

    @property
    def group(self) -> str:
        """What stands before the point in its key, or the part that it names; empty for options without a group."""
        return self.key if self.key in REGISTRIES else self.key.rpartition(".")[0]


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


def origins(experiment: Experiment, typed: Sequence[str]) -> dict[str, Origin]:
    """Where the values of the options come from that are not at the algorithm's defaults, "agent.lr" -> "preset".

    Args:
        experiment: the experiment.
        typed: the `key=value` options of which it was composed.
    """
    entry = algorithm(experiment.algo)
    line = flatten(spelled_out(entry, parse_overrides(typed, verbatim=is_text)))
    preset = flatten(read_preset(experiment.algo, experiment.env, experiment.preset))
    named = {f"{group}.name": group for group in REGISTRIES}
    here = {d.key: comparable(d.value) for d in describe(experiment)}
    keys: dict[str, Origin] = {}
    for key, value in preset.items():
        short = named.get(key, key)
        if short in here and here[short] == comparable(value):  # else left out, as what a preset says of acting beside data=
            keys[short] = "preset"
    keys |= {named.get(key, key).partition("env_kwargs.")[0] or "env_kwargs": "typed" for key in line}
    return keys


def value_of_option(value: Any) -> str:
    """A value as it is typed: 0.001, null, [200,200]; text as it is."""
    return value if isinstance(value, str) else value_text(comparable(value))


def kind_text(kind: str) -> str:
    """A type with the words of the command line: cpu | cuda, float | null."""
    choices = re.sub(r"one of \[(.*?)\]", lambda match: match[1].replace("'", "").replace(", ", " | "), kind)
    return choices.replace("None", "null")
