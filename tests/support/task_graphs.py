"""Tasks with generated graphs of attributes, and a description of such a graph by which two can be compared."""

import random
import types
import weakref
from array import array
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

Pair = namedtuple("Pair", "x y")


class Plain:
    """An object with attributes."""


class Slots:
    """An object with slots."""

    __slots__ = ("first", "second")


@dataclass
class Record:
    """A dataclass."""

    first: Any = None
    second: Any = None


@dataclass(frozen=True)
class Key:
    """A key with a hash of its contents."""

    first: int
    second: tuple[Any, ...]


def counter_of(start: int, log: list[Any]) -> Any:
    """A function with a state of its own."""
    count = start

    def more() -> int:
        nonlocal count
        count += 1
        log.append(count % 5)
        return count

    return more


def build(recipe: list[tuple[str, list[int], int]]) -> list[Any]:
    """The objects of a recipe: (kind, numbers of the objects inside, a number); frozen kinds may contain only those before them."""
    objects: list[Any] = []
    for kind, children, number in recipe:
        objects.append(MAKERS[kind]([objects[i] for i in children if i < len(objects)], number))
    for made, (kind, children, number) in zip(objects, recipe, strict=True):
        if kind in FILLERS:
            FILLERS[kind](made, [objects[i % len(objects)] for i in children], number)
    return objects


def _view(inside: list[Any], number: int) -> Any:
    bases = [each for each in inside if isinstance(each, np.ndarray) and each.ndim == 2 and min(each.shape) > 1]
    if not bases:
        return np.zeros((3, 2))
    base = bases[-1]
    return [base[1:], base.T, base[:, 1], base[::-1, ::-1], base[..., None], base.reshape(-1)[::2]][number % 6]


def _on_memory(inside: list[Any], number: int) -> Any:
    owners = [each for each in inside if isinstance(each, bytearray | torch.Tensor)]
    if not owners:
        return np.arange(float(number % 4))
    return np.frombuffer(owners[-1], np.uint8) if isinstance(owners[-1], bytearray) else owners[-1].detach().numpy().reshape(-1)[1:]


def _part(inside: list[Any], number: int) -> Any:
    tensors = [each for each in inside if isinstance(each, torch.Tensor)]
    return tensors[-1].reshape(-1)[number % 2 :] if tensors else torch.zeros(3)


def _key(inside: list[Any], number: int) -> Key:
    return Key(number, tuple(each for each in inside if isinstance(each, int | str)))


def _partial(inside: list[Any], number: int) -> Any:
    return partial(counter_of(number, []), **{}) if not inside else partial(first_of, inside[0], number=number)


def first_of(value: Any, number: int) -> int:
    """A function for `partial`."""
    return number + len(str(type(value)))


MAKERS: dict[str, Any] = {
    "list": lambda inside, n: [],
    "dict": lambda inside, n: {},
    "ordered": lambda inside, n: OrderedDict(),
    "default": lambda inside, n: defaultdict([int, list, lambda: n][n % 3]),
    "counter": lambda inside, n: Counter(),
    "deque": lambda inside, n: deque(maxlen=[None, 2, 5][n % 3]),
    "set": lambda inside, n: set(),
    "plain": lambda inside, n: Plain(),
    "slots": lambda inside, n: Slots(),
    "record": lambda inside, n: Record(),
    "namespace": lambda inside, n: types.SimpleNamespace(),
    "borg": lambda inside, n: Plain(),
    "bytes": lambda inside, n: bytearray(n % 4 + 1),
    "numbers": lambda inside, n: array("d", [n, 0.5]),
    "array": lambda inside, n: np.full((n % 3 + 1, 3), 0.1 * n),
    "fortran": lambda inside, n: np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "words": lambda inside, n: np.array(["a", "bb", str(n)]),
    "objects": lambda inside, n: np.array([None] * (n % 3 + 1), object),
    "tensor": lambda inside, n: torch.arange(4.0) + n,
    "generator": lambda inside, n: np.random.default_rng(n),
    "python": lambda inside, n: random.Random(n),
    "number": lambda inside, n: [np.float32(n), np.int64(n), 1j * n, float("nan"), 10 ** (n % 5 * 30), np.datetime64(n, "D")][n % 6],
    "tuple": lambda inside, n: tuple(inside),
    "pair": lambda inside, n: Pair(inside[0] if inside else n, n),
    "key": _key,
    "frozen": lambda inside, n: frozenset([_key([n], n), _key([], n + 1)]),
    "view": _view,
    "memory": _on_memory,
    "part": _part,
    "same bits": lambda inside, n: np.random.Generator(
        next((each.bit_generator for each in inside if isinstance(each, np.random.Generator)), np.random.PCG64(n))
    ),
    "closure": lambda inside, n: counter_of(n, next((each for each in inside if type(each) is list), [])),
    "partial": _partial,
    "method": lambda inside, n: next((each.append for each in inside if type(each) in (list, deque)), [].append),
    "weak": lambda inside, n: weakref.ref(next((each for each in inside if type(each) is Plain), Plain)),
}


def _attributes(made: Any, inside: list[Any], number: int) -> None:
    for name, each in zip(("first", "second"), inside, strict=False):
        setattr(made, name, each)


def _items(made: Any, inside: list[Any], number: int) -> None:
    keys = ["a", number, (1, number), Key(number, ()), None, Plain()]
    for i, each in enumerate(inside):
        made[keys[(number + i) % len(keys)]] = each


def _borg(made: Any, inside: list[Any], number: int) -> None:
    others = [each for each in inside if type(each) is Plain]
    made.__dict__ = others[0].__dict__ if others else {"first": number}


FILLERS: dict[str, Any] = {
    **dict.fromkeys(("list", "deque"), lambda made, inside, n: made.extend(inside)),
    **dict.fromkeys(("dict", "ordered", "default"), _items),
    "counter": lambda made, inside, n: made.update(range(n % 5)),
    "set": lambda made, inside, n: made.update(range(n % 5)),
    **dict.fromkeys(("plain", "slots", "record", "namespace"), _attributes),
    "borg": _borg,
    "objects": lambda made, inside, n: made.__setitem__(0, inside[0] if inside else "a"),
}
KINDS = tuple(MAKERS)


def change(value: Any, t: int) -> float:
    """Change an object a little, as a task would in step `t`; returns what it gives."""
    if isinstance(value, list | deque):
        value.append(t % 7)
        if len(value) > 6:
            value.pop() if t % 2 else value.__delitem__(0)
    elif isinstance(value, dict):
        value[t % 3] = t
        value.pop("a", None) if t % 5 == 0 else None
        if isinstance(value, defaultdict):
            value[t % 2 + 10]
        return float(len(value))
    elif isinstance(value, set):
        value.add(t % 6)
    elif isinstance(value, Plain | Slots | Record | types.SimpleNamespace):
        value.first = t if t % 4 else [t]
        if t % 9 == 0:
            with suppress(AttributeError):
                del value.second
    elif isinstance(value, bytearray):
        value[0] = t % 256
    elif isinstance(value, array):
        value.append(t / 3)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "fu" and value.size and value.flags.writeable:
        value[...] += np.asarray(1, value.dtype)
        return float(value.sum() % 97)
    elif isinstance(value, torch.Tensor):
        value += 0.5
        return float(value.sum() % 97)
    elif isinstance(value, np.random.Generator | random.Random):
        return float(value.random())
    elif callable(value) and not isinstance(value, type | weakref.ref) and type(value) is not types.BuiltinFunctionType:
        return float(value())
    return 0.0


class Generated(gymnasium.Env):
    """A task with a graph: `first` in the constructor, `later` from the first reset on."""

    def __init__(self, first: list[Any], later: list[Any] | None) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
        self.action_space = spaces.Discrete(2)
        self.later = later
        self.objects = build(first)
        self.t = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        if self.later is not None:
            self.objects = build(self.later)
            self.named = self.objects[-1]
        return np.zeros(1), {}

    def step(self, action: int) -> tuple:
        self.t += 1
        total = sum(change(each, self.t + i) for i, each in enumerate(self.objects))
        if self.t % 4 == 0:
            self.objects.append(self.objects[self.t % len(self.objects)])
        elif self.t % 11 == 0 and len(self.objects) > 2:
            self.objects.pop(0)
        return np.array([total % 1009]), float(total % 1013), False, False, {}


def describe(root: Any) -> list[Any]:
    """Everything that can be reached: type, contents, and which references lead to the same object; one line per object."""
    numbers: dict[int, int] = {}
    order: list[Any] = []
    lines: list[Any] = []

    def refer(value: Any) -> Any:
        if value is None or type(value) in (bool, int, str) or (type(value) is float and value == value):
            return value
        if id(value) not in numbers:
            numbers[id(value)] = len(order)
            order.append(value)
        return f"#{numbers[id(value)]}"

    refer(root)
    for value in order:  # grows
        lines.append([type(value).__qualname__, *_contents(value, refer)])  # noqa: PERF401
    arrays = [each for each in order if isinstance(each, np.ndarray)]
    lines += [[np.shares_memory(a, b) for b in arrays] for a in arrays]
    return lines


def _contents(value: Any, refer: Any) -> list[Any]:
    if isinstance(value, dict):
        return [[(refer(k), refer(v)) for k, v in value.items()], refer(getattr(value, "default_factory", None))]
    if isinstance(value, list | tuple | deque):
        return [[refer(each) for each in value], getattr(value, "maxlen", None)]
    if isinstance(value, set):
        return [list(value)]
    if isinstance(value, frozenset):
        return [sorted(map(repr, value))]
    if isinstance(value, Slots):
        return [refer(getattr(value, name, "missing")) for name in Slots.__slots__]
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [value.shape, [refer(each) for each in value.reshape(-1)]]
    if isinstance(value, np.ndarray):
        strides = [step if length > 1 else 0 for step, length in zip(value.strides, value.shape, strict=True)]
        return [str(value.dtype), value.shape, strides, value.tobytes(), value.flags.writeable]
    if isinstance(value, torch.Tensor):
        return [value.tolist(), value.stride(), refer(value.untyped_storage())]
    if isinstance(value, np.random.Generator):
        return [refer(value.bit_generator)]
    if isinstance(value, np.random.PCG64):
        return [str(value.state), str(value.seed_seq)]
    if isinstance(value, random.Random):
        return [value.getstate()]
    if isinstance(value, types.FunctionType):
        return [value.__code__.co_qualname, [refer(cell) for cell in value.__closure__ or ()]]
    if isinstance(value, types.CellType):
        return [refer(value.cell_contents)]
    if isinstance(value, partial):
        return [refer(value.func), refer(value.args), sorted(value.keywords.items())]
    if isinstance(value, types.BuiltinFunctionType):
        return [value.__name__, refer(value.__self__)]
    if isinstance(value, weakref.ref):
        return [refer(value())]
    if isinstance(value, Plain | Record | Key | types.SimpleNamespace | Generated):
        return [refer(vars(value))]
    return [repr(value)]
