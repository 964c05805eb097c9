"""A saved task written into a newly made one: objects of the new task are used wherever the saved task has one of the same kind there."""

import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

from mbkit.envs.snapshot import code
from mbkit.envs.snapshot.kinds import KINDS, LATE, ORDER, take
from mbkit.envs.snapshot.walk import LOOKS, Node, Unsavable, Walk, is_reference, references, where
from mbkit.errors import UserError

CREATABLE = {"collections", "builtins", "types", "argparse"}  # modules of Python whose objects may be made; those of others may own files


class Rebuild:
    """Saved nodes, the walk over the new task, and for each saved node the object that it becomes."""

    def __init__(self, saved: list[Node], source: Any, chain: list[Any]) -> None:
        self.saved, self.new = saved, Walk(take).run(source)
        self.chain = {id(each) for each in chain}  # the wrappers and environments themselves
        self.partners: dict[int, int] = {}  # number of a saved node -> number of the new task's object at its place
        self.objects: dict[int, Any] = {}

    def run(self) -> None:
        """Restore; Unsavable if something cannot be restored, in most cases before anything was changed."""
        self._match()
        self._refuse()
        for n, partner in self.partners.items():
            if not self._is_frozen(n):
                self.objects[n] = self.new.objects[partner]
        for last in (False, True):  # twice: the items of a frozen set are hashed, perhaps by their contents, when it is made
            self._make(last)
            self._fill(last)
        self._verify()

    def resolve(self, value: Any) -> Any:
        """The object for which a value inside a node stands; KeyError if it is not made yet."""
        if is_reference(value):
            return self.objects[value["node"]]
        return None if value == LOOKS else value

    def _match(self) -> None:
        """Pair saved nodes with objects of the new task: classes, functions and global variables by name, all others by their place.

        Those come first, since an object on which they are keeps its place even if another attribute referred to it, too, in the new task.
        """
        static = {repr(node["head"]): n for n, node in enumerate(self.new.nodes) if KINDS[node["head"][0]].static}
        queue = deque((n, static[head]) for n, node in enumerate(self.saved) if (head := repr(node["head"])) in static)
        queue.append((0, 0))
        taken = set[int]()
        while queue:
            n, partner = queue.popleft()
            if n in self.partners or partner in taken:
                continue
            old, new = self.saved[n], self.new.nodes[partner]
            if old["head"] == new["head"]:
                self.partners[n] = partner
                taken.add(partner)
                queue.extend(_pairs(old, new))
            elif id(self.new.objects[partner]) in self.chain or new["head"][0] == "MjModel" == old["head"][0]:
                self._other_task(old, new)

    def _other_task(self, old: Node, new: Node) -> None:
        heads = {repr(node["head"]) for node in self.new.nodes}
        if old["head"][0] == "MjModel" or repr(["class", *old["head"][1:2]]) not in heads:
            expected, got = (str(node["head"][1]).partition(":")[2] or "MjModel" for node in (new, old))
            raise UserError(f"environment state does not fit: expected a {expected}, got a {got if got != expected else 'different one'}")

    def _refuse(self) -> None:
        """Raise Unsavable if a saved node can neither be found in the new task nor be made."""
        for n, node in enumerate(self.saved):
            kind = node["head"][0]
            if n in self.partners:
                continue
            if kind == "local function":
                makeable = tuple(node["head"][1:3]) in self.new.codes
            elif kind == "class" and node["head"][1] in code.builtin_classes():
                self.objects[n], makeable = code.builtin_classes()[node["head"][1]], True
            else:
                makeable = KINDS[kind].make is not None and ("class" not in node or _is_creatable(self.saved[node["class"]["node"]]))
            if not makeable:
                name = node["head"][1] if len(node["head"]) > 1 else kind
                raise Unsavable(f"{where(self.saved, n)} is a {kind} {name} that a new task does not have")

    def _is_frozen(self, n: int) -> bool:
        """Whether a node's object has its contents once made, so that an object of the new task is used only if it has the same ones."""
        kind = KINDS[self.saved[n]["head"][0]]
        return bool(kind.needs) or (kind.fill is None and kind.make is not None)

    def _make(self, last: bool) -> None:
        """Make the objects that the new task does not have, each after those that it needs."""
        stack = [n for n in range(len(self.saved))][::-1]
        entered = set[int]()
        while stack:
            n = stack.pop()
            if n in self.objects:
                continue
            needed = [m for _, m in self._needs(n) if m not in self.objects]
            if needed and n not in entered:
                entered.add(n)
                stack += [n, *needed]
            elif not needed and (last or not self._hashes(n)):
                self.objects[n] = self._made(n)
            elif last:
                raise ValueError("an object that contains itself")

    def _needs(self, n: int) -> Iterator[tuple[str, int]]:
        node = self.saved[n]
        for part in (*KINDS[node["head"][0]].needs, "class"):
            if part in node:
                yield from references(node[part])

    def _hashes(self, n: int) -> bool:
        """Whether making an object hashes others that must be filled before."""
        node = self.saved[n]
        return node["head"][0] == "frozenset" and any(map(is_reference, node["items"]))

    def _made(self, n: int) -> Any:
        node, partner = self.saved[n], self.partners.get(n)
        if partner is not None and self._has_same_contents(node, self.new.nodes[partner]):
            return self.new.objects[partner]
        if node["head"][0] == "local function":
            return code.make_function(node, self.resolve, self.new.codes)
        make = KINDS[node["head"][0]].make
        if make is None:
            raise Unsavable(f"{where(self.saved, n)} is not what it is in a new task")
        return make(node, self.resolve)

    def _has_same_contents(self, saved: Any, new: Any) -> bool:
        """Whether an object of the new task has what a saved node needs."""
        needs = KINDS[saved["head"][0]].needs or tuple(saved)
        return all(self._is_same(saved.get(part), new.get(part)) for part in needs)

    def _is_same(self, saved: Any, new: Any) -> bool:
        if is_reference(saved) and is_reference(new):
            return self.objects.get(saved["node"], self) is self.new.objects[new["node"]]
        if isinstance(saved, list) and isinstance(new, list):
            return len(saved) == len(new) and all(map(self._is_same, saved, new))
        if isinstance(saved, dict) and isinstance(new, dict):
            return saved.keys() == new.keys() and all(self._is_same(part, new[name]) for name, part in saved.items())
        return type(saved) is type(new) and bool(saved == new)

    def _fill(self, last: bool) -> None:
        """Write the contents of every object: memory first, what is hashed last."""
        rank = dict.fromkeys(ORDER, -1) | dict.fromkeys(LATE, 1)
        for n in sorted(self.objects, key=lambda n: (rank.get(self.saved[n]["head"][0], 0), self._is_keyed_by_objects(n), n)):
            fill = KINDS[self.saved[n]["head"][0]].fill
            if fill is not None and (last or all(m in self.objects for _, m in references(self.saved[n]))):
                fill(self.objects[n], self.saved[n], self.resolve)

    def _is_keyed_by_objects(self, n: int) -> bool:
        node = self.saved[n]
        return node["head"][0] in LATE and any(is_reference(item[0] if isinstance(item, list) else item) for item in node["items"])

    def _verify(self) -> None:
        """Raise Unsavable with the name of the first thing that is not what it was: nothing may differ silently."""
        walk = Walk(take)
        walk.objects = [self.objects[n] for n in range(len(self.saved))]
        walk.nodes, walk.globals = [{} for _ in walk.objects], self.new.globals
        walk.numbers = {id(each): n for n, each in reversed(list(enumerate(walk.objects)))}
        walk.physics, walk.complete = self.new.physics, True
        for n, saved in sorted(enumerate(self.saved), key=lambda pair: pair[1]["head"][0] not in ORDER):
            node = take(self.objects[n], walk)
            if node is None or not _equal(saved, node, walk.objects):
                kind = "set whose order" if saved["head"][0] in ("set", "frozenset") else f"{saved['head'][0]} that"
                raise Unsavable(f"{where(self.saved, n)} is a {kind} cannot be restored exactly")


def _is_creatable(kind: Node) -> bool:
    module = kind["head"][1].partition(":")[0]
    return module in CREATABLE or module.partition(".")[0] not in sys.stdlib_module_names


def _pairs(old: Any, new: Any) -> Iterator[tuple[int, int]]:
    """Numbers at the same place in two nodes."""
    if is_reference(old) and is_reference(new):
        yield old["node"], new["node"]
    elif isinstance(old, dict) and isinstance(new, dict):
        for name in [name for name in old if name in new]:
            yield from _pairs(old[name], new[name])
    elif isinstance(old, list) and isinstance(new, list):
        for a, b in zip(old, new, strict=False):
            yield from _pairs(a, b)


def _equal(saved: Any, now: Any, objects: list[Any]) -> bool:
    """Whether two parts of nodes are the same but for what serves rendering."""
    if LOOKS in (saved, now):
        return True
    if is_reference(saved) and is_reference(now):
        return objects[saved["node"]] is objects[now["node"]]
    if isinstance(saved, dict) and isinstance(now, dict):
        if "looks" in saved or "looks" in now:
            saved, now = _without_looks(saved, now), _without_looks(now, saved)
        return saved.keys() == now.keys() and all(_equal(part, now[name], objects) for name, part in saved.items())
    if isinstance(saved, list) and isinstance(now, list):
        return len(saved) == len(now) and all(_equal(a, b, objects) for a, b in zip(saved, now, strict=True))
    return type(saved) is type(now) and bool(saved == now)


def _without_looks(node: Node, other: Node) -> Node:
    """The node of a dictionary without the keys of what serves rendering in either."""
    looks = [*node.get("looks", ()), *other.get("looks", ())]
    items = [item for item in node.get("items", ()) if item[0] not in looks]
    return {name: part for name, part in node.items() if name != "looks"} | {"items": items}
