"""Environments by name: Gymnasium, dm_control and the PETS benchmark tasks, with their arguments checked first."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any
from weakref import WeakValueDictionary

import gymnasium
from gymnasium.envs.registration import EnvSpec as Registration

from mbkit.config.imports import import_module_of
from mbkit.envs.arguments import check_kwargs, creator_of, of_library, takes_render_mode
from mbkit.envs.checking import CRASHES
from mbkit.envs.environment import Environment, single
from mbkit.envs.rows import close_all
from mbkit.envs.task_objects import registration_of, task_at
from mbkit.errors import UserError, crashed
from mbkit.paths import short
from mbkit.registry import nearest

BENCHMARKS = {"cartpole": "swing-up", "halfcheetah": "run", "pusher": "push to a goal", "reacher": "reach a goal"}  # mbkit/NAME-v0
FAMILIES = {  # package of Gymnasium's tasks -> description
    "gymnasium.envs.mujoco": "MuJoCo, Gymnasium",
    "gymnasium.envs.classic_control": "classic control, Gymnasium",
    "gymnasium.envs.box2d": "Box2D, Gymnasium",
    "gymnasium.envs.toy_text": "toy text, Gymnasium",
}
CAMERA = {"camera_id", "camera_name", "default_camera_config"}  # arguments of MuJoCo tasks that choose the camera
FLOOR_SCALE = 20  # factor of the rendered floor: a fast runner leaves one of 40 m
MADE: WeakValueDictionary[int, gymnasium.Env[Any, Any]] = WeakValueDictionary()  # those that exist, by identity
IMAGES = {"CarRacing", "ALE"}  # names or namespaces of tasks with image observations, which are known only once a task is made


def make(
    name: str,
    *,
    seed: int = 0,
    num_envs: int = 1,
    env_kwargs: Mapping[str, Any] | None = None,
    render_mode: str | None = None,
    task: Any = None,
) -> Environment:
    """`num_envs` copies of a task, environment i seeded with seed + i.

    Args:
        name: Gymnasium's, `module:Name-v0` of a package to import, `module:name` of a class or function, `dm_control/DOMAIN-TASK-v0`, or
            one of `cartpole reacher pusher halfcheetah`.
        seed: seed of environment 0.
        num_envs: number of copies.
        env_kwargs: arguments of the task's constructor, and `max_episode_steps`, the time limit.
        render_mode: Gymnasium's; "rgb_array" for `Environment.render`.
        task: a class, a function that makes the task, or a specification, which `name` then only names.

    Raises:
        UserError: unknown name or argument, or a space that has no vector form.
    """
    if num_envs < 1:
        raise UserError(f"num_envs of {name}: expected at least 1, got {num_envs}")
    _import_mujoco()
    if render_mode is not None or name.startswith("dm_control/"):
        _render_without_display()
    registration, kwargs = _find(name) if task is None else registration_of(task, name), dict(env_kwargs or {})
    arguments = f" with env_kwargs {', '.join(sorted(kwargs))}" if kwargs else ""
    try:
        check_kwargs(name, registration, kwargs)
        if render_mode is not None and not takes_render_mode(creator_of(registration)):
            raise UserError(f"{name} takes no render_mode, without which it cannot be filmed")
        with quiet(registration):
            envs = _several(registration, kwargs, render_mode, num_envs)
        try:
            return single(name, envs, seed)
        except BaseException:
            close_all(envs)
            raise
    except (UserError, gymnasium.error.Error, ImportError) as error:  # Gymnasium's errors name the argument, or the package to install
        raise error if isinstance(error, UserError) else UserError(f"environment {name!r} cannot be made: {error}") from error
    except CRASHES as error:
        if of_library(registration) and isinstance(error, TypeError | ValueError | AssertionError | OSError):  # OSError: a file named there
            raise UserError(f"environment {name!r} cannot be made{arguments}: {error}") from error
        raise crashed(f"environment {name!r} cannot be made{arguments}: it", error) from error


def _several(registration: Registration, kwargs: dict[str, Any], render_mode: str | None, count: int) -> list[gymnasium.Env[Any, Any]]:
    """As many environments; where one cannot be made those before it are closed."""
    envs: list[gymnasium.Env[Any, Any]] = []
    try:
        for _ in range(count):
            envs.append(_single(registration, kwargs, render_mode))
            if registration.id not in gymnasium.registry:
                refuse_repeated(envs[-1], registration)
    except BaseException:
        close_all(envs)
        raise
    return envs


def refuse_repeated(env: gymnasium.Env[Any, Any], registration: Registration) -> None:
    """UserError where the user's function returns an environment that it returned before, so that two copies would be one."""
    task = env.unwrapped
    if MADE.get(id(task)) is task:
        raise UserError(f"the function that makes environment {registration.id!r} returned the same one twice; expected new ones")
    MADE[id(task)] = task


def _single(registration: Registration, kwargs: dict[str, Any], render_mode: str | None) -> gymnasium.Env[Any, Any]:
    """One environment, without Gymnasium's passive checker, which only warns and costs time: `Environment` refuses the same mistakes."""
    limit = {key: value for key, value in kwargs.items() if key == "max_episode_steps"}
    task = {key: value for key, value in kwargs.items() if key not in limit}  # Gymnasium copies them: a task may change its own
    registration = replace(registration, kwargs={**registration.kwargs, **task})
    if render_mode is None:  # not passed: the constructor of a plain gymnasium.Env may not have it
        return gymnasium.make(registration, disable_env_checker=True, **limit)
    env = gymnasium.make(registration, disable_env_checker=True, render_mode=render_mode, **limit)
    if not CAMERA & kwargs.keys():
        _follow(env)
    return env


def _follow(env: gymnasium.Env[Any, Any]) -> None:
    """Render with the model's camera `track` if there is one: Gymnasium's default camera is fixed, and a runner leaves its image.

    The rendered floor is enlarged, with tiles of the same size; collisions with a plane do not depend on its size.
    """
    renderer = getattr(env.unwrapped, "mujoco_renderer", None)
    if renderer is None or renderer.camera_id != -1:
        return
    mujoco = import_module("mujoco")
    model = renderer.model
    renderer.camera_id = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track")  # -1 where there is none
    floors = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    if renderer.camera_id >= 0:
        model.geom_size[floors, :2] *= FLOOR_SCALE
        model.mat_texrepeat[model.geom_matid[floors & (model.geom_matid >= 0)]] *= FLOOR_SCALE


@contextmanager
def quiet(registration: Registration) -> Iterator[None]:
    """Suppress MuJoCo's warning about `settotalmass` of half_cheetah.xml while one of Gymnasium's MuJoCo models is compiled.

    MuJoCo would write it to the terminal and to MUJOCO_LOG.TXT in the working directory at each load; other warnings go to the logger
    `mujoco`. The handler before can't be read, so that there is none afterwards; nothing is done if dm_control may have set one.
    """
    entry = registration.entry_point
    if not isinstance(entry, str) or not entry.startswith("gymnasium.envs.mujoco") or "dm_control" in sys.modules:
        yield
        return
    mujoco = import_module("mujoco")
    mujoco.set_mju_user_warning(_log_warning)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)


def _log_warning(message: str) -> None:
    if "settotalmass" not in message:
        logging.getLogger("mujoco").warning(message)


def names() -> list[str]:
    """Names for `make`, newest versions only; dm_control's tasks are included once one of them was made."""
    newest: dict[str, Registration] = {}
    for entry in gymnasium.registry.values():
        family = f"{entry.namespace}/{entry.name}"
        if family not in newest or (entry.version or 0) > (newest[family].version or 0):
            newest[family] = entry
    return sorted({*BENCHMARKS, *(e.id for e in newest.values() if not e.id.startswith(("mbkit/", "GymV2", "phys2d/", "tabular/")))})


def available() -> list[tuple[str, str]]:
    """Names and descriptions of the tasks that can be made: those with vector observations whose packages are installed."""
    tasks = import_module("mbkit.envs.benchmarks").TASKS
    rows = [(name, f"PETS benchmark: {what}, {tasks[name].horizon} steps") for name, what in BENCHMARKS.items()]
    for name in set(names()) - BENCHMARKS.keys():
        entry = gymnasium.registry[name]
        if IMAGES & {entry.name, entry.namespace}:
            continue
        try:
            creator = creator_of(entry)
        except CRASHES:  # raised by the import of absent and broken packages
            continue
        module = getattr(creator, "__module__", "")
        rows.append((name, FAMILIES.get(module.rpartition(".")[0]) or module.partition(".")[0]))
    return sorted(rows)


def _find(name: str) -> Registration:
    """Gymnasium's entry for the name, after importing the package that registers it; UserError with the nearest name if there is none."""
    module, _, key = name.rpartition(":")
    if key in BENCHMARKS and not module:
        key = f"mbkit/{key}-v0"
    if key.startswith("mbkit/"):
        import_module("mbkit.envs.benchmarks")
    if key.startswith("dm_control/"):
        _register_dm_control(name)
    if module:
        import_module_of(name)
        if key not in gymnasium.registry:
            return registration_of(task_at(name), name)
    if key not in gymnasium.registry:
        family = name.split("/")[0] + "/"
        same_family = [key for key in gymnasium.registry if key.startswith(family)] if "/" in name else []
        raise UserError(f"unknown environment '{short(name)}'; {nearest(key, same_family or names())}")
    return gymnasium.registry[key]


def _register_dm_control(name: str) -> None:
    try:
        import_module("dm_control.suite")
        shimmy = import_module("shimmy")
    except (ImportError, AttributeError) as error:  # AttributeError: dm_control with a newer MuJoCo
        raise UserError(f'environment {name!r} needs dm_control: pip install "mbkit[dmc]" ({error})') from error
    gymnasium.register_envs(shimmy)


def _import_mujoco() -> None:
    """Import MuJoCo, which loads the graphics library that MUJOCO_GL selects; UserError if that fails."""
    try:
        import_module("mujoco")
    except (AttributeError, ImportError, RuntimeError) as error:
        raise UserError(f"MuJoCo cannot be imported with MUJOCO_GL={os.environ.get('MUJOCO_GL')!r}: {error}") from error


def _render_without_display() -> None:
    """Set MUJOCO_GL=egl where there is no display but EGL, since MuJoCo's default needs a display.

    Gymnasium reads the variable when it first renders, dm_control when it is imported. Without EGL the variable stays unset: it would make
    every later import of MuJoCo fail, also in processes that never render.
    """
    display = any(os.environ.get(key) for key in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"))
    if display or not sys.platform.startswith("linux"):
        return
    try:
        import_module("mujoco.egl")
    except (AttributeError, ImportError, RuntimeError):
        return  # the first rendering raises an error that names what is missing
    os.environ["MUJOCO_GL"] = "egl"
