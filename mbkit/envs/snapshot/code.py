"""Classes and functions: which they are, and the data on them, such as attributes of classes and variables of closures.

Nothing is imported or compiled: a class or a function of a saved state must be found in the new task, and a local function is made of code
that is found there.
"""

import builtins
import functools
import random
import typing
from abc import ABC
from collections import deque
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
from typing import Any

import numpy as np

from mbkit.envs.snapshot import variables
from mbkit.envs.snapshot.containers import Resolve
from mbkit.envs.snapshot.walk import IGNORED, Node, Unsavable, Walk, dotted, is_library, is_reference, key_of, lookup, unsavable

ABC_DATA = type(vars(ABC)["_abc_impl"])
ALIASES = (GenericAlias, UnionType, typing.TypeVar, typing.ParamSpec)
WRAPPERS = ("__func__", "__wrapped__", "fget", "fset", "fdel", "func")  # attributes with the functions of properties and the like
HARMLESS = (list, dict, set, deque, random.Random, np.random.Generator, np.random.RandomState)  # types none of whose methods does harm
BUILTIN_CLASSES = {key_of(kind): kind for kind in vars(builtins).values() if isinstance(kind, type)}


def take_class(value: type, walk: Walk) -> Node:
    """The node of a class; one of the user's with its attributes and bases."""
    node: Node = {"head": ["class", key_of(value)]}
    if is_library(value.__module__):
        return node
    attributes = {name: each for name, each in vars(value).items() if _is_state(value, name, each)}
    node["class attributes"] = dotted(attributes, walk)
    return node | {"bases": [walk.refer(base) for base in (*value.__bases__, type(value)) if base not in (object, type)]}


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
    attributes = {name[1:]: each for name, each in node["class attributes"].items() if not _is_special(name[1:])}
    present = {name: each for name, each in vars(value).items() if _is_state(value, name, each) and not _is_special(name)}
    for name, each in attributes.items():
        if each != IGNORED and (name not in present or not variables.is_same(present[name], resolve(each))):
            type.__setattr__(value, name, resolve(each))
    for name in present.keys() - attributes.keys():
        type.__delattr__(value, name)


def new_methods(saved: Node, new: Node, nodes: list[Node]) -> list[str]:
    """Methods in the text of a class that it did not have when it was saved."""
    added = {name: each for name, each in new.get("class attributes", {}).items() if name not in saved.get("class attributes", {})}
    heads = {name: nodes[each["node"]]["head"] for name, each in added.items() if is_reference(each)}
    return [name[1:] for name, head in heads.items() if head[0] == "function" and head[1] == f"{new['head'][1]}{name}"]


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
    name = f"{value.__module__ or module}:{value.__qualname__}" if named else f"{module}:{code.co_qualname}"
    node: Node = {"head": ["function" if named else "local function", name, variables.fingerprint(code)]}
    node["cells"] = dotted(dict(zip(code.co_freevars, value.__closure__ or (), strict=True)), walk)
    node |= {"defaults": walk.refer(value.__defaults__), "keyword defaults": walk.refer(value.__kwdefaults__)}
    if not library:
        node["function attributes"] = walk.refer(vars(value)) if vars(value) else None
        node["globals"] = list(variables.used_by(value, walk))
    return node


def make_function(node: Node, resolve: Resolve, codes: dict[tuple[str, str], tuple[Any, dict[str, Any]]]) -> FunctionType:
    """A local function, made of code of the new task."""
    code, space = codes[node["head"][1], node["head"][2]]
    return FunctionType(code, space, closure=tuple(resolve(node["cells"][f".{name}"]) for name in code.co_freevars))


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
    walk.codes[f"{module}:{code.co_qualname}", variables.fingerprint(code)] = code, space
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            _index(inner, module, space, walk)


def take_cell(value: CellType, walk: Walk) -> Node:
    """The node of a variable that functions share, empty before its first assignment."""
    try:
        return {"head": ["cell"], "content": walk.refer(value.cell_contents)}
    except ValueError:
        return {"head": ["cell"]}


def fill_cell(value: CellType, node: Node, resolve: Resolve) -> None:
    """Set the variable."""
    if "content" not in node:
        del value.cell_contents
    elif node["content"] != IGNORED:
        value.cell_contents = resolve(node["content"])


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
    """A method of a container or of a generator."""
    bound, name = resolve(node["object"]), node["head"][1]
    method = getattr(bound, name, None) if type(bound) in HARMLESS else None
    if not isinstance(method, BuiltinFunctionType | MethodType):
        raise Unsavable(f"a method {name} of {type(bound).__name__} that a new task does not have")
    return method


def take_partial(value: "functools.partial[Any]", walk: Walk) -> Node:
    """The node of a function with arguments."""
    arguments = [walk.refer(each) for each in value.args]
    keywords = [[name, walk.refer(each)] for name, each in value.keywords.items()]
    if vars(value):
        return unsavable("is a functools.partial with attributes")
    return {"head": ["partial"], "function": walk.refer(value.func), "arguments": arguments, "keywords": keywords}


def make_partial(node: Node, resolve: Resolve) -> "functools.partial[Any]":
    """A function of the user's with arguments."""
    keywords = {name: resolve(each) for name, each in node["keywords"]}
    return functools.partial(_of_the_user(resolve(node["function"])), *map(resolve, node["arguments"]), **keywords)


def _of_the_user(function: Any) -> Any:
    """The function, which must not be a library's: with arguments of a file it could do anything."""
    inner = function.__func__ if isinstance(function, MethodType) else function
    if not isinstance(inner, FunctionType) or is_library(str(inner.__globals__.get("__name__"))):
        name = getattr(inner, "__qualname__", type(inner).__name__)
        raise Unsavable(f"the function {name} with arguments that a new task does not have")
    return function


def is_wrapper(value: Any) -> bool:
    """Whether an entry of a class is a property, a static method or the like, of a type of Python's or a library's."""
    return hasattr(type(value), "__get__") and is_library(type(value).__module__)


def take_wrapper(value: Any, walk: Walk) -> Node:
    """The node of a property, static method or the like: the same in a new task; its functions are visited."""
    functions = [getattr(value, name, None) for name in WRAPPERS]
    return {"head": ["wrapper", type(value).__name__], "functions": [walk.refer(f) for f in functions if isinstance(f, FunctionType)]}


def take_constant(value: Any, walk: Walk) -> Node:
    """The node of something that never changes and is found by its name; unsavable if it is not found."""
    if isinstance(value, ModuleType):
        return {"head": ["module", value.__name__]}
    if isinstance(value, ALIASES) or type(value).__module__ == "typing":
        return {"head": ["constant", repr(value)]}
    if isinstance(value, BaseException):
        return {"head": ["constant", key_of(type(value)), str(value)]}
    module = "numpy" if isinstance(value, np.ufunc) else getattr(value, "__module__", None)
    qualname = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if isinstance(module, str) and isinstance(qualname, str) and callable(value) and lookup(module, qualname) is value:
        wrapped = getattr(value, "__wrapped__", None)
        kind = "arithmetic" if isinstance(value, np.ufunc) or module in variables.ARITHMETIC else "constant"
        return {"head": [kind, f"{module}:{qualname}"], "functions": [walk.refer(wrapped)] if isinstance(wrapped, FunctionType) else []}
    return unsavable(f"is of type {type(value).__name__}")
