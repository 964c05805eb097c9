"""Environments by name: Gymnasium, dm_control and the PETS benchmark tasks, with the arguments checked before they fail somewhere deep."""

import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from numbers import Integral, Real
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec as Registration
from gymnasium.envs.registration import load_env_creator

from mbkit.envs.environment import Environment, single
from mbkit.errors import UserError
from mbkit.registry import nearest

BENCHMARKS = {"cartpole": "swing-up", "halfcheetah": "run", "pusher": "push to a goal", "reacher": "reach a goal"}  # mbkit/NAME-v0
FAMILIES = {  # of Gymnasium's own tasks, by package
    "gymnasium.envs.mujoco": "MuJoCo, Gymnasium",
    "gymnasium.envs.classic_control": "classic control, Gymnasium",
    "gymnasium.envs.box2d": "Box2D, Gymnasium",
    "gymnasium.envs.toy_text": "toy text, Gymnasium",
}
CAMERA = {"camera_id", "camera_name", "default_camera_config"}  # arguments of MuJoCo tasks that choose how they are filmed
FARTHER = 20  # a floor of 40 m would end under a runner's feet
IMAGES = {"CarRacing", "ALE"}  # names or namespaces that show pixels, which can otherwise only be told by making them


def make(
    name: str, *, seed: int = 0, num_envs: int = 1, env_kwargs: Mapping[str, Any] | None = None, render_mode: str | None = None
) -> Environment:
    """`num_envs` copies of a task, environment i seeded with seed + i.

    `name` is Gymnasium's, `module:Name-v0` of a package to import, `dm_control/DOMAIN-TASK-v0`, or one of `cartpole reacher pusher
    halfcheetah`. `env_kwargs` go to the task's constructor; `max_episode_steps` among them sets the time limit. Unknown names and
    arguments, and spaces that are no vectors, raise UserError.
    """
    if num_envs < 1:
        raise UserError(f"num_envs of {name}: expected at least 1, got {num_envs}")
    _import_mujoco()
    if render_mode is not None or name.startswith("dm_control/"):
        _draw_without_display()
    registration = _find(name)
    kwargs = {key: tuple(value) if isinstance(value, list) else value for key, value in (env_kwargs or {}).items()}
    try:
        check_kwargs(name, registration, kwargs)
        with quiet(registration):
            envs = [_single(registration, kwargs, render_mode) for _ in range(num_envs)]
    except (gymnasium.error.Error, ImportError) as error:  # ImportError: its text, where gymnasium wrote it, says what to install
        raise UserError(f"environment {name!r} cannot be made: {error}") from error
    except (TypeError, ValueError, AssertionError, OSError) as error:  # OSError: a file named in an argument
        given = f" with env_kwargs {', '.join(sorted(kwargs))}" if kwargs else ""
        raise UserError(f"environment {name!r} cannot be made{given}: {error}") from error
    return single(name, envs, seed)


def _single(registration: Registration, kwargs: dict[str, Any], render_mode: str | None) -> gymnasium.Env[Any, Any]:
    """Without the passive checker: it only warns and costs time; what it looks for is refused at our own boundary."""
    if render_mode is None:  # not even mentioned: a plain gymnasium.Env need not take it
        return gymnasium.make(registration, disable_env_checker=True, **kwargs)
    env = gymnasium.make(registration, disable_env_checker=True, render_mode=render_mode, **kwargs)
    if not CAMERA & kwargs.keys():
        _follow(env)
    return env


def _follow(env: gymnasium.Env[Any, Any]) -> None:
    """Film with the model's camera `track` where it has one: Gymnasium's default stands still, and a runner leaves the picture.

    The floor is drawn far enough for it, with tiles as large as before; how a plane collides does not depend on its size.
    """
    renderer = getattr(env.unwrapped, "mujoco_renderer", None)
    if renderer is None or renderer.camera_id != -1:
        return
    mujoco = import_module("mujoco")
    model = renderer.model
    renderer.camera_id = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track")  # -1 where there is none
    floors = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    if renderer.camera_id >= 0:
        model.geom_size[floors, :2] *= FARTHER
        model.mat_texrepeat[model.geom_matid[floors & (model.geom_matid >= 0)]] *= FARTHER


@contextmanager
def quiet(registration: Registration) -> Iterator[None]:
    """While one of Gymnasium's MuJoCo models is compiled, keep back what MuJoCo says of half_cheetah.xml's `settotalmass`.

    It would go to the terminal and to MUJOCO_LOG.TXT in the working directory at each load; other warnings go to the log `mujoco`.
    MuJoCo does not tell which handler it had, so that it has none afterwards; where dm_control may have set its own, nothing is done.
    """
    entry = registration.entry_point
    if not isinstance(entry, str) or not entry.startswith("gymnasium.envs.mujoco") or "dm_control" in sys.modules:
        yield
        return
    mujoco = import_module("mujoco")
    mujoco.set_mju_user_warning(_heard)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)


def _heard(message: str) -> None:
    if "settotalmass" not in message:
        logging.getLogger("mujoco").warning(message)


def names() -> list[str]:
    """What `make` knows, newest versions only; dm_control's tasks are among them once they were asked for."""
    newest: dict[str, Registration] = {}
    for entry in gymnasium.registry.values():
        family = f"{entry.namespace}/{entry.name}"
        if family not in newest or (entry.version or 0) > (newest[family].version or 0):
            newest[family] = entry
    return sorted({*BENCHMARKS, *(e.id for e in newest.values() if not e.id.startswith(("mbkit/", "GymV2", "phys2d/", "tabular/")))})


def available() -> list[tuple[str, str]]:
    """The names that can be made here, each with what it is: nothing of images or of packages that are not installed."""
    tasks = import_module("mbkit.envs.benchmarks").TASKS
    rows = [(name, f"PETS benchmark: {what}, {tasks[name].horizon} steps") for name, what in BENCHMARKS.items()]
    for name in set(names()) - BENCHMARKS.keys():
        entry = gymnasium.registry[name]
        if IMAGES & {entry.name, entry.namespace}:
            continue
        try:
            creator = _creator(entry)
        except (AttributeError, ImportError, RuntimeError, gymnasium.error.Error):  # what broken and absent packages raise on import
            continue
        module = getattr(creator, "__module__", "")
        rows.append((name, FAMILIES.get(module.rpartition(".")[0]) or module.partition(".")[0]))
    return sorted(rows)


def _creator(registration: Registration) -> Callable[..., Any] | None:
    entry = registration.entry_point
    return load_env_creator(entry) if isinstance(entry, str) else entry


def _find(name: str) -> Registration:
    """Gymnasium's entry for the name, importing whatever registers it; UserError with the nearest name where there is none."""
    module, _, key = name.rpartition(":")
    if key in BENCHMARKS:
        key = f"mbkit/{key}-v0"
    if key.startswith("mbkit/"):
        import_module("mbkit.envs.benchmarks")
    if key.startswith("dm_control/"):
        _register_dm_control(name)
    if module:
        try:
            import_module(module)
        except ImportError as error:
            raise UserError(f"environment {name!r}: module {module!r} cannot be imported: {error}") from error
    if key not in gymnasium.registry:
        family = name.split("/")[0] + "/"
        known = [key for key in gymnasium.registry if key.startswith(family)] if "/" in name else []
        raise UserError(f"unknown environment {name!r}; {nearest(key, known or names())}")
    return gymnasium.registry[key]


def _register_dm_control(name: str) -> None:
    try:
        import_module("dm_control.suite")
        shimmy = import_module("shimmy")
    except (ImportError, AttributeError) as error:  # AttributeError: dm_control met a MuJoCo newer than it knows
        raise UserError(f'environment {name!r} needs dm_control: pip install "mbkit[dmc]" ({error})') from error
    gymnasium.register_envs(shimmy)


def _import_mujoco() -> None:
    """Its import already loads the graphics that MUJOCO_GL asks for; UserError where the user asked for what is not there."""
    try:
        import_module("mujoco")
    except (AttributeError, ImportError, RuntimeError) as error:
        raise UserError(f"MuJoCo cannot be imported with MUJOCO_GL={os.environ.get('MUJOCO_GL')!r}: {error}") from error


def _draw_without_display() -> None:
    """MuJoCo's default is a window; where there is no display but EGL, that draws without one.

    Gymnasium reads the variable when it first draws, dm_control when it is imported. Where there is no EGL it stays unset: set, it
    would fail every later import of MuJoCo, also in processes that never draw.
    """
    display = any(os.environ.get(key) for key in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"))
    if display or not sys.platform.startswith("linux"):
        return
    try:
        import_module("mujoco.egl")
    except (AttributeError, ImportError, RuntimeError):
        return  # rendering itself will say what is missing
    os.environ["MUJOCO_GL"] = "egl"


def check_kwargs(name: str, registration: Registration, kwargs: Mapping[str, Any]) -> None:
    """UserError naming the argument that the task does not have, or whose value is not of its default's type."""
    creator = _creator(registration)
    parameters, closed = _parameters(creator)
    for key, value in kwargs.items():
        if key == "max_episode_steps":
            if type(value) is not int or value < 1:
                raise UserError(f"env_kwargs.max_episode_steps of {name}: expected an integer of at least 1, got {value!r}")
        elif closed and creator and key not in parameters:
            own = inspect.signature(creator).parameters  # what only a base demands (MujocoEnv: model_path) the task itself gives it
            free = {k for k, p in parameters.items() if k in own or p.default is not p.empty}
            raise UserError(f"environment {name!r} has no argument {key!r}; {nearest(key, {*free, 'max_episode_steps'})}")
        elif key in parameters:
            _check_type(f"env_kwargs.{key} of {name}", value, parameters[key].default)


def _parameters(creator: Callable[..., Any] | None) -> tuple[dict[str, inspect.Parameter], bool]:
    """What the constructor takes, by way of `**kwargs` also its bases', and whether that is all it takes."""
    found: dict[str, inspect.Parameter] = {}
    makers = [vars(c)["__init__"] for c in creator.__mro__ if "__init__" in vars(c)] if isinstance(creator, type) else [creator]
    for maker in filter(None, makers):
        own = inspect.signature(maker).parameters
        named = {k: p for k, p in own.items() if k not in ("self", "render_mode") and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        found = {**named, **found}
        if not any(p.kind is p.VAR_KEYWORD for p in own.values()):
            return found, True
    return found, False


def _check_type(what: str, value: Any, default: Any) -> None:
    kind = {bool: bool, int: Integral, float: Real, str: str, tuple: tuple, dict: Mapping}.get(type(default))
    if kind is None:
        return
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{what}: expected a value like {default!r}, got {value!r}")
    if isinstance(value, tuple):
        if len(value) != len(default):
            raise UserError(f"{what}: expected {len(default)} numbers like {default!r}, got {value!r}")
        for mine, theirs in zip(value, default, strict=True):
            _check_type(what, mine, float(theirs) if isinstance(theirs, int) else theirs)
