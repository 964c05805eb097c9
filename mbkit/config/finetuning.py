"""The experiment of an agent that goes on learning in an environment: what a run says of it, and the user's options."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from mbkit.config.compose import composed, is_text, merge
from mbkit.config.identity import flatten
from mbkit.config.reading import parse_overrides
from mbkit.config.regimes import CONTINUING_DEFAULTS, algorithm, continued_by
from mbkit.config.schema import Experiment, FinetuneLoop, OfflineLoop
from mbkit.errors import UserError
from mbkit.paths import short
from mbkit.registry import Entry

CARRIED = ("algo", "env", "env_kwargs", "data", "data_top", "seed", "gamma", "device", "threads", "precision")  # options of the run
FIXED = ("algo", "continues", "preset", "data_top")  # what no option changes
OF_OFFLINE_LOOPS = ("batch_size",)  # what has the same meaning offline and online
FITTED = (
    "members",
    "elites",
    "hidden",
    "probabilistic",
    "delta",
    "scale_targets",
    "min_logvar",
    "max_logvar",
)  # what the model's file says
NOT_CARRIED = ("warmup_steps",)  # the agent has learned already


def continuing(before: Experiment, run: str, arguments: Sequence[str] = (), options: Mapping[str, Any] | None = None) -> Experiment:
    """The experiment that goes on from `run`, whose experiment is `before`.

    Raises:
        UserError: an agent that cannot go on online, no environment, or an option that is unknown, fixed by the run, or without a meaning.
    """
    entry = continued_by(algorithm(before.algo))
    typed = parse_overrides(arguments, options=options, verbatim=is_text)
    for key in FIXED:
        if key in typed:
            raise UserError(f"{key}= is not an option of finetune: {run} decides it")
    if isinstance(typed.get("agent"), Mapping) and "name" in typed["agent"]:
        name = before.algo if before.agent is None else before.agent.name
        raise UserError(f"agent= is not an option of finetune: the agent is {name}, of {run}")
    if typed.get("data") is not None and before.data is None:
        raise UserError(f"data={short(typed['data'])} has no meaning here: {run} learned without a data set")
    tree = merge({**carried(before, entry, run), "continues": run}, typed)
    if typed.get("env", before.env) != before.env and "env_kwargs" not in typed:
        tree["env_kwargs"] = {}
    if tree["env"] == "none":
        raise UserError(f"env=NAME is missing: {run} learned without an environment, and to go on online it needs one")
    return composed(tree, frozenset(flatten(typed)), entry)


def carried(before: Experiment, entry: Entry, run: str) -> dict[str, Any]:
    """The tree of options that the run hands on to what continues it, the algorithm `entry`."""
    plain = before.to_dict()
    if entry.name != before.algo:
        loop = {key: value for key, value in asdict(before.loop).items() if key in OF_OFFLINE_LOOPS}
        model = {**plain["dynamics"], "load": str(Path(run.rpartition("@")[0] or run) / "dynamics.pt")}
        parts = {"agent": plain["agent"], "dynamics": {key: value for key, value in model.items() if key not in FITTED}}
        return {**{key: plain[key] for key in CARRIED}, **CONTINUING_DEFAULTS, "algo": entry.name, **parts, "loop": loop}
    names = OF_OFFLINE_LOOPS if isinstance(before.loop, OfflineLoop) else [f.name for f in fields(FinetuneLoop)]
    loop = {key: value for key, value in asdict(before.loop).items() if key in names and key not in NOT_CARRIED}
    agent = {key: value for key, value in plain["agent"].items() if key != "name"}
    return {**{key: plain[key] for key in CARRIED}, "agent": agent, "loop": loop, **CONTINUING_DEFAULTS}
