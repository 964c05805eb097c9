"""Tasks each of which stores what its next step depends on in another way: `setup` in reset, `pay` gives the reward of a step."""

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import itertools
import pathlib
import random
import types
import uuid
import weakref

import gymnasium
import numpy as np
import torch
from gymnasium import spaces


class Point(gymnasium.Env):
    """A point on a line; an episode ends after 40 steps."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = self.np_random.uniform(-1, 1, 2), 0
        self.setup()
        return self.x.astype(np.float32), {}

    def step(self, action):
        self.t += 1
        self.x[0] += 0.1 * float(action[0])
        return self.x.astype(np.float32), float(self.pay()), False, self.t >= 40, {}

    def setup(self) -> None: ...

    def pay(self) -> float:
        return self.x[0]


Pose = collections.namedtuple("Pose", "x y")


@dataclasses.dataclass
class Leg:
    length: float
    joints: list


@dataclasses.dataclass(frozen=True)
class Cell:
    row: int
    column: tuple


class Slotted:
    """An object with slots, one of them never set."""

    __slots__ = ("__private", "count", "missing")

    def __init__(self) -> None:
        self.count = 0
        self.__private = [1.0]

    def more(self) -> float:
        self.count += 1
        self.__private.append(self.count)
        return sum(self.__private) + hasattr(self, "missing")


class Phase(enum.Enum):
    UP = 1
    DOWN = 2


class Touch(enum.Flag):
    LEFT = 1
    RIGHT = 2


class Grid(list):
    """A list with attributes, whose own iteration misleads."""

    total = 0

    def __iter__(self):
        return iter(())


class Ring(collections.deque):
    pass


class Clock(Point):
    """Attributes with names that rendering code or the form of a saved state use as well."""

    clock = 0.0
    node, head, ignored = [0.0], 1, {"node": 1}

    def setup(self):
        self.clock, self.window, self.screen, self.viewer, self.surf, self.isopen, self.fullpath = 0.0, [], 0, {}, 1.0, True, "a"

    def pay(self):
        self.clock += 0.05
        self.window.append(self.clock)
        self.screen += 1
        self.viewer[self.screen % 7] = self.screen
        self.surf *= 1.01
        self.isopen = not self.isopen
        self.node[0] += 0.5
        self.ignored["node"] += 1
        node = self.node

        def head() -> float:
            return node[0] + self.head

        self.env, self.envs, self.vector = self.t, [self.t, head], np.full(2, self.t)
        self.fullpath += "b"
        now = self.envs[1]() + self.ignored["node"] + self.env + self.vector.sum()
        return now + self.clock + sum(self.window) + self.screen + len(self.viewer) + self.surf + self.isopen + len(self.fullpath)


class Containers(Point):
    """Containers that `reset` makes."""

    def setup(self):
        self.frames = collections.deque([0.0] * 3, maxlen=3)
        self.visits = collections.defaultdict(int)
        self.nested = collections.defaultdict(lambda: collections.defaultdict(list))
        self.count = collections.Counter()
        self.order = collections.OrderedDict(a=1, b=2, c=3)
        self.pose = Pose(0.0, 0.0)
        self.ring = Ring([1, 2], 4)
        self.names = types.SimpleNamespace(a=1)
        self.bytes = bytearray(b"abc")
        self.numbers = array.array("d", [1.0])
        self.chain = collections.ChainMap({"a": 1}, {"b": 2})

    def pay(self):
        self.frames.append(self.t)
        self.visits[self.t // 7] += 1
        self.nested[self.t % 3][self.t % 5].append(self.t)
        self.count[self.t % 4] += self.t
        self.order.move_to_end(next(iter(self.order)))
        self.pose = Pose(self.pose.x + 1, self.pose.y + len(self.order))
        self.ring.append(self.t)
        self.names.a += 1
        self.nested[self.t % 2][1].append(self.ring[0])
        self.bytes.append(self.t % 256)
        self.numbers.append(self.t / 3)
        self.chain["a"] += 1
        first = "abc".index(next(iter(self.order)))
        leading = self.count.most_common(1)[0][0]
        return (
            sum(self.frames)
            + len(self.visits)
            + len(self.nested[1][2])
            + leading
            + first
            + self.pose.x
            + sum(self.ring)
            + self.names.a
            + sum(self.bytes)
            + sum(self.numbers)
            + self.chain["a"]
        )


class Objects(Point):
    def setup(self):
        self.leg, self.slotted, self.phase, self.touch = Leg(1.0, [0.0]), Slotted(), Phase.UP, Touch(0)
        self.cells = {Cell(1, (2, 3)): 1.0}
        self.frozen = frozenset({Cell(1, (2,)), Cell(2, (3,))})
        self.grid = Grid([1.0])
        self.missing = object()

    def pay(self):
        self.leg.length *= 1.01
        self.leg.joints.append(self.leg.length)
        self.phase = Phase.DOWN if self.phase is Phase.UP else Phase.UP
        self.touch ^= Touch.LEFT if self.t % 2 else Touch.LEFT | Touch.RIGHT
        self.cells[Cell(self.t % 5, (self.t % 3,))] = self.leg.length
        self.grid.append(self.t)
        self.grid.total += 1
        known = Cell(1, (2,)) in self.frozen
        return (
            sum(self.leg.joints)
            + self.slotted.more()
            + self.phase.value
            + (self.phase is Phase.UP)
            + self.touch.value
            + self.cells.get(Cell(2, (2,)), 0)
            + list.__len__(self.grid)
            + self.grid.total
            + known
        )


class Shared(Point):
    """Attributes that are one object, cycles, views."""

    def setup(self):
        self.a = self.b = [0.0]
        self.matrix = np.zeros((3, 4))
        self.row, self.column, self.reverse = self.matrix[1], self.matrix[:, 2], self.matrix[::-1, ::-2]
        self.fortran = np.asfortranarray(np.full((50, 50), 0.1))
        self.node = {"value": 0}
        self.node["self"] = self.node
        self.loop = [self]
        self.raw = bytearray(8)
        self.on_raw = np.frombuffer(self.raw, np.uint8)
        self.tensor = torch.zeros(6)
        self.on_tensor, self.part = self.tensor.numpy()[2:], self.tensor.view(2, 3)[1]
        self.refer = weakref.ref(self.loop[0])
        self.pair = (self.a, self.row)
        self.chain = None
        for i in range(3000):
            self.chain = (i, self.chain)

    def pay(self):
        self.b[0] += 1
        self.row += 0.5
        self.column *= 1.1
        self.reverse[0, 0] += 1
        self.fortran *= 1 + 1e-9 * self.t
        self.node["self"]["value"] += 1
        self.raw[self.t % 8] += 1
        self.on_tensor[1] += 1
        self.part -= 0.25
        self.pair[0][0] += 0.5
        return (
            self.a[0]
            + self.matrix.sum()
            + self.fortran.sum()
            + self.node["value"]
            + float(self.on_raw.sum())
            + float(self.tensor.sum())
            + (self.refer() is self)
            + (self.loop[0] is self)
            + self.pair[1][0]
            + self.chain[1][0]
        )


class Numbers(Point):
    def setup(self):
        self.half, self.big, self.flag, self.complex = np.float16(1), 3**200, np.bool_(True), 1 + 2j
        self.day, self.date, self.span = (
            np.datetime64("2020-01-01"),
            datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
            datetime.timedelta(1),
        )
        self.money, self.third = decimal.Decimal("1.10"), fractions.Fraction(1, 3)
        self.path, self.id = pathlib.Path("a/b"), uuid.UUID(int=5)
        self.range, self.slice, self.nan, self.type = range(3), slice(1, 2), float("nan"), np.dtype("<f4")
        self.records = np.zeros(3, [("a", "<i4"), ("b", "<f8", (2,))])
        self.words = np.array(["a", "bb"])
        self.mixed = np.array([["a", None], [1, [2.0]]], object)
        self.counter = itertools.count(5, 2)
        self.read_only = np.arange(3)
        self.read_only.flags.writeable = False

    def pay(self):
        self.half, self.big, self.flag, self.complex = self.half * np.float16(1.01), self.big + 1, ~self.flag, self.complex * 1j
        self.day, self.date, self.span = self.day + 1, self.date + self.span, self.span * 1.001
        self.money, self.third = self.money * decimal.Decimal("1.01"), self.third + fractions.Fraction(1, 7)
        self.path, self.range = self.path / "c", range(self.t)
        self.records["b"] += self.records["a"][:, None] + 0.1
        self.records["a"][1] += 1
        self.mixed[1, 1].append(self.t)
        return (
            float(self.half)
            + self.big % 1000
            + bool(self.flag)
            + abs(self.complex)
            + (self.day - np.datetime64("2020-01-01")).astype(int)
            + self.date.day
            + float(self.money)
            + float(self.third)
            + len(str(self.path))
            + len(self.range)
            + self.records["b"].sum()
            + sum(self.mixed[1, 1])
            + next(self.counter)
            + (self.nan != self.nan)
            + self.read_only.flags.writeable
            + self.type.itemsize
        )


class Generators(Point):
    def setup(self):
        self.python, self.legacy = random.Random(3), np.random.RandomState(4)
        self.kinds = [np.random.Generator(kind(5)) for kind in (np.random.MT19937, np.random.Philox, np.random.SFC64, np.random.PCG64DXSM)]
        self.same_bits = np.random.Generator(self.kinds[0].bit_generator)
        self.torch = torch.Generator().manual_seed(6)
        self.draw = self.np_random.normal

    def pay(self):
        child = self.np_random.spawn(1)[0]
        drawn = [kind.normal() for kind in self.kinds]
        return (
            self.python.gauss(0, 1)
            + self.legacy.normal()
            + sum(drawn)
            + self.same_bits.random()
            + child.random()
            + self.draw()
            + float(torch.rand(1, generator=self.torch))
        )


class Torch(Point):
    def setup(self):
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
        self.weights = self.net[0].weight
        self.whole = torch.arange(6.0)

    def pay(self):
        self.net.zero_grad()
        loss = self.net(torch.as_tensor(self.x, dtype=torch.float32)).pow(2).sum()
        loss.backward()
        total = loss.item() + self.weights.sum().item()
        with torch.no_grad():
            for weight in self.net.parameters():
                weight -= 0.1 * weight.grad
        self.whole[::2] *= 1.01
        return total + self.whole.sum().item()


def fast(task):
    fast.calls = getattr(fast, "calls", 0) + 1
    return fast.calls


def slow(task, log=[]):  # noqa: B006
    log.append(task.t)
    return sum(log)


def counted():
    count, log = 0, []

    def more(by):
        nonlocal count
        count += by
        log.append(count)
        return sum(log)

    return more, lambda: count


class Functions(Point):
    """Methods swapped at run time, closures, defaults, attributes of functions."""

    def setup(self):
        self.rule = fast
        self.more, self.read = counted()
        self.twice = functools.partial(self.scaled, factor=2.0)
        self.pay = self.first

    def scaled(self, value, factor):
        return value * factor

    def first(self):
        self.rule = slow if self.t % 3 else fast
        if self.t == 10:
            self.pay = self.second
        return self.rule(self) + self.more(self.t) + self.read() + self.twice(self.t)

    def second(self):
        if self.t == 25:
            gain = self.t / 2
            self.pay = lambda: gain + self.first()
        self.read = lambda t=self.t: t
        return 100 + self.first()


class Classes(Point):
    """State on the class, and a method of the class replaced."""

    episodes, log, table = 0, [], {"a": [1.0]}
    generator = np.random.default_rng(7)

    def setup(self):
        type(self).episodes += 1
        Classes.pay = Classes.usual
        self.borg = Borg()

    def usual(self):
        self.log.append(self.t)
        Classes.table["a"].append(self.generator.random())
        Classes.gain = getattr(Classes, "gain", 1.0) * 1.01
        if self.t == 12:
            Classes.pay = Classes.other
        self.borg.count = getattr(self.borg, "count", 0) + 1
        return self.episodes + len(self.log) + sum(self.table["a"]) + self.gain + Borg().count + Helper.total()

    def other(self):
        return 1000 + self.usual()


class Borg:
    state: dict = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.__dict__ = self.state


class Helper:
    calls = 0

    @classmethod
    def total(cls):
        cls.calls += 1
        return cls.calls


STEPS, TABLE, GENERATOR, START, NAME = 0, {"a": 0.0}, np.random.default_rng(8), np.zeros(2), "a"


class Globals(Point):
    """Variables of the module."""

    def setup(self):
        self.start = START

    def pay(self):
        global STEPS, LATER
        STEPS += 1
        LATER = STEPS * 2
        TABLE["a"] += GENERATOR.random()
        self.start = self.start + 1.0
        return bump() + TABLE["a"] + START.sum() + self.start.sum() + len(NAME)


def bump():
    bump_more()
    return STEPS + LATER


def bump_more():
    global STEPS
    STEPS += 1


class Easy(Point):
    """Another class from step 10 on."""

    def pay(self):
        if self.t == 10:
            self.__class__ = Hard
        return 1.0


class Hard(Easy):
    """What `Easy` becomes."""

    __slots__ = ()

    def pay(self):
        if self.t == 30:
            self.__class__ = Easy
        return 2.0


class Attributes(Point):
    """Attributes that come and go."""

    def setup(self):
        self.first, self.second = 1, 2

    def pay(self):
        if self.t == 5:
            del self.second
        if self.t == 15:
            self.third = 3
        return len(vars(self)) + hasattr(self, "second") + sum(ord(name[0]) * i for i, name in enumerate(vars(self)))


TASKS = (Clock, Containers, Objects, Shared, Numbers, Generators, Torch, Functions, Classes, Globals, Easy, Attributes)
