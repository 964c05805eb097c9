"""Containers and objects of classes written in Python: their items, attributes and slots."""

import ctypes
import hashlib
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from datetime import date, time, timedelta
from enum import Enum
from types import FunctionType, MemberDescriptorType, NoneType, SimpleNamespace
from typing import Any

from mbkit.envs.snapshot.walk import IGNORED, Node, Walk, dotted, is_ignored, key_of, to_bytes, to_text, unsavable

Resolve = Callable[[Any], Any]  # a value inside a node -> the object for which it stands
HEAP_TYPE, NOT_INSTANTIABLE = 1 << 9, 1 << 7  # CPython's flags of types
RANDOM_HASH = (str, bytes, NoneType, date, time, timedelta, Enum)  # types whose hash is another one in every process
MUTABLE = (list, dict, OrderedDict, defaultdict, set, deque, bytearray, SimpleNamespace, object)
FROZEN = (tuple, frozenset, str, bytes, int, float)
BASES = {kind.__name__: kind for kind in (*MUTABLE, *FROZEN)}
HASHING = {"dict", "OrderedDict", "defaultdict", "set"}  # filled last, since the hash of a key may depend on its contents


def base_of(kind: type) -> Any:
    """The built-in container that objects of a class are at heart, `object` where they are none, None where a class in C lies below."""
    for each in kind.__mro__:
        if each in BASES.values():
            return each
        constructor = vars(each).get("__new__")
        in_python = constructor is None or isinstance(getattr(constructor, "__func__", None), FunctionType)
        instantiable = each.__flags__ & HEAP_TYPE and not each.__flags__ & NOT_INSTANTIABLE
        if not in_python or not instantiable or type(each).__module__ == "pybind11_builtins":
            return None
    return None


def take(value: Any, walk: Walk) -> Node:
    """The node of a container, or of an object of a class written in Python."""
    kind = type(value)
    base = base_of(kind)
    if base is None:
        return unsavable(f"is of type {kind.__name__}")
    head = [base.__name__, key_of(kind)]
    size = [value.maxlen] if base is deque else [len(value)] if base is bytearray else []
    node: Node = {"head": [*head, *size]}
    if kind is not base:
        node["class"] = walk.refer(kind)
    node |= _content(base, value, walk)
    if kind.__dictoffset__ and base is not SimpleNamespace:
        node["attributes"] = walk.refer(object.__getattribute__(value, "__dict__"))
    slots = {name: slot.__get__(value) for name, slot in _slots(kind).items() if _is_set(slot, value)}
    return node | ({"slots": dotted(slots, walk)} if slots else {})


def _content(base: Any, value: Any, walk: Walk) -> Node:
    """The items of a container, read with the methods of its base: a user's class may override them."""
    if issubclass(base, dict | SimpleNamespace):
        entries = vars(value).items() if base is SimpleNamespace else base.items(value)
        pairs = [(walk.refer(key), walk.refer(item)) for key, item in entries]
        content: Node = {"items": [[key, item] for key, item in pairs if item is not IGNORED]}
        ignored = [key for key, item in pairs if item is IGNORED]
        content |= {"ignored": ignored} if ignored else {}
        return content | ({"factory": walk.refer(value.default_factory)} if base is defaultdict else {})
    if base in (set, frozenset):
        items: list[Any] = list(base.__iter__(value))
        ordered = not any(map(_has_random_hash, items))
        saved = [walk.refer(item) for item in items]
        content = {"items": saved if ordered else sorted(saved, key=repr)}  # an order by random hashes is no part of a seeded run
        return content | ({"table": _table(value) if base is set else None} if ordered else {})
    if base in (bytes, bytearray):
        return {"bytes": to_text(bytes(value))}
    if base in (str, int, float):
        return {"text": str.__str__(value) if base is str else hex(value) if base is int else float.hex(value)}
    return {"items": [walk.refer(item) for item in base.__iter__(value)]} if base in (list, tuple, deque) else {}


def _has_random_hash(item: Any) -> bool:
    """Whether the hash of a set's item differs between processes, so that the set's order cannot be part of a seeded run."""
    if isinstance(item, tuple | frozenset):
        return any(map(_has_random_hash, item))
    return isinstance(item, RANDOM_HASH) or getattr(type(item), "__hash__", None) is object.__hash__


def _table(value: set[Any]) -> str | None:
    """A hash of how a set lies in CPython's memory, on which the order of later items depends; None if that is not known.

    The words of a set: places used or left by removed items, items, places - 1, address of the places, hash, place of the next `pop`.
    A place is an item's address, 0 where there is none, and its hash.
    """
    if sys.implementation.name != "cpython":
        return None
    used_or_left, items, mask, address, _, finger = (ctypes.c_ssize_t * 6).from_address(id(value) + object.__basicsize__)
    if items != len(value) or mask < 7 or mask & (mask + 1):
        return None
    places = (ctypes.c_ssize_t * (2 * mask + 2)).from_address(address)[::2]
    return hashlib.sha256(repr((used_or_left, finger, [place != 0 for place in places])).encode()).hexdigest()[:16]


def _in_order(items: list[Any]) -> list[Any]:
    """The items in an order of insertion after which a set iterates over them as here, if a few exchanges lead there: collisions decide."""
    order = list(items)
    for attempt in range(200):
        got = list(set(order))
        wrong = next((i for i, (a, b) in enumerate(zip(got, items, strict=True)) if a is not b), None)
        if wrong is None:
            break
        one, other = (next(i for i, each in enumerate(order) if each is item) for item in (items[wrong], got[wrong]))
        order[one], order[other] = order[other], order[one]
        if attempt % 7 == 6:  # out of a circle
            order.append(order.pop(other))
    return order


def _slots(kind: type) -> dict[str, Any]:
    """The slots of a class and its bases, by name."""
    slots: dict[str, Any] = {}
    for each in reversed(kind.__mro__):
        if each.__flags__ & HEAP_TYPE:
            slots |= {name: slot for name, slot in vars(each).items() if isinstance(slot, MemberDescriptorType)}
    return slots


def _is_set(slot: Any, value: Any) -> bool:
    try:
        slot.__get__(value)
    except AttributeError:
        return False
    return True


def make(node: Node, resolve: Resolve) -> Any:
    """A new object without contents; a frozen one with them."""
    base: Any = BASES[node["head"][0]]
    kind = resolve(node["class"]) if "class" in node else base
    if base in (tuple, frozenset):
        items = list(map(resolve, node["items"]))
        return base.__new__(kind, _in_order(items) if "table" in node else items)
    if base in (str, int, float, bytes):
        readers: dict[type, Callable[[Any], Any]] = {str: str, int: lambda text: int(text, 16), float: float.fromhex}
        return base.__new__(kind, to_bytes(node["bytes"]) if base is bytes else readers[base](node["text"]))
    new = base.__new__(kind)
    if base is deque:
        deque.__init__(new, (), node["head"][2])
    if base is bytearray:  # at its length, since arrays may lie on its memory
        bytearray.__init__(new, to_bytes(node["bytes"]))
    return new


def fill(value: Any, node: Node, resolve: Resolve) -> None:
    """Write the contents of a node into an object of its kind."""
    base: Any = BASES[node["head"][0]]
    if base is SimpleNamespace:
        _fill_dict(dict, vars(value), node, resolve)
    elif issubclass(base, dict):
        _fill_dict(base, value, node, resolve)
    elif base is set:
        items = [resolve(item) for item in node["items"]]
        set.clear(value)
        set.update(value, _in_order(items) if "table" in node else items)
    elif base is list:
        before = {i: item for i, item in enumerate(list.__iter__(value)) if is_ignored(item)}
        items = [before.get(i) if item == IGNORED else resolve(item) for i, item in enumerate(node["items"])]
        list.__setitem__(value, slice(None), items)
    elif base is deque:
        items = [resolve(item) for item in node["items"]]
        deque.clear(value)
        deque.extend(value, items)
    elif base is bytearray:
        bytearray.__setitem__(value, slice(None), to_bytes(node["bytes"]))
    if "attributes" in node and object.__getattribute__(value, "__dict__") is not (attributes := resolve(node["attributes"])):
        object.__setattr__(value, "__dict__", attributes)
    for name, slot in _slots(type(value)).items() if type(value) is not base else ():
        saved = node.get("slots", {})
        if f".{name}" not in saved and _is_set(slot, value):
            slot.__delete__(value)
        elif saved.get(f".{name}", IGNORED) != IGNORED:
            slot.__set__(value, resolve(saved[f".{name}"]))


def _fill_dict(base: Any, value: Any, node: Node, resolve: Resolve) -> None:
    """Items in their order; what serves rendering remains what it is in the new task."""
    before = dict(base.items(value))
    items = [(resolve(key), resolve(item)) for key, item in node["items"]]
    ignored = {key for key, item in before.items() if is_ignored(item)} | {resolve(key) for key in node.get("ignored", ())}
    base.clear(value)
    for key, item in items:
        base.__setitem__(value, key, before[key] if key in ignored and key in before else item)
    for key in ignored & before.keys():
        base.__setitem__(value, key, before[key])
    if base is defaultdict:
        value.default_factory = resolve(node["factory"])
