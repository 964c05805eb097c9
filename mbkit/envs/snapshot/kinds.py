"""Every kind of object that can be saved: how its node is made, and how an object is made of a node and filled."""

import functools
import random
import weakref
from array import array
from collections.abc import Callable
from enum import Enum
from types import BuiltinFunctionType, CellType, FunctionType, MethodType
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import Space

from mbkit.envs.snapshot import arrays, code, containers, generators, physics, values, variables
from mbkit.envs.snapshot.containers import Resolve
from mbkit.envs.snapshot.walk import Global, Node, Walk, to_bytes, to_text, unsavable

TAKE: dict[type, Callable[[Any, Walk], Node | None]] = {
    np.ndarray: arrays.take_array,
    torch.Tensor: arrays.take_tensor,
    torch.nn.Parameter: arrays.take_tensor,
    torch.UntypedStorage: arrays.take_storage,
    np.random.Generator: generators.take_generator,
    np.random.SeedSequence: generators.take_seed,
    np.random.RandomState: generators.take_legacy,
    random.Random: generators.take_python,
    torch.Generator: generators.take_torch,
    **dict.fromkeys(generators.BIT_GENERATORS.values(), generators.take_bits),
    **dict.fromkeys(values.VALUES, values.take),
    array: lambda value, walk: {"head": ["array.array", value.typecode, len(value)], "bytes": to_text(value.tobytes())},
    weakref.ref: lambda value, walk: _take_weak_reference(value, walk),
    FunctionType: code.take_function,
    MethodType: code.take_method,
    BuiltinFunctionType: code.take_builtin,
    functools.partial: code.take_partial,
    CellType: code.take_cell,
    Global: variables.take,
}
TAKE_SUBCLASSES: dict[type, Callable[[Any, Walk], Node]] = {
    type: code.take_class,
    Enum: code.take_enum,
    np.generic: arrays.take_scalar,
    np.dtype: values.take_type,
}


class Kind(NamedTuple):
    """How objects of one kind are made of nodes.

    `make` gives a new object, None where only the new task can have it; `fill` writes its contents, None where it has them once made.
    `needs` are the parts of the node that must exist before. A kind that is `static` is found by its head anywhere in the new task, for
    others the object at the same place counts.
    """

    make: Callable[[Node, Resolve], Any] | None = None
    fill: Callable[[Any, Node, Resolve], None] | None = None
    needs: tuple[str, ...] = ()
    static: bool = False


KINDS: dict[str, Kind] = {
    **{base.__name__: Kind(containers.make, containers.fill) for base in containers.MUTABLE},
    **{base.__name__: Kind(containers.make, containers.fill, ("items",)) for base in containers.FROZEN},
    "array": Kind(arrays.make_array, arrays.fill_array),
    "objects": Kind(arrays.make_objects, arrays.fill_objects),
    "view": Kind(arrays.make_view, None, ("base",)),
    "foreign array": Kind(None, arrays.fill_foreign),
    "scalar": Kind(arrays.make_scalar),
    "tensor": Kind(arrays.make_tensor, arrays.fill_tensor, ("storage",)),
    "storage": Kind(arrays.make_storage, arrays.fill_storage),
    "generator": Kind(generators.make_generator, None, ("bits",)),
    "bits": Kind(generators.make_bits, generators.fill_bits),
    "seed": Kind(generators.make_seed, None, ("entropy",)),
    "random state": Kind(generators.make_legacy, generators.fill_legacy, ("bits",)),
    "Random": Kind(generators.make_python, generators.fill_python),
    "torch generator": Kind(generators.make_torch, generators.fill_torch),
    "value": Kind(values.make, None, ("arguments",)),
    "pygame": Kind(values.make_pygame),
    "number type": Kind(values.make_type),
    "array.array": Kind(
        lambda node, resolve: array(node["head"][1], to_bytes(node["bytes"])), lambda value, node, resolve: _fill_array(value, node)
    ),
    "weak reference": Kind(lambda node, resolve: _weak_reference(resolve(node["target"])), None, ("target",)),
    "class": Kind(None, code.fill_class, static=True),
    "enum": Kind(code.make_enum, None, ("class",)),
    "function": Kind(None, code.fill_function, static=True),
    "local function": Kind(None, code.fill_function, ("cells",)),  # made by `rebuild`, which knows the new task's code
    "cell": Kind(lambda node, resolve: CellType(), code.fill_cell),
    "global": Kind(None, variables.fill, static=True),
    "module": Kind(static=True),
    "method": Kind(code.make_method, None, ("object", "function")),
    "built-in method": Kind(code.make_builtin, None, ("object",)),
    "partial": Kind(code.make_partial, None, ("function", "arguments", "keywords")),
    "wrapper": Kind(),
    "constant": Kind(),
    "unsavable": Kind(),
    "arithmetic": Kind(static=True),
    "MjModel": Kind(None, physics.fill_model),
    "MjData": Kind(physics.make_data, physics.fill_data, ("model",)),
    "field": Kind(physics.make_field, None, ("owner",)),
    "named view": Kind(physics.make_view, None, ("owner",)),
}
MEMORY = ("array", "storage", "MjModel", "MjData")  # filled first, in this order


def take(value: Any, walk: Walk) -> Node | None:
    """The node of any object; None to come back later."""
    kind = type(value)
    if kind in TAKE:
        return TAKE[kind](value, walk)
    for base, take_kind in TAKE_SUBCLASSES.items():
        if issubclass(kind, base):
            return take_kind(value, walk)
    if physics.is_physics(kind):
        return physics.take(value, walk)
    if values.is_pygame(kind):
        return values.take_pygame(value, walk)
    if issubclass(kind, Space):
        _ = value.np_random  # seeds the space now, where it would be at its first sample
    if code.is_wrapper(value):
        return code.take_wrapper(value, walk)
    return code.take_constant(value, walk) if containers.base_of(kind) is None else containers.take(value, walk)


def _fill_array(value: "array[Any]", node: Node) -> None:
    value[:] = array(node["head"][1], to_bytes(node["bytes"]))


def _take_weak_reference(value: "weakref.ref[Any]", walk: Walk) -> Node:
    if value.__callback__ is not None:  # type: ignore[truthy-function]
        return unsavable("is a weak reference with a callback")
    return {"head": ["weak reference"], "target": walk.refer(value())}


def _weak_reference(target: Any) -> "weakref.ref[Any]":
    class Dead:
        """An object that is gone at once."""

    return weakref.ref(Dead() if target is None else target)
