"""Small values that never change: numbers that are no JSON, dates, paths, types; each is taken apart into arguments and made anew."""

import gc
import itertools
import operator
import re
import struct
import sys
import uuid
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from types import EllipsisType, MappingProxyType, NotImplementedType
from typing import Any, NamedTuple

import numpy as np
import torch

from mbkit.envs.snapshot import arrays
from mbkit.envs.snapshot.containers import Resolve
from mbkit.envs.snapshot.walk import Node, Walk, to_bytes, to_text


class Value(NamedTuple):
    """How values of one type are taken apart into arguments, and made of them."""

    arguments: Callable[[Any], tuple[Any, ...]]
    make: Callable[..., Any]


def _date(value: Any) -> tuple[Any, ...]:
    names = ("year", "month", "day", "hour", "minute", "second", "microsecond", "tzinfo", "fold")
    return tuple(getattr(value, name) for name in names if hasattr(value, name))


VALUES: dict[type, Value] = {
    float: Value(lambda x: (struct.pack(">d", x).hex(),), lambda text: struct.unpack(">d", bytes.fromhex(text))[0]),  # NaN
    int: Value(lambda x: (hex(x),), lambda text: int(text, 16)),  # too long for JSON
    complex: Value(lambda x: (x.real, x.imag), complex),
    bytes: Value(lambda x: (to_text(x),), to_bytes),
    range: Value(lambda x: (x.start, x.stop, x.step), range),
    slice: Value(lambda x: (x.start, x.stop, x.step), slice),
    itertools.count: Value(lambda x: x.__reduce__()[1], itertools.count),
    EllipsisType: Value(lambda x: (), lambda: ...),
    NotImplementedType: Value(lambda x: (), lambda: NotImplemented),
    MappingProxyType: Value(lambda x: tuple(gc.get_referents(x)), MappingProxyType),
    date: Value(_date, date),
    time: Value(_date, lambda *parts: time(*parts[:-1], fold=parts[-1])),
    datetime: Value(_date, lambda *parts: datetime(*parts[:-1], fold=parts[-1])),
    timedelta: Value(lambda x: (x.days, x.seconds, x.microseconds), timedelta),
    timezone: Value(lambda x: (x.utcoffset(None).total_seconds(), x.tzname(None)), lambda s, name: timezone(timedelta(seconds=s), name)),
    Decimal: Value(lambda x: (str(x),), Decimal),
    Fraction: Value(lambda x: (x.numerator, x.denominator), Fraction),
    uuid.UUID: Value(lambda x: (x.hex,), uuid.UUID),
    **{kind: Value(lambda x: (str(x),), kind) for kind in (PosixPath, PurePosixPath, PureWindowsPath, WindowsPath)},
    struct.Struct: Value(lambda x: (x.format,), struct.Struct),
    **{kind: Value(lambda x: x.__reduce__()[1], kind) for kind in (operator.itemgetter, operator.attrgetter)},
    re.Pattern: Value(lambda x: (x.pattern, x.flags), re.compile),
    torch.dtype: Value(lambda x: (str(x).removeprefix("torch."),), arrays.tensor_type),
    torch.device: Value(lambda x: (str(x),), torch.device),
    torch.Size: Value(tuple, lambda *sizes: torch.Size(sizes)),
}
NAMES = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in VALUES}
PYGAME = {"Rect": "xywh", "FRect": "xywh", "Vector2": "xy", "Vector3": "xyz", "Color": "rgba"}  # pygame's own values, and their parts


def take(value: Any, walk: Walk) -> Node:
    """The node of a value."""
    kind = type(value)
    arguments = [walk.refer(argument) for argument in VALUES[kind].arguments(value)]
    return {"head": ["value", f"{kind.__module__}.{kind.__qualname__}"], "arguments": arguments}


def make(node: Node, resolve: Resolve) -> Any:
    """A value."""
    return VALUES[NAMES[node["head"][1]]].make(*map(resolve, node["arguments"]))


def take_type(value: np.dtype[Any], walk: Walk) -> Node:
    """The node of a NumPy type."""
    return {"head": ["number type", "object" if value.kind == "O" else arrays.type_text(value)]}


def make_type(node: Node, resolve: Resolve) -> np.dtype[Any]:
    """A NumPy type."""
    return np.dtype(object) if node["head"][1] == "object" else arrays.type_of(node["head"][1])


def is_pygame(kind: type) -> bool:
    """Whether a type is one of pygame's values, such as its rectangles; its surfaces and clocks serve rendering."""
    return kind.__module__.partition(".")[0] == "pygame" and kind.__name__ in PYGAME


def take_pygame(value: Any, walk: Walk) -> Node:
    """The node of one of pygame's values."""
    name = type(value).__name__
    return {"head": ["pygame", name], "numbers": [getattr(value, part) for part in PYGAME[name]]}


def make_pygame(node: Node, resolve: Resolve) -> Any:
    """One of pygame's values."""
    name = node["head"][1]
    return getattr(sys.modules["pygame"], name if name in PYGAME else "")(*node["numbers"])
