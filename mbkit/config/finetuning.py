"""The experiment of an agent that goes on learning in an environment: what a run says of it, and the user's options."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from mbkit.config.compose import composed, is_text, merge
from mbkit.config.identity import flatten
from mbkit.config.reading import parse_overrides
from mbkit.config.regimes import CONTINUING_DEFAULTS, algorithm, check_continuing
from mbkit.config.schema import Experiment, FinetuneLoop, OfflineLoop
from mbkit.errors import UserError

CARRIED = ("algo", "env", "env_kwargs", "data", "data_top", "seed", "gamma", "device", "threads", "precision")  # options of the run
FIXED = ("algo", "continues", "preset", "data_top")  # what no option changes
OF_OFFLINE_LOOPS = ("batch_size",)  # what has the same meaning offline and online
NOT_CARRIED = ("warmup_steps",)  # the agent has learned already


def continuing(before: Experiment, run: str, arguments: Sequence[str] = (), options: Mapping[str, Any] | None = None) -> Experiment:
    """The experiment that goes on from `run`, whose experiment is `before`.

    Raises:
        UserError: an agent that cannot go on online, no environment, or an option that is unknown, fixed by the run, or without a meaning.
    """
    entry = algorithm(before.algo)
    check_continuing(entry)
    typed = parse_overrides(arguments, options=options, verbatim=is_text)
    for key in FIXED:
        if key in typed:
            raise UserError(f"{key}= is not an option of finetune: {run} decides it")
    if isinstance(typed.get("agent"), Mapping) and "name" in typed["agent"]:
        raise UserError(f"agent= is not an option of finetune: the agent is {before.algo}, of {run}")
    if typed.get("data") is not None and before.data is None:
        raise UserError(f"data={typed['data']} has no meaning here: {run} learned without a data set")
    tree = merge({**carried(before), "continues": run}, typed)
    if typed.get("env", before.env) != before.env and "env_kwargs" not in typed:
        tree["env_kwargs"] = {}
    if tree["env"] == "none":
        raise UserError(f"env=NAME is missing: {run} learned without an environment, and to go on online it needs one")
    return composed(tree, frozenset(flatten(typed)), entry)


def carried(before: Experiment) -> dict[str, Any]:
    """The tree of options that the run hands on."""
    plain = before.to_dict()
    names = OF_OFFLINE_LOOPS if isinstance(before.loop, OfflineLoop) else [f.name for f in fields(FinetuneLoop)]
    loop = {key: value for key, value in asdict(before.loop).items() if key in names and key not in NOT_CARRIED}
    agent = {key: value for key, value in plain["agent"].items() if key != "name"}
    return {**{key: plain[key] for key in CARRIED}, "agent": agent, "loop": loop, **CONTINUING_DEFAULTS}
