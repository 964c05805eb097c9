"""Names users type -> what they stand for, filled by decorator, or by entry point from a user's own package.

Built-in parts register when a name is first looked up. A package of the user's adds an agent with::

    [project.entry-points."mbkit.agents"]
    mine = "my_package.my_agent:MyAgent"     # decorated with @agents.register("mine", MyConfig)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from mbkit.errors import UserError

T = TypeVar("T")
LISTED = 30  # names that an error message lists at most

# What an agent can learn from, as messages call it.
EXPERIENCE = {
    "replay": "replayed transitions",  # any transitions, sampled from the replay or predicted by a model
    "fresh": "its newest transitions",  # each once
    "trajectories": "trajectories of its policy",  # consecutive steps of the present policy
    "old_trajectories": "trajectories of earlier policies",  # by importance weights
    "dataset": "a fixed data set",
    "windows": "windows of replayed transitions",  # consecutive steps
}


def experience(kinds: Iterable[str]) -> str:
    """Kinds of EXPERIENCE as a phrase for messages."""
    return " or ".join(EXPERIENCE[kind] for kind in kinds)


def nearest(name: str, known: Iterable[str]) -> str:
    """A half-sentence for an error message: the closest of the known names, or all of them, of very many the first."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    more = len(names) - LISTED
    return f"known: {', '.join(names[:LISTED]) or 'none'}" + (f" and {more} others" if more > 1 else f", {names[-1]}" if more == 1 else "")


@dataclass(frozen=True)
class Entry:
    """A registered class or build function with the dataclass that configures it."""

    name: str
    target: Any
    config: type
    summary: str  # first line of the docstring, for `mbkit list`
    defaults: Mapping[str, Any] = field(default_factory=dict)  # environment, steps and parts unless chosen: {"planner": {"name": "icem"}}
    learns_from: tuple[str, ...] = ()  # an agent: kinds of EXPERIENCE; a recipe: the kind that it offers its agent
    loop: type | None = None  # a recipe: the class of its loop options
    imagination: type | None = None  # a recipe whose options are its agent's: the class of those that it has in `imagination`
    no_model: str = ""  # a recipe: the condition, as `when` of a field, under which it uses no model


class Registry:
    """One namespace of names, e.g. all planners; looking up an unknown name raises UserError with the nearest match.

    Args:
        kind: what an entry is called in messages.
        group: of the entry points by which other packages add to it.
        package: whose import registers the built-in entries; the group's name unless given.
    """

    def __init__(self, kind: str, group: str, package: str | None = None) -> None:
        self.kind, self.group, self.package = kind, group, package or group
        self._entries: dict[str, Entry] = {}
        self._loaded = False

    def register(
        self,
        name: str,
        config: type,
        *,
        learns_from: str | tuple[str, ...] = "replay",
        loop: type | None = None,
        imagination: type | None = None,
        no_model: str = "",
        defaults: Mapping[str, Any] | None = None,
    ) -> Callable[[T], T]:
        """Decorator: register the class (or build function) as `name`, configured by the dataclass `config`; the rest as in `Entry`."""
        kinds = (learns_from,) if isinstance(learns_from, str) else learns_from
        for kind in kinds:
            if kind not in EXPERIENCE:
                raise UserError(f"{self.kind} {name!r}: learns_from={kind!r}; {nearest(kind, EXPERIENCE)}")

        def register(target: T) -> T:
            if name in self._entries and self._entries[name].target.__module__ != getattr(target, "__module__", None):
                raise UserError(f"{self.kind} {name!r} is registered twice: by {self._entries[name].target!r} and by {target!r}")
            doc = (getattr(target, "__doc__", None) or "").strip().splitlines()
            self._entries[name] = Entry(
                name, target, config, doc[0] if doc else "", dict(defaults or {}), kinds, loop, imagination, no_model
            )
            return target

        return register

    def _load(self) -> None:
        """Import what registers: the built-in parts, then other packages' entry points."""
        if self._loaded:
            return
        self._loaded = True
        import_module(self.package)
        for point in entry_points(group=self.group):
            try:
                point.load()
            except Exception as error:  # a broken plug-in is its author's mistake: name it
                raise UserError(f"entry point {point.name!r} = {point.value!r} of {self.group} failed to load: {error}") from error

    def __getitem__(self, name: str) -> Entry:
        self._load()
        if name not in self._entries:
            raise UserError(f"unknown {self.kind} {name!r}; {nearest(name, self._entries)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def __iter__(self) -> Iterator[Entry]:
        self._load()
        return iter(sorted(self._entries.values(), key=lambda e: e.name))


agents = Registry("agent", "mbkit.agents")  # learners: class(spec, config, gamma, ...)
recipes = Registry("recipe", "mbkit.recipes")  # wirings: build(assembly, config)
dynamics = Registry("dynamics", "mbkit.dynamics")  # models of the environment: class(spec, config, task)
planners = Registry("planner", "mbkit.planners", package="mbkit.planning")  # searches over action sequences: class(spec, config)
critics = Registry("critic", "mbkit.critics", package="mbkit.networks.critics")  # architectures: class(members, sizes, form)
gates = Registry("gate", "mbkit.gates", package="mbkit.imagination.gate")  # of model rollouts: make(options, units of the targets)
