"""Tasks, rewards and terminations that Python users hand over as objects: `mbkit.train("pets", env=TwoTank, reward=my_reward)`.

A configuration holds an object's import path; one without (a lambda, a local class, what a script or a notebook defines) stands there as
"<name>", and has to be handed over again when its run is loaded or resumed.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from mbkit.config import Experiment, imports
from mbkit.config.identity import flatten
from mbkit.config.imports import SHORT, text_of, without_path
from mbkit.errors import UserError
from mbkit.recording import shown

FUNCTIONS = tuple(SHORT.values())  # options that take a function; `env` takes a task


class UserOptions(NamedTuple):
    """A user's options with texts in place of objects."""

    values: dict[str, Any]
    objects: dict[str, Any]  # "env", "dynamics.reward" -> object
    texts: dict[str, str]  # the same -> its text
    env_kwargs: dict[str, Any]  # of a specification that was handed over as the task


def named(options: Mapping[str, Any]) -> UserOptions:
    """The options as a configuration holds them, and the objects among them; UserError for an object that is no task or function."""
    out = UserOptions({}, {}, {}, {})
    out.values.update(_named(options, "", out))
    if out.env_kwargs:
        out.values["env_kwargs"] = out.env_kwargs | dict(out.values.get("env_kwargs") or {})
    return out


def _named(options: Mapping[str, Any], prefix: str, out: UserOptions) -> dict[str, Any]:
    values = {}
    for name, value in options.items():
        key = SHORT.get(f"{prefix}{name}", f"{prefix}{name}")
        if isinstance(value, Mapping) and key == "dynamics":
            value = _named(value, "dynamics.", out)
        elif key == "env" and not isinstance(value, str | None):
            value = _task(value, out)
        elif key in FUNCTIONS and callable(value):
            out.objects[key], out.texts[key] = value, text_of(value)
            value = out.texts[key]
        values[name] = value
    return values


def _task(task: Any, out: UserOptions) -> str:
    from mbkit.envs.task_objects import named_task

    text, kwargs, out.objects["env"] = named_task(task)
    out.env_kwargs.update(kwargs)
    out.texts["env"] = text
    return text


def with_objects(experiment: Experiment, options: UserOptions) -> Experiment:
    """The experiment with those objects that its configuration cannot lead back to."""
    lost = {key: thing for key, thing in options.objects.items() if without_path(options.texts[key])}
    return replace(experiment, objects=lost)


def handed_again(experiment: Experiment, options: Mapping[str, Any], directory: str | Path) -> tuple[Experiment, dict[str, Any]]:
    """A stored experiment with the objects that the user hands over again, and the other options.

    Raises:
        UserError: an object of another name than the stored import path, or too few objects.
    """
    came, stored = named(options), flatten(experiment.to_dict())
    for key, text in came.texts.items():
        if not without_path(stored.get(key)) and last_name(stored.get(key)) != last_name(text):
            raise UserError(f"{directory} was trained with {key}={stored.get(key)}; {key}={text} would be another experiment")
    objects = {key: thing for key, thing in came.objects.items() if came.texts[key] != stored[key] or not is_name(stored[key])}
    missing = [key for key in pathless(experiment) if key not in objects]
    if missing:
        what = f"Python object{'s' * (len(missing) > 1)} without an import path"
        raise UserError(f"{directory} was trained with {what}, {listed(experiment, missing)}; expected {call(missing, 'load', directory)}")
    rest = {key: value for key, value in options.items() if SHORT.get(key, key) not in (*came.texts, "dynamics")}
    dynamics = {k: v for k, v in dict(options.get("dynamics") or {}).items() if f"dynamics.{k}" not in came.texts}
    return replace(experiment, objects=objects), rest | ({"dynamics": dynamics} if dynamics else {})


def is_name(text: Any) -> bool:
    """Whether a text is the name of a registered task."""
    return ":" not in str(text) and not without_path(text)


def last_name(text: Any) -> str:
    """ "tasks.tanks:TwoTank" -> "TwoTank"."""
    return str(text).strip("<>").rpartition(":")[2].rpartition(".")[2]


def pathless(experiment: Experiment) -> list[str]:
    """UserOptions of which the configuration only holds the name of an object."""
    stored = flatten(experiment.to_dict())
    return [key for key in ("env", *FUNCTIONS) if without_path(stored.get(key))]


def listed(experiment: Experiment, keys: list[str]) -> str:
    """ "env=<TwoTank>, dynamics.reward=<lambda>"."""
    stored = flatten(experiment.to_dict())
    return ", ".join(f"{key}={stored[key]}" for key in keys)


def call(keys: list[str], function: str, *directories: str | Path) -> str:
    """The call that hands the objects over again: `mbkit.load("runs/one", env=..., reward=...)`; of several directories with their list."""
    objects, paths = ", ".join(f"{key.removeprefix('dynamics.')}=..." for key in keys), ", ".join(f'"{path}"' for path in directories)
    return f"mbkit.{function}({paths if len(directories) == 1 else f'[{paths}]'}, {objects})"


def object_note(experiment: Experiment) -> list[str]:
    """What the user should know of a run that nobody can load without its objects; empty where import paths lead to all of them."""
    keys = pathless(experiment)
    if not keys:
        return []
    what = f"the Python object{'s' * (len(keys) > 1)} {listed(experiment, keys)} without an import path"
    return [f"This run has {what}: it can be loaded and resumed only by {call(keys, 'load', 'RUN')}."]


def resumption(experiment: Experiment, *directories: str | Path) -> str:
    """What resumes a run, or several side by side: a command, or a call where it needs objects."""
    keys, paths = pathless(experiment), [shown(directory) for directory in directories]
    return f"`{call(keys, 'resume', *paths)}`" if keys else f"`mbkit resume {' '.join(paths)}`"


def taken_up(experiment: Experiment, objects: Mapping[str, Any], directory: str | Path) -> Experiment:
    """A stored experiment that is loaded with these objects or import paths; UserError for one that does not belong to it."""
    experiment, rest = handed_again(experiment, {key: value for key, value in objects.items() if value is not None}, directory)
    rest = {key: value for key, value in imports.without_repeated(experiment, rest).items() if value != experiment.env or key != "env"}
    for key, value in rest.items():
        stored = flatten(experiment.to_dict()).get(SHORT.get(key, key))
        raise UserError(f"{directory} was trained with {SHORT.get(key, key)}={stored}; {key}={value!r} would be another experiment")
    imports.announce(experiment, directory)
    return experiment
