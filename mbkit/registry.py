"""Names users type -> what they stand for, filled by decorator, or by entry point from a user's own package.

A package of the user's adds an agent with::

    [project.entry-points."mbkit.agents"]
    mine = "my_package.my_agent:MyAgent"     # decorated with @agents.register("mine", MyConfig)
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any, TypeVar

from mbkit.errors import UserError

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """A half-sentence for an error message: the closest of the known names, or all of them."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names) or 'none'}"


@dataclass(frozen=True)
class Entry:
    """A registered class or build function with the dataclass that configures it."""

    name: str
    target: Any
    config: type
    summary: str  # first line of the docstring, for `mbkit list`
    defaults: dict[str, Any] = field(default_factory=dict)  # an algorithm's usual parts: {"planner": {"name": "icem"}}


class Registry:
    """One namespace of names, e.g. all planners; looking up an unknown name raises UserError with the nearest match."""

    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group  # group: of entry points
        self._entries: dict[str, Entry] = {}
        self._plugins_loaded = False

    def register(self, name: str, config: type, **defaults: Any) -> Callable[[T], T]:
        """Decorator: file the class (or build function) under `name`, configured by the dataclass `config`."""

        def file(target: T) -> T:
            if name in self._entries and self._entries[name].target.__module__ != getattr(target, "__module__", None):
                raise UserError(f"{self.kind} {name!r} is registered twice: by {self._entries[name].target!r} and by {target!r}")
            doc = (getattr(target, "__doc__", None) or "").strip().splitlines()
            self._entries[name] = Entry(name, target, config, doc[0] if doc else "", defaults)
            return target

        return file

    def _load_plugins(self) -> None:
        if self._plugins_loaded:
            return
        self._plugins_loaded = True
        for point in entry_points(group=self.group):
            try:
                point.load()
            except Exception as error:  # a broken plug-in is its author's mistake: name it
                raise UserError(f"entry point {point.name!r} = {point.value!r} of {self.group} failed to load: {error}") from error

    def __getitem__(self, name: str) -> Entry:
        self._load_plugins()
        if name not in self._entries:
            raise UserError(f"unknown {self.kind} {name!r}; {nearest(name, self._entries)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        self._load_plugins()
        return name in self._entries

    def __iter__(self) -> Iterator[Entry]:
        self._load_plugins()
        return iter(sorted(self._entries.values(), key=lambda e: e.name))


agents = Registry("agent", "mbkit.agents")  # learners: class(spec, config, ...)
recipes = Registry("recipe", "mbkit.recipes")  # wirings: build(experiment, environment) -> Parts
dynamics = Registry("dynamics", "mbkit.dynamics")  # models of the environment
planners = Registry("planner", "mbkit.planners")  # searches over action sequences
