"""Ways of learning: which loop an algorithm uses, whether it can learn from a data set, and which options belong to another way."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from mbkit import registry
from mbkit.config.schema import (
    LOOPS,
    FinetuneLoop,
    FinetuneModelLoop,
    FreshLoop,
    OfflineLoop,
    OldTrajectoryLoop,
    OnlineLoop,
    Part,
    ReplayLoop,
    TrajectoryLoop,
)
from mbkit.errors import UserError
from mbkit.paths import short
from mbkit.registry import Entry, experience, nearest

# the loop of an agent alone, by the first kind of experience that it learns from
LOOP_OF = {"old_trajectories": OldTrajectoryLoop, "trajectories": TrajectoryLoop, "replay": ReplayLoop, "fresh": FreshLoop}
ONLINE = ("env", "steps", "eval", "checkpoint", "loop")  # what the presets and defaults of agents that act say of acting
CONTINUING_DEFAULTS = {"steps": 20_000, "eval": {"every": 1000}}
OFFLINE_DEFAULTS = {"steps": 50_000, "eval": {"every": 5000}, "checkpoint": {"every": 5000}}


def algorithm(algo: str) -> Entry:
    """The entry of a recipe or of an agent alone, which share one namespace."""
    if algo in registry.recipes:
        return registry.recipes[algo]
    if algo in registry.agents:
        return registry.agents[algo]
    known = [entry.name for kind in (registry.recipes, registry.agents) for entry in kind]
    raise UserError(f"unknown algorithm {algo!r}; {nearest(algo, known)}")


def loop_class(entry: Entry, offline: bool = False, continues: bool = False) -> type:
    """The class of an algorithm's loop options: the recipe's, or by what an agent alone learns from.

    `offline`: it learns from a data set; `continues`: it goes on from another run, in an environment.
    """
    if continues and entry.loop is not None and "dynamics" in entry.defaults:
        return FinetuneModelLoop
    if continues:
        check_continuing(entry)
        return FinetuneLoop
    if offline or only_offline(entry):
        return OfflineLoop
    if entry.loop is not None:
        return entry.loop
    return next((LOOP_OF[kind] for kind in LOOP_OF if kind in entry.learns_from), OnlineLoop)


def only_offline(entry: Entry) -> bool:
    """Whether an algorithm learns from a data set and from nothing else."""
    return entry.loop is OfflineLoop or (entry.loop is None and entry.learns_from == ("dataset",))


def check_offline(entry: Entry, data: str) -> None:
    """UserError where an algorithm cannot learn from a data set."""
    suited = {"dataset"} if entry.loop is not None else {"dataset", "replay"}
    if suited & set(entry.learns_from) and entry.name != "random":
        return
    if own_group(entry) == "agent" and entry.loop is not None:
        why = (
            f"which plans with a model: `mbkit dynamics fit {short(data)} --out dynamics.pt` fits one to the data, "
            f"and dynamics.load=dynamics.pt hands it to {entry.name}"
        )
    else:
        kinds = experience(entry.learns_from) or "nothing"
        why = f"which learns from {kinds} as it acts; expected an agent that learns from any transitions, such as iql, td3_bc or sac"
    raise UserError(f"data={short(data)} has no meaning for {entry.name}, {why}")


def check_continuing(entry: Entry) -> None:
    """UserError where an algorithm's agent cannot go on learning in an environment."""
    if entry.loop is not None:
        why = "a recipe round a model" if entry.defaults.get("dynamics") else "no agent that learns"
        raise UserError(f"{entry.name} cannot be fine-tuned: it is {why}; `mbkit resume RUN steps=M` goes on with it")
    if not {"dataset", "replay"} & set(entry.learns_from):
        kinds = experience(entry.learns_from)
        raise UserError(f"{entry.name} cannot be fine-tuned: it learns from {kinds}, and neither from a data set nor from a replay")


def own_group(entry: Entry) -> str:
    """The group that an algorithm's own configuration fills: of a recipe round an exchangeable agent it is `imagination`."""
    return "imagination" if "agent" in entry.defaults else "agent"


def continued_by(entry: Entry) -> Entry:
    """What goes on, in an environment, from a run of an algorithm: itself, or MBPO from rollouts of a model of a data set.

    Raises:
        UserError: nothing can.
    """
    if entry.loop is OfflineLoop:
        return registry.recipes["mbpo"]
    check_continuing(entry)
    return entry


def have(names: Sequence[str]) -> str:
    """ "has" or "have"."""
    return "have" if len(names) > 1 else "has"


def refuse_foreign(entry: Entry, loop: Any, offline: bool = False, continues: bool = False) -> None:
    """UserError where the loop is set an option of another way of learning."""
    mine = {f.name for f in fields(loop_class(entry, offline, continues))}
    others = {f.name for cls in LOOPS for f in fields(cls)} - mine
    foreign = [f"loop.{key}" for key in loop if key in others] if isinstance(loop, Mapping) else []
    if foreign:
        regime = "plans with a model" if entry.loop is not None else f"learns from {experience(entry.learns_from)}"
        regime = regime if own_group(entry) == "agent" else f"updates its agent on {experience(offered(entry, offline))}"
        regime = "goes on in an environment" if continues else "learns from a fixed data set" if offline else regime
        names = ", ".join(sorted(mine))
        raise UserError(
            f"{', '.join(foreign)} {have(foreign)} no meaning for {entry.name}, which {regime}; of loop.* these have one: {names}"
        )


def check_agent(entry: Entry, agent: Part | None, offline: bool = False) -> None:
    """UserError where the chosen agent cannot learn from what the recipe offers it; `offline`: on a data set."""
    if agent is None or own_group(entry) == "agent":
        return
    can, offers = registry.agents[agent.name].learns_from, offered(entry, offline)
    if not set(offers) & set(can):
        suited = [e.name for e in registry.agents if set(offers) & set(e.learns_from)]
        raise UserError(
            f"agent {agent.name!r} learns from {experience(can)}, but {entry.name} offers {experience(offers)}; "
            f"expected one of {', '.join(suited)}"
        )


def offered(entry: Entry, offline: bool) -> list[str]:
    """What a recipe offers its agent: on a data set also to learners from any transitions, elsewhere no data set."""
    kinds = [kind for kind in entry.learns_from if offline or kind != "dataset"]
    return ["replay", *(kind for kind in kinds if kind != "replay")] if offline and "dataset" in kinds else kinds
