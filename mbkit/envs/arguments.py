"""The arguments of a task's constructor: which there are, and of the tasks of Gymnasium and mbkit also whether a value fits."""

import inspect
import operator
from collections.abc import Callable, Mapping, Set
from numbers import Integral, Real
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec as Registration
from gymnasium.envs.registration import load_env_creator

from mbkit.errors import UserError
from mbkit.registry import nearest

LIBRARIES = ("gymnasium.envs.", "mbkit.envs.")  # whose tasks' arguments are like their defaults
KINDS: dict[type, Any] = {bool: bool | np.bool_, int: Real, float: Real, str: str, tuple: tuple | list | np.ndarray, dict: Mapping}
SPOKEN = ("yes", "no", "on", "off", "y", "n")  # text, which some mean as true or false


def creator_of(registration: Registration) -> Callable[..., Any] | None:
    """The class or function that makes a task."""
    entry = registration.entry_point
    return load_env_creator(entry) if isinstance(entry, str) else entry


def of_library(registration: Registration) -> bool:
    """Whether the task is one of Gymnasium's or mbkit's own."""
    entry = registration.entry_point
    return (entry if isinstance(entry, str) else getattr(entry, "__module__", "")).startswith(LIBRARIES)


def check_kwargs(name: str, registration: Registration, kwargs: dict[str, Any]) -> None:
    """UserError naming an argument that the task does not have, or whose value cannot be meant; makes the time limit an int."""
    creator = creator_of(registration)
    parameters, closed = _parameters(creator)
    parameters.pop("render_mode", None)
    for key, value in kwargs.items():
        if key == "max_episode_steps":
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise UserError(f"env_kwargs.max_episode_steps of {name}: expected an integer of at least 1, got {value!r}")
            kwargs[key] = operator.index(value)
        elif closed and creator and key not in parameters:
            direct = inspect.signature(creator).parameters  # a base's arguments without default (MujocoEnv: model_path) are the task's
            free = {k for k, p in parameters.items() if k in direct or p.default is not p.empty}
            raise UserError(f"environment {name!r} has no argument {key!r}; {nearest(key, {*free, 'max_episode_steps'})}")
        elif key in parameters:
            default, annotation = parameters[key].default, parameters[key].annotation
            if isinstance(default, bool) and isinstance(value, str) and value.lower() in SPOKEN:
                raise UserError(f"env_kwargs.{key} of {name}: expected true or false, got the text {value!r}")
            if of_library(registration):
                integer = type(default) is int and annotation in (int, "int") and not isinstance(value, Integral)
                _check_type(f"env_kwargs.{key} of {name}", value, default, Integral if integer else None)
    if not of_library(registration):
        check_required(name, creator, registration.kwargs.keys() | kwargs.keys())


def takes_render_mode(creator: Callable[..., Any] | None) -> bool:
    """Whether what makes the task takes a `render_mode`, by name or among further arguments."""
    parameters, closed = _parameters(creator)
    return "render_mode" in parameters or not closed


def check_required(name: str, creator: Callable[..., Any] | None, known: Set[str]) -> None:
    """UserError where the user's class or function needs arguments that are not among those known."""
    try:
        parameters = inspect.signature(creator).parameters if creator else {}
    except (TypeError, ValueError):  # it tells nothing
        return
    needed = [k for k, p in parameters.items() if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if missing := [key for key in needed if key not in known and key != "render_mode"]:
        raise UserError(f"environment {name!r} needs arguments: {', '.join(f'env_kwargs.{key}=...' for key in missing)}")


def _parameters(creator: Callable[..., Any] | None) -> tuple[dict[str, inspect.Parameter], bool]:
    """Parameters of the constructor, with those that it passes to its bases by `**kwargs`; and whether there can be no others."""
    parameters: dict[str, inspect.Parameter] = {}
    makers = [vars(c)["__init__"] for c in creator.__mro__ if "__init__" in vars(c)] if isinstance(creator, type) else [creator]
    for maker in filter(None, makers):
        if maker is object.__init__ and getattr(creator, "__new__", None) is object.__new__:
            return parameters, True  # its signature says anything, and it takes nothing
        try:
            direct = inspect.signature(maker).parameters
        except (TypeError, ValueError):  # it tells nothing
            return parameters, False
        named = {k: p for k, p in direct.items() if k != "self" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        parameters = {**named, **parameters}
        if not any(p.kind is p.VAR_KEYWORD for p in direct.values()):
            return parameters, True
    return parameters, False


def _check_type(what: str, value: Any, default: Any, kind: Any = None) -> None:
    kind = kind or KINDS.get(type(default))
    if kind is None:
        return
    if not isinstance(value, kind) or (isinstance(value, bool | np.bool_) and not isinstance(default, bool)):
        raise UserError(f"{what}: expected a value like {default!r}, got {value!r}")
    if isinstance(default, tuple):
        if len(value) != len(default):
            raise UserError(f"{what}: expected {len(default)} numbers like {default!r}, got {value!r}")
        for item, default_item in zip(value, default, strict=True):
            _check_type(what, item, default_item)
