"""A saved task written into a newly made one: objects of the new task are used wherever the saved task has one of the same kind there."""

import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from mbkit.envs.snapshot import code
from mbkit.envs.snapshot.containers import HASHING
from mbkit.envs.snapshot.kinds import KINDS, MEMORY, Kind, take
from mbkit.envs.snapshot.walk import IGNORED, Node, Unsavable, Walk, is_reference, references, where
from mbkit.errors import UserError

CREATABLE = {"collections", "builtins", "types", "argparse"}  # modules of Python whose objects may be made; those of others may own files
Pair = tuple[int, int]  # number of a saved node, number of an object of the new task


class Rebuild:
    """Saved nodes, the walk over the new task, and for each saved node the object that it becomes."""

    def __init__(self, saved: list[Node], source: Any) -> None:
        self.saved, self.new = saved, Walk(take).run(source)
        self.environments = _environments(source)
        self.partners: dict[int, int] = {}  # for a saved node the object of the new task that it becomes, or whose contents are alike
        self.taken = set[int]()  # objects of the new task that have such a partner
        self.objects: dict[int, Any] = {}  # what each saved node becomes

    def run(self) -> None:
        """Restore; Unsavable if something cannot be restored, in most cases before anything was changed."""
        self._match()
        self._refuse()
        for n, partner in self.partners.items():
            if not _is_frozen(self._kind(n)):
                self.objects[n] = self.new.objects[partner]
        if any(map(self._hashes, range(len(self.saved)))):  # objects in a frozen set may be hashed by their contents when it is made
            self._make(last=False)
            self._fill(last=False)
        self._make(last=True)
        self._fill(last=True)
        self._verify()

    def resolve(self, value: Any) -> Any:
        """The object for which a value inside a node stands; KeyError if it is not made yet."""
        if is_reference(value):
            return self.objects[value["node"]]
        return None if value == IGNORED else value

    def _kind(self, n: int) -> Kind:
        return KINDS[self.saved[n]["head"][0]]

    def _match(self) -> None:
        """Pair saved nodes with objects of the new task: the environments first, then what is found by name, all others by their place.

        By name come classes, functions and global variables: an object that lies on them remains there, even where an attribute of the new
        task refers to it as well.
        """
        later = self._pair([(0, 0)], self.environments)
        old, new = ([repr(node["head"]) for node in nodes] for nodes in (self.saved, self.new.nodes))
        ambiguous = {head for heads in (old, new) for head, times in Counter(heads).items() if times > 1}  # local classes of one name
        by_name = {head: n for n, head in enumerate(new) if KINDS[self.new.nodes[n]["head"][0]].static and head not in ambiguous}
        self._pair((n, by_name[head]) for n, head in enumerate(old) if head in by_name)
        self._pair(later)

    def _pair(self, pairs: Iterable[Pair], only: set[int] | None = None) -> list[Pair]:
        """Pair these, and what they contain, if they are alike; with `only` objects of these ids, and the others are returned."""
        queue, later = deque(pairs), list[Pair]()
        while queue:
            n, partner = queue.popleft()
            old, new, candidate = self.saved[n], self.new.nodes[partner], self.new.objects[partner]
            if only is not None and id(candidate) not in only:
                later.append((n, partner))
            elif n in self.partners or partner in self.taken:
                continue
            elif old["head"] == new["head"]:
                self.partners[n] = partner
                self.taken.add(partner)
                queue.extend(_same_places(old, new))
            elif id(candidate) in self.environments:
                self._refuse_other_task(old, new)
        return later

    def _refuse_other_task(self, old: Node, new: Node) -> None:
        """UserError if an environment or wrapper is of a class that the new task does not know."""
        if not any(node["head"] == ["class", *old["head"][1:2]] for node in self.new.nodes):
            expected, got = (str(node["head"][-1]).partition(":")[2] for node in (new, old))
            raise UserError(f"environment state does not fit: expected a {expected}, got a {got}")

    def _refuse(self) -> None:
        """Raise Unsavable if a saved node can neither be found in the new task nor be made."""
        for n, node in enumerate(self.saved):
            kind, partner = node["head"][0], self.partners.get(n)
            if partner is not None:
                added = code.new_methods(node, self.new.nodes[partner], self.new.nodes) if kind == "class" else []
                if added:
                    raise Unsavable(f"the class {node['head'][1]} has a new method {added[0]}")
            elif kind == "class" and node["head"][1] in code.BUILTIN_CLASSES:
                self.objects[n] = code.BUILTIN_CLASSES[node["head"][1]]
            elif not self._is_makeable(node):
                changed = kind == "function" and any(new["head"][:2] == node["head"][:2] for new in self.new.nodes)
                name = "an MjModel" if kind == "MjModel" else f"the {kind} {node['head'][1]}" if len(node["head"]) > 1 else f"a {kind}"
                lacks = "whose code has changed" if changed else "which a new task does not have"
                raise Unsavable(f"{where(self.saved, n)} is {name}, {lacks}")

    def _is_makeable(self, node: Node) -> bool:
        if node["head"][0] == "local function":
            return tuple(node["head"][1:]) in self.new.codes
        if "class" in node:
            module = self.saved[node["class"]["node"]]["head"][1].partition(":")[0]
            return module in CREATABLE or module.partition(".")[0] not in sys.stdlib_module_names
        return KINDS[node["head"][0]].make is not None

    def _make(self, last: bool) -> None:
        """Make the objects that the new task does not have, each after those that it needs; sets that hash others only at `last`."""
        stack, entered = list(range(len(self.saved)))[::-1], set[int]()
        while stack:
            n = stack.pop()
            if n in self.objects:
                continue
            needed = [m for m in self._needs(n) if m not in self.objects]
            if needed and n not in entered:
                entered.add(n)
                stack += [n, *needed]
            elif not needed and (last or not self._hashes(n)):
                self.objects[n] = self._made(n)
            elif last:
                raise ValueError("an object that contains itself")

    def _needs(self, n: int) -> list[int]:
        node = self.saved[n]
        parts = [node[part] for part in (*self._kind(n).needs, "class") if part in node]
        return [number for _, number in references(parts)]

    def _hashes(self, n: int) -> bool:
        node = self.saved[n]
        return node["head"][0] == "frozenset" and any(map(is_reference, node["items"]))

    def _made(self, n: int) -> Any:
        """The object of the new task if it has the same contents, or a new one."""
        node, partner = self.saved[n], self.partners.get(n)
        if partner is not None:
            new = self.new.nodes[partner]
            if all(self._is_same(node.get(part), new.get(part)) for part in self._kind(n).needs or tuple(node)):
                return self.new.objects[partner]
        if node["head"][0] == "local function":
            return code.make_function(node, self.resolve, self.new.codes)
        make = self._kind(n).make
        if make is None:
            raise Unsavable(f"{where(self.saved, n)} is another one in a new task")
        return make(node, self.resolve)

    def _is_same(self, saved: Any, new: Any) -> bool:
        """Whether two parts of nodes stand for the same objects, which are made already."""
        if is_reference(saved) and is_reference(new):
            return self.objects.get(saved["node"], self) is self.new.objects[new["node"]]
        if isinstance(saved, list) and isinstance(new, list):
            return len(saved) == len(new) and all(map(self._is_same, saved, new))
        if isinstance(saved, dict) and isinstance(new, dict):
            return saved.keys() == new.keys() and all(self._is_same(part, new[name]) for name, part in saved.items())
        return type(saved) is type(new) and bool(saved == new)

    def _fill(self, last: bool) -> None:
        """Write the contents of every object: memory first, what is hashed last; before `last` only where all is made."""
        for n in sorted(self.objects, key=self._rank):
            fill = self._kind(n).fill
            if fill is not None and (last or all(m in self.objects for _, m in references(self.saved[n]))):
                fill(self.objects[n], self.saved[n], self.resolve)

    def _rank(self, n: int) -> tuple[int, int]:
        node = self.saved[n]
        if node["head"][0] in MEMORY:
            return MEMORY.index(node["head"][0]), n
        keys = [item[0] if isinstance(item, list) else item for item in node["items"]] if node["head"][0] in HASHING else []
        return len(MEMORY) + (2 if any(map(is_reference, keys)) else node["head"][0] in HASHING), n

    def _verify(self) -> None:
        """Raise Unsavable with the name of the first thing that is not what it was: nothing may differ silently."""
        walk = Walk(take)
        walk.objects = [self.objects[n] for n in range(len(self.saved))]
        walk.nodes, walk.numbers = [{} for _ in walk.objects], {id(each): n for n, each in reversed(list(enumerate(walk.objects)))}
        walk.globals, walk.physics, walk.complete = self.new.globals, self.new.physics, True
        walk.codes = self.new.codes if any("contacts" in node for node in self.saved) else {}
        for n in sorted(range(len(self.saved)), key=self._rank):
            node = walk.node_of(self.objects[n])
            if node is None or not _is_equal(self.saved[n], node, walk.objects):
                kind = self.saved[n]["head"][0]
                what = "a set whose order" if kind in ("set", "frozenset") else f"the {kind} that"
                raise Unsavable(f"{where(self.saved, n)} is {what} cannot be restored")


def _environments(source: Any) -> set[int]:
    """Ids of the source, its environments and what they wrap, with the containers on the way to them."""
    ids, layer = set[int](), [source]
    while layer:
        ids |= {id(each) for env in layer for each in (env, vars(env), vars(env).get("envs"))}
        inside = [vars(env).get(name) for env in layer for name in ("envs", "vector", "env")]
        candidates = [each for part in inside for each in (part if isinstance(part, list | tuple) else [part])]
        layer = [each for each in candidates if isinstance(each, gymnasium.Env | VectorEnv) and id(each) not in ids]
    return ids


def _is_frozen(kind: Kind) -> bool:
    """Whether objects of a kind have their contents once they are made, so that one of the new task serves only if it has the same ones."""
    return bool(kind.needs) or (kind.fill is None and kind.make is not None)


def _same_places(old: Any, new: Any) -> Iterator[Pair]:
    """Numbers at the same place in two nodes."""
    if is_reference(old) and is_reference(new):
        yield old["node"], new["node"]
    elif isinstance(old, dict) and isinstance(new, dict):
        for name in [name for name in old if name in new]:
            yield from _same_places(old[name], new[name])
    elif isinstance(old, list) and isinstance(new, list):
        for a, b in zip(old, new, strict=False):
            yield from _same_places(a, b)


def _is_equal(saved: Any, now: Any, objects: list[Any]) -> bool:
    """Whether two parts of nodes are the same but for what serves rendering."""
    if IGNORED in (saved, now):
        return True
    if is_reference(saved) and is_reference(now):
        return objects[saved["node"]] is objects[now["node"]]
    if isinstance(saved, dict) and isinstance(now, dict):
        if "ignored" in saved or "ignored" in now:
            saved, now = _without_ignored(saved, now), _without_ignored(now, saved)
        return saved.keys() == now.keys() and all(_is_equal(part, now[name], objects) for name, part in saved.items())
    if isinstance(saved, list) and isinstance(now, list):
        return len(saved) == len(now) and all(_is_equal(a, b, objects) for a, b in zip(saved, now, strict=True))
    return type(saved) is type(now) and bool(saved == now)


def _without_ignored(node: Node, other: Node) -> Node:
    """The node of a dictionary without the keys of what serves rendering in either."""
    ignored = [*node.get("ignored", ()), *other.get("ignored", ())]
    items = [item for item in node.get("items", ()) if item[0] not in ignored]
    return {name: part for name, part in node.items() if name != "ignored"} | {"items": items}
