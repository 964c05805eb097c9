"""Classes and functions: which they are, and the data on them - class attributes, closures, and the global variables that they use.

Nothing is imported or compiled: a class or a function of a saved state must be found in the new task, and a local function is made of code
that is found there.
"""

import dis
import functools
import hashlib
import random
import sys
import typing
from abc import ABC
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum, Flag
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GenericAlias,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    UnionType,
)
from typing import Any, NamedTuple

import numpy as np

from mbkit.envs.snapshot.containers import Resolve
from mbkit.envs.snapshot.walk import Global, Node, Unsavable, Walk, is_library, key_of, lookup, unsavable

ABC_DATA = type(vars(ABC)["_abc_impl"])
ALIASES = (GenericAlias, UnionType, typing.TypeVar, typing.ParamSpec)
WRAPPERS = ("__func__", "__wrapped__", "fget", "fset", "fdel", "func")  # attributes with the functions of properties and the like
HARMLESS = (list, dict, set, deque, random.Random, np.random.Generator, np.random.RandomState)  # types none of whose methods does harm
ARITHMETIC = ("math", "cmath")  # modules whose functions may be put where the new task has another


class Names(NamedTuple):
    """Names in the code of a function: global variables that it reads, that it sets, attributes that it reads or sets, that it sets."""

    read: frozenset[str]
    set: frozenset[str]
    attributes: frozenset[str]
    set_attributes: frozenset[str]


def take_class(value: type, walk: Walk) -> Node:
    """The node of a class; one of the user's has its attributes and bases in it."""
    node: Node = {"head": ["class", key_of(value)]}
    if is_library(value.__module__):
        return node
    attributes = {name: each for name, each in vars(value).items() if _is_state(value, name, each)}
    node["class attributes"] = {name: walk.refer(each) for name, each in attributes.items()}
    return node | {"bases": [walk.refer(base) for base in value.__bases__ if base is not object]}


def _is_state(kind: type, name: str, value: Any) -> bool:
    """Whether an entry of a class is visited: not what Python itself puts there, slots, and members of an Enum."""
    if isinstance(value, GetSetDescriptorType | MemberDescriptorType | ABC_DATA):
        return False
    if _is_special(name) or issubclass(kind, Enum):
        return isinstance(value, FunctionType | staticmethod | classmethod | property)
    return True


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def fill_class(value: type, node: Node, resolve: Resolve) -> None:
    """Set the attributes of a class that differ; those with special names are Python's."""
    if "class attributes" not in node:
        return
    saved = {name: resolve(each) for name, each in node["class attributes"].items() if not _is_special(name)}
    present = {name: each for name, each in vars(value).items() if _is_state(value, name, each) and not _is_special(name)}
    for name, each in saved.items():
        if name not in present or not _same(present[name], each):
            type.__setattr__(value, name, each)
    for name in present.keys() - saved.keys():
        type.__delattr__(value, name)


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and type(a) in (bool, int, float, str) and a == b)


def take_enum(value: Enum, walk: Walk) -> Node:
    """The node of a member of an Enum."""
    name = value.value if isinstance(value, Flag) else value.name
    return {"head": ["enum", key_of(type(value)), name], "class": walk.refer(type(value))}


def make_enum(node: Node, resolve: Resolve) -> Any:
    """The member of an Enum, found by name, or the combination of flags with a value."""
    kind, name = resolve(node["class"]), node["head"][2]
    return kind(int(name)) if issubclass(kind, Flag) else kind.__members__[name]


def take_function(value: FunctionType, walk: Walk) -> Node:
    """The node of a function: found by name, or, if it is a local one, made of code that is found by name."""
    module, code = str(value.__globals__.get("__name__")), value.__code__
    named, library = lookup(value.__module__ or module, value.__qualname__) is value, is_library(module)
    if named and library:
        return {"head": ["constant", f"{value.__module__}:{value.__qualname__}"]}
    _index(code, module, value.__globals__, walk)
    head = (
        ["function", f"{module}:{value.__qualname__}"] if named else ["local function", f"{module}:{code.co_qualname}", fingerprint(code)]
    )
    cells = {name: walk.refer(cell) for name, cell in zip(code.co_freevars, value.__closure__ or (), strict=True)}
    node = {"head": head, "cells": cells, "defaults": walk.refer(value.__defaults__), "keyword defaults": walk.refer(value.__kwdefaults__)}
    if not library:
        node["function attributes"] = walk.refer(vars(value)) if vars(value) else None
        node["globals"] = list(_globals(code, value.__globals__, walk))
    return node


def make_function(node: Node, resolve: Resolve, codes: dict[tuple[str, str], tuple[Any, dict[str, Any]]]) -> FunctionType:
    """A local function, made of code of the new task."""
    code, space = codes[node["head"][1], node["head"][2]]
    return FunctionType(code, space, closure=tuple(resolve(node["cells"][name]) for name in code.co_freevars))


def fill_function(value: FunctionType, node: Node, resolve: Resolve) -> None:
    """Defaults and attributes of a function; its closure is filled by its cells."""
    value.__defaults__, value.__kwdefaults__ = resolve(node["defaults"]), resolve(node["keyword defaults"])
    attributes = resolve(node.get("function attributes"))
    if attributes is not None:
        value.__dict__ = attributes
    elif vars(value):
        vars(value).clear()


def _index(code: CodeType, module: str, space: dict[str, Any], walk: Walk) -> None:
    """Note the code of a function and of those inside it, so that local functions can be made."""
    walk.codes[f"{module}:{code.co_qualname}", fingerprint(code)] = code, space
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            _index(inner, module, space, walk)


@functools.lru_cache(maxsize=4096)
def fingerprint(code: CodeType) -> str:
    """A hash of what a function computes: not of where it stands, nor of this process."""
    parts = (code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, [_constant(c) for c in code.co_consts])
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return fingerprint(value)
    return repr(sorted(map(_constant, value))) if isinstance(value, frozenset) else f"{type(value).__name__}:{value!r}"


@functools.lru_cache(maxsize=4096)
def names_in(code: CodeType) -> Names:
    """The names in the code of a function and of those inside it."""
    operations = {(i.opname, i.argval) for i in dis.get_instructions(code) if isinstance(i.argval, str)}
    operation: Callable[..., frozenset[str]] = lambda *kinds: frozenset(name for kind, name in operations if kind in kinds)  # noqa: E731
    changed = operation("STORE_ATTR", "DELETE_ATTR")
    parts = [
        Names(
            operation("LOAD_GLOBAL", "LOAD_NAME"),
            operation("STORE_GLOBAL", "DELETE_GLOBAL"),
            operation("LOAD_ATTR", "LOAD_METHOD") | changed,
            changed,
        ),
        *(names_in(inner) for inner in code.co_consts if isinstance(inner, CodeType)),
    ]
    return Names(*(frozenset().union(*kind) for kind in zip(*parts, strict=True)))


def _globals(code: CodeType, space: dict[str, Any], walk: Walk) -> Iterator[Any]:
    """References to the global variables that a function uses; a number or string that it only reads is a constant."""
    names = names_in(code)
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


def take_global(value: Global, walk: Walk) -> Node:
    """The node of a global variable; without a value if it has none yet."""
    head = ["global", str(value.space.get("__name__")), value.name]
    return {"head": head} | ({"value": walk.refer(value.space[value.name])} if value.name in value.space else {})


def fill_global(value: Global, node: Node, resolve: Resolve) -> None:
    """Set a global variable if it differs."""
    if "value" not in node:
        value.space.pop(value.name, None)
    elif value.name not in value.space or not _same(value.space[value.name], resolve(node["value"])):
        value.space[value.name] = resolve(node["value"])


def take_cell(value: CellType, walk: Walk) -> Node:
    """The node of a variable that functions share, empty before its first assignment."""
    try:
        return {"head": ["cell"], "content": walk.refer(value.cell_contents)}
    except ValueError:
        return {"head": ["cell"]}


def fill_cell(value: CellType, node: Node, resolve: Resolve) -> None:
    """Set the variable."""
    if "content" in node:
        value.cell_contents = resolve(node["content"])
    else:
        del value.cell_contents


def take_method(value: MethodType, walk: Walk) -> Node:
    """The node of a function with its object."""
    if type(value.__self__) in HARMLESS:
        return {"head": ["built-in method", value.__name__], "object": walk.refer(value.__self__)}
    return {"head": ["method"], "object": walk.refer(value.__self__), "function": walk.refer(value.__func__)}


def make_method(node: Node, resolve: Resolve) -> MethodType:
    """A method of the user's."""
    return MethodType(_of_the_user(resolve(node["function"])), resolve(node["object"]))


def take_builtin(value: BuiltinFunctionType, walk: Walk) -> Node:
    """The node of a function in C, or of a method of a container."""
    bound = value.__self__
    if bound is None or isinstance(bound, ModuleType):
        return take_constant(value, walk)
    return {"head": ["built-in method", value.__name__], "object": walk.refer(bound)}


def make_builtin(node: Node, resolve: Resolve) -> Any:
    """A method of a container."""
    bound, name = resolve(node["object"]), node["head"][1]
    method = getattr(bound, name, None) if type(bound) in HARMLESS else None
    if not isinstance(method, BuiltinFunctionType | MethodType):
        raise Unsavable(f"a method {name} of {type(bound).__name__} that the new task does not have")
    return method


def take_partial(value: "functools.partial[Any]", walk: Walk) -> Node:
    """The node of a function with arguments."""
    arguments = [walk.refer(each) for each in value.args]
    keywords = [[name, walk.refer(each)] for name, each in value.keywords.items()]
    node: Node = {"head": ["partial"], "function": walk.refer(value.func), "arguments": arguments, "keywords": keywords}
    return node | ({"function attributes": walk.refer(vars(value))} if vars(value) else {})


def make_partial(node: Node, resolve: Resolve) -> "functools.partial[Any]":
    """A function of the user's with arguments."""
    keywords = {name: resolve(each) for name, each in node["keywords"]}
    return functools.partial(_of_the_user(resolve(node["function"])), *map(resolve, node["arguments"]), **keywords)


def _of_the_user(function: Any) -> Any:
    """The function, which must not be a library's: with arguments of a file it could do anything."""
    inner = function.__func__ if isinstance(function, MethodType) else function
    if not isinstance(inner, FunctionType) or is_library(str(inner.__globals__.get("__name__"))):
        raise Unsavable(
            f"the function {getattr(inner, '__qualname__', type(inner).__name__)} with arguments that the new task does not have"
        )
    return function


def take_wrapper(value: Any, walk: Walk) -> Node:
    """The node of a property, static method or the like: the same in a new task; its functions are visited."""
    functions = [getattr(value, name, None) for name in WRAPPERS]
    return {"head": ["wrapper", type(value).__name__], "functions": [walk.refer(f) for f in functions if isinstance(f, FunctionType)]}


def take_constant(value: Any, walk: Walk) -> Node:
    """The node of something that never changes and is found by its name; unsavable if it is not found."""
    module, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if isinstance(value, np.ufunc):
        module = "numpy"
    if isinstance(value, ALIASES) or type(value).__module__ == "typing":
        return {"head": ["constant", repr(value)]}
    if isinstance(value, ModuleType):
        return {"head": ["module", value.__name__]}
    if isinstance(module, str) and isinstance(qualname, str) and callable(value) and lookup(module, qualname) is value:
        wrapped = getattr(value, "__wrapped__", None)
        kind = "arithmetic" if isinstance(value, np.ufunc) or module in ARITHMETIC else "constant"
        return {"head": [kind, f"{module}:{qualname}"], "functions": [walk.refer(wrapped)] if isinstance(wrapped, FunctionType) else []}
    return unsavable(f"is of type {type(value).__name__}")


def is_wrapper(value: Any) -> bool:
    """Whether an entry of a class is a property, a static method or the like, of a type of Python's or a library's."""
    return hasattr(type(value), "__get__") and is_library(type(value).__module__)


def builtin_classes() -> dict[str, type]:
    """Python's own classes, which need not be found in the new task."""
    return {key_of(kind): kind for kind in vars(sys.modules["builtins"]).values() if isinstance(kind, type)}
