"""Global variables that a user's functions use, and the code of functions: which names it mentions, and whether it is the same."""

import dis
import functools
import hashlib
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from mbkit.envs.snapshot.containers import Resolve
from mbkit.envs.snapshot.walk import IGNORED, Global, Node, Walk, is_library

ARITHMETIC = ("math", "cmath")  # modules whose functions may be put where the new task has another


class Names(NamedTuple):
    """Names in the code of a function: global variables that it reads or sets, attributes that it reads or sets."""

    read: frozenset[str]
    set: frozenset[str]
    attributes: frozenset[str]
    set_attributes: frozenset[str]


@functools.lru_cache(maxsize=4096)
def names_in(code: CodeType) -> Names:
    """The names in the code of a function and of those inside it."""
    by_operation: dict[str, set[str]] = {}
    for instruction in dis.get_instructions(code):
        if isinstance(instruction.argval, str):
            by_operation.setdefault(instruction.opname, set()).add(instruction.argval)
    groups = (
        ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"),
        ("STORE_GLOBAL", "DELETE_GLOBAL"),
        ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "STORE_ATTR", "DELETE_ATTR"),
        ("STORE_ATTR", "DELETE_ATTR"),
    )
    names = [set[str]().union(*(by_operation.get(operation, ()) for operation in group)) for group in groups]
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            names = [outside | inside for outside, inside in zip(names, names_in(inner), strict=True)]
    return Names(*map(frozenset, names))


@functools.lru_cache(maxsize=4096)
def fingerprint(code: CodeType) -> str:
    """A hash of what a function computes: not of where it stands, nor of this process."""
    parts = (code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, [_constant(c) for c in code.co_consts])
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return fingerprint(value)
    return repr(sorted(map(_constant, value))) if isinstance(value, frozenset) else f"{type(value).__name__}:{value!r}"


def used_by(function: FunctionType, walk: Walk) -> Iterator[Any]:
    """References to the global variables that a function uses; a number or string that it only reads is a constant."""
    names, space = names_in(function.__code__), function.__globals__
    for name in sorted(names.read | names.set):
        value = space.get(name)
        if isinstance(value, ModuleType) and name not in names.set:
            yield from _of_module(value, names, walk, set())
        elif name in names.set or (name in space and not _is_constant(value)):
            yield walk.variable(space, name)


def _of_module(module: ModuleType, names: Names, walk: Walk, visited: set[int]) -> Iterator[Any]:
    """References to the variables of a module whose names a function mentions; of a library's, to classes and arithmetic only."""
    visited.add(id(module))
    yield walk.refer(module)
    library, space = is_library(module.__name__), vars(module)
    for name in sorted(names.attributes & space.keys()):
        value = space[name]
        if isinstance(value, ModuleType):
            if id(value) not in visited:
                yield from _of_module(value, names, walk, visited)
        elif library:
            if isinstance(value, type | np.ufunc) or module.__name__ in ARITHMETIC:
                yield walk.refer(value)
        elif name in names.set_attributes or not _is_constant(value):
            yield walk.variable(space, name)


def _is_constant(value: Any) -> bool:
    return value is None or type(value) in (bool, int, float, str)


def take(value: Global, walk: Walk) -> Node:
    """The node of a global variable; without a value if it has none yet."""
    head = ["global", str(value.space.get("__name__")), value.name]
    return {"head": head} | ({"value": walk.refer(value.space[value.name])} if value.name in value.space else {})


def fill(value: Global, node: Node, resolve: Resolve) -> None:
    """Set a global variable if it differs."""
    if "value" not in node:
        value.space.pop(value.name, None)
    elif node["value"] != IGNORED and (value.name not in value.space or not is_same(value.space[value.name], resolve(node["value"]))):
        value.space[value.name] = resolve(node["value"])


def is_same(a: Any, b: Any) -> bool:
    """Whether two values are one object, or equal numbers or strings."""
    return a is b or (type(a) is type(b) and _is_constant(a) and a == b)
