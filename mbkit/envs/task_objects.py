"""Tasks that are no names of Gymnasium's registry: classes, functions that make a task, and specifications, as objects or import paths."""

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import gymnasium
from gymnasium.envs.registration import EnvSpec as Registration
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import VectorEnv

from mbkit.config import dialect
from mbkit.config.imports import object_at, path_of, text_of
from mbkit.errors import UserError, crashed
from mbkit.registry import nearest

LIBRARIES = ("gymnasium.envs.", "mbkit.envs.", "shimmy.")  # whose tasks every process finds under their names
EXPECTED = "expected the name of an environment, its class, a function that makes it, or a specification (env.spec)"


class NamedTask(NamedTuple):
    """A task as a configuration holds it."""

    text: str  # name, import path, or "<name>" of an object that has none
    env_kwargs: dict[str, Any]  # what a specification sets
    task: Any  # the object


def named_task(task: Any) -> NamedTask:
    """The task that a Python object stands for.

    Args:
        task: a subclass of `gymnasium.Env`, a function that makes a task, or an `EnvSpec` of Gymnasium.

    Raises:
        UserError: anything else, such as an instance, of which training, evaluation and film could not have one each.
    """
    if isinstance(task, gymnasium.Env | VectorEnv):
        name = type(task.unwrapped).__name__
        raise UserError(
            f"env is an instance of {name}, but training, evaluation and film need an environment each: "
            f"hand over its class (env={name}), a function that makes it, or its specification (env=env.spec)"
        )
    if isinstance(task, Registration):
        return named_specification(task)
    if isinstance(task, type) and not issubclass(task, gymnasium.Env):
        raise UserError(f"env is the class {task.__qualname__}, which is no subclass of gymnasium.Env; {EXPECTED}")
    if not callable(task):
        raise UserError(f"env={task!r} is no task; {EXPECTED}")
    return NamedTask(text_of(task), {}, task)


def named_specification(spec: Registration) -> NamedTask:
    """A specification by its name, where every process finds the same one, by the import path of what makes it, or as "<name>".

    What differs from the registered one, arguments and time limit, becomes `env_kwargs`; the render mode is left out.
    """
    kwargs = {key: value for key, value in spec.kwargs.items() if key != "render_mode"}
    registered = gymnasium.registry.get(spec.id)
    if registered is not None and in_library(spec) and core(registered) == core(spec):
        changed = {key: value for key, value in kwargs.items() if repr(value) != repr(registered.kwargs.get(key))}
        if spec.max_episode_steps in (registered.max_episode_steps, None):
            limit = {}
        else:
            limit = {"max_episode_steps": spec.max_episode_steps}
        lifted = spec.max_episode_steps is None and registered.max_episode_steps is not None
        if storable(changed) and not lifted:
            return NamedTask(spec.id, changed | limit, spec)
    path = creator_path(spec)
    if path is not None and not spec.additional_wrappers and storable(kwargs):
        limit = {} if spec.max_episode_steps is None else {"max_episode_steps": spec.max_episode_steps}
        return NamedTask(path, kwargs | limit, spec)
    return NamedTask(f"<{spec.id}>", {}, spec)


def core(spec: Registration) -> tuple[Any, ...]:
    """What makes two specifications the same task, apart from arguments and time limit."""
    return spec.entry_point, tuple(spec.additional_wrappers)


def in_library(spec: Registration) -> bool:
    """Whether the task comes with Gymnasium, dm_control or mbkit."""
    entry = spec.entry_point
    return (entry if isinstance(entry, str) else str(getattr(entry, "__module__", ""))).startswith(LIBRARIES)


def creator_path(spec: Registration) -> str | None:
    """The import path of what makes the task; None where it has none."""
    entry = spec.entry_point
    if not isinstance(entry, str):
        return None if entry is None else path_of(entry)
    try:
        return entry if load_env_creator(entry) is object_at(entry) else None
    except Exception as error:  # raised by the user's module
        raise crashed(f"the specification of {spec.id}: its entry point {entry!r}", error) from error


def storable(env_kwargs: Mapping[str, Any]) -> bool:
    """Whether config.yaml can hold these arguments."""
    try:
        dialect.argument_value(env_kwargs, "env_kwargs")
    except UserError:
        return False
    return True


def registration_of(task: Any, name: str) -> Registration:
    """A specification with which Gymnasium makes the task that `task`, a class, a function or a specification, stands for."""
    if isinstance(task, Registration):
        return replace(task, kwargs={key: value for key, value in task.kwargs.items() if key != "render_mode"})
    return Registration(id="".join(c if c.isalnum() or c in "_.:-" else "-" for c in name).strip("-") or "task", entry_point=creator(task))


def creator(task: Callable[..., Any]) -> Callable[..., Any]:
    """The task's class or function; other callables, which Gymnasium would copy, inside a function."""
    if isinstance(task, type) or hasattr(task, "__code__"):
        return task

    @functools.wraps(task)
    def make(**kwargs: Any) -> Any:
        return task(**kwargs)

    make.__module__ = str(getattr(task, "__module__", None) or type(task).__module__)
    return make


def task_at(path: str) -> Any:
    """The task at the import path `module:name`, whose module is imported already; UserError where there is none."""
    module, _, name = path.partition(":")
    task = object_at(path)
    if task is None:
        known = {n for n, value in vars(sys.modules[module]).items() if isinstance(value, type) and issubclass(value, gymnasium.Env)}
        registered = {key for key in gymnasium.registry if not in_library(gymnasium.registry[key])}
        raise UserError(f"unknown environment {path!r}: {module} neither registers nor defines it; {nearest(name, known | registered)}")
    if isinstance(task, gymnasium.Env):
        raise UserError(f"environment {path!r} is an instance; expected the name of its class or of a function that makes it")
    return named_task(task).task
