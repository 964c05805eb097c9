"""One walk over everything that a task holds: every object becomes one numbered node, however many references lead to it.

A node is a dictionary of JSON values: its `head` says what the object is (kind, class, layout), the other entries are its contents. None,
booleans, integers, floats and strings stand for themselves, any other object is a reference {"node": number}. Where names of the user's are
keys, they begin with a dot. Node 0 is the task.
"""

import base64
import functools
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import MethodType, ModuleType
from typing import Any

Node = dict[str, Any]
IGNORED: Node = {"ignored": True}  # stands for an object that serves rendering or logging only: it is neither saved nor restored
RENDERING_MODULES = (
    *("pygame.surface", "pygame.time", "pygame.font", "pygame.display", "pygame.window", "pygame.mixer", "pygame.event", "pyglet"),
    *("gymnasium.envs.mujoco.mujoco_rendering", "mujoco.viewer", "mujoco.renderer", "mujoco.rendering", "mujoco.gl_context", "mujoco.egl"),
    *("mujoco.osmesa", "mujoco.glfw", "glfw", "OpenGL", "matplotlib", "PIL", "cv2", "imageio", "moviepy", "tkinter", "logging"),
    *("rich", "tqdm", "torch.utils.tensorboard", "tensorboardX", "wandb"),
)  # and logging; modules that define such types
MAPPINGS = ("dict", "OrderedDict", "defaultdict", "SimpleNamespace")
LIBRARIES = {
    *("mbkit", "gymnasium", "numpy", "torch", "mujoco", "scipy", "pygame", "matplotlib", "PIL", "dm_control", "dm_env", "shimmy", "Box2D"),
    *("jax", "jaxlib", "numba", "sympy", "pandas", "cv2", "tqdm", "rich", "typing_extensions", "pytest", "_pytest", "hypothesis"),
}  # beside the standard library: their classes and functions hold no state of a task


class Unsavable(Exception):
    """Something of a task that cannot be saved as data, or cannot be restored; the message names it."""


class Global:
    """A global variable that a user's function reads or sets: `name` in the dictionary `space` of its module."""

    def __init__(self, space: dict[str, Any], name: str) -> None:
        self.space, self.name = space, name


class Walk:
    """Objects by number and their nodes; `take` makes the node of an object and calls `refer` for everything inside."""

    def __init__(self, take: "Callable[[Any, Walk], Node | None]") -> None:
        self.take = take
        self.objects: list[Any] = []  # holding them also keeps their ids from being used again
        self.nodes: list[Node] = []
        self.numbers: dict[int, int] = {}  # number of an object by its id
        self.globals: dict[tuple[int, str], Global] = {}
        self.codes: dict[tuple[str, str], tuple[Any, dict[str, Any]]] = {}  # by name and fingerprint: code of local functions, and globals
        self.physics: dict[int, tuple[Any, dict[str, Any]]] = {}  # MuJoCo's models and data, and their fields
        self.complete = False  # all of those are known, so that every array can be told whether it lies on their memory
        self._queue: deque[int] = deque()

    def refer(self, value: Any) -> Any:
        """A value as it appears inside a node."""
        kind = type(value)
        plain = kind is bool or kind is str or (kind is int and value.bit_length() < 10_000) or (kind is float and value == value)
        if value is None or plain:
            return value
        return IGNORED if is_ignored(value) else {"node": self._number(value)}

    def variable(self, space: dict[str, Any], name: str) -> Node:
        """The reference to a global variable."""
        variable = self.globals.setdefault((id(space), name), Global(space, name))
        return {"node": self._number(variable)}

    def run(self, root: Any) -> "Walk":
        """Visit all that can be reached, breadth first."""
        self._number(root)
        postponed: list[int] = []
        while self._queue or postponed:
            if not self._queue:
                self.complete = True
                self._queue, postponed = deque(postponed), []
            n = self._queue.popleft()
            node = self.node_of(self.objects[n])
            if node is None:  # it may lie on memory of MuJoCo data that come later
                postponed.append(n)
            else:
                self.nodes[n] = node
        return self

    def node_of(self, value: Any) -> Node | None:
        """The node of an object; None to come back later."""
        try:
            return self.take(value, self)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:  # a foreign object's
            return unsavable(f"is of type {type(value).__name__}, which raises {type(error).__name__} when it is read")

    def _number(self, value: Any) -> int:
        n = self.numbers.get(id(value))
        if n is None:
            n = self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)
            self.nodes.append({})
            self._queue.append(n)
        return n


def dotted(values: Mapping[str, Any], walk: Walk) -> Node:
    """A part of a node for values that have names."""
    return {f".{name}": walk.refer(value) for name, value in values.items()}


def unsavable(what: str) -> Node:
    """The node of an object that cannot be saved."""
    return {"head": ["unsavable", what]}


def is_reference(value: Any) -> bool:
    """Whether a value inside a node refers to another node."""
    return type(value) is dict and "node" in value


def references(value: Any, label: str = "") -> Iterator[tuple[str, int]]:
    """Numbers of the nodes to which a part of a node refers, with the way to them as it is written in Python."""
    if is_reference(value):
        yield label, value["node"]
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from references(part, f"{label}{name}")
    elif isinstance(value, list):
        for i, part in enumerate(value):
            yield from references(part, f"{label}[{i}]")


def where(nodes: list[Node], target: int) -> str:
    """The shortest way to a node, such as "attribute envs[0].table['a']"."""
    ways, queue = {0: "attribute "}, [0]
    for n in queue:
        head = nodes[n]["head"]
        way = f"class attribute {head[1].partition(':')[2]}" if head[0] == "class" else ways[n]
        for label, child in _labels(nodes, n):
            if child not in ways:
                head = nodes[child]["head"]
                ways[child] = f"global variable {head[1]}.{head[2]}" if head[0] == "global" else way + label
                queue.append(child)
    return ways.get(target, "a part of the task").replace("attribute .", "attribute ")


def _labels(nodes: list[Node], n: int) -> Iterator[tuple[str, int]]:
    """The references of a node, with the way to them as it is written in Python; attributes first."""
    node = nodes[n]
    if "attributes" in node:
        for name, value in nodes[node["attributes"]["node"]].get("items", ()):
            yield from references(value, f".{name}")
    for part, content in node.items():
        if part == "items" and node["head"][0] in MAPPINGS:
            for key, value in content:
                yield from references(value, f"[{key!r}]" if not isinstance(key, dict) else "[...]")
                yield from references(key, ".keys()")
        elif part != "head":
            yield from references(content, f".{part}" if part in ("object", "function", "factory", "defaults") else "")


def is_ignored(value: Any) -> bool:
    """Whether an object, or that of a method, serves rendering or logging only: decided by the module that defines its type."""
    kind = type(value.__self__) if type(value) is MethodType else type(value)
    return _is_ignored(str(kind.__module__), kind.__name__)


@functools.lru_cache(maxsize=4096)
def _is_ignored(module: str, name: str) -> bool:
    if module.partition(".")[0] == "mujoco" and name.startswith(("Mjv", "Mjr", "GLContext")):
        return True
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in RENDERING_MODULES)


@functools.lru_cache(maxsize=4096)
def is_library(module: str) -> bool:
    """Whether a module belongs to Python or to a library, so that only modules of the user's remain."""
    top = module.partition(".")[0]
    return top in LIBRARIES or top in sys.stdlib_module_names


def key_of(kind: type) -> str:
    """Module and name of a class."""
    return f"{kind.__module__}:{kind.__qualname__}"


def lookup(module: str, qualname: str) -> Any:
    """What lies at an import path among the modules that are imported already, None if nothing; runs no code."""
    value: Any = sys.modules.get(module)
    for part in qualname.split("."):
        if not isinstance(value, type | ModuleType):
            return None
        value = vars(value).get(part)
        value = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    return value


def to_text(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode("ascii")


def to_bytes(text: str) -> bytes:
    """The bytes of `to_text`."""
    return base64.b64decode(text, validate=True)
