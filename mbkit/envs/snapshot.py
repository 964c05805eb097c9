"""All that an environment's next step depends on, as tensors, numbers and strings that `torch.load(weights_only=True)` takes.

An environment is walked attribute by attribute, wrappers included: numbers, strings, arrays, generators and containers of them are
saved, MuJoCo data through the integration state and its derived arrays. An attribute that is neither data nor known to be for looks
only might matter to the next step, so it raises Unsavable.
"""

import functools
import json
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from mbkit.envs.rows import SingleEnvs, VectorRows
from mbkit.envs.spaces import ObservationMap
from mbkit.errors import UserError
from mbkit.types import State

LOOKS = {"render_mode", "mujoco_renderer", "screen", "clock", "surf", "isopen", "window", "viewer"}
FIXED = {
    "spec",
    "metadata",
    "fullpath",
    "env_fns",
    "_cached_spec",
    "_metadata",
    "_saved_kwargs",
    "_ezpickle_args",
    "_ezpickle_kwargs",
}  # a new environment has them right
WALKED = (gymnasium.Env, VectorEnv, SingleEnvs, VectorRows)
FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
CONSTANT = (*FUNCTIONS, types.ModuleType, type, AutoresetMode, ObservationMap)  # a new environment has these right, too


class Unsavable(Exception):
    """An attribute that cannot be saved as data; the text names it."""


def capture(source: Any) -> State:
    """The state of whatever `restore` is to fill again; raises Unsavable."""
    return _capture(source, "", frozenset())  # type: ignore[no-any-return]


def restore(source: Any, state: State) -> None:
    """Fill a newly made `source` with a captured state, in place; UserError where the state is of something else."""
    _restore(source, state)


def _capture(value: Any, where: str, above: frozenset[int]) -> Any:
    """The saved form of one value; `where` is the path to it, `above` the objects it is inside of."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return {"kind": "array" if isinstance(value, np.ndarray) else "number", "value": _tensor(value, where)}
    if isinstance(value, np.random.Generator):
        return {"kind": "generator", "value": _dump(value)}
    if isinstance(value, spaces.Space):
        return {"kind": "space", "value": [_dump(each.np_random) for each in _spaces(value)]}
    if type(value).__name__ == "MjData":  # by name: a wrong MUJOCO_GL makes the import fail
        return {"kind": "mjdata", "value": _capture_physics(value)}
    if isinstance(value, CONSTANT) or type(value).__name__ == "MjModel":
        return {"kind": "constant", "value": None}
    if isinstance(value, list | tuple | set | deque):
        return {"kind": type(value).__name__, "value": [_capture(each, f"{where}[{i}]", above) for i, each in enumerate(value)]}
    if isinstance(value, dict):
        pairs = [(_capture(k, where, above), _capture(v, f"{where}[{k!r}]", above)) for k, v in value.items()]
        return {"kind": "dict", "value": pairs}
    if isinstance(value, WALKED) and id(value) not in above:
        inside = {name: each for name, each in vars(value).items() if name not in LOOKS | FIXED}
        above = above | {id(value)}
        return {"kind": type(value).__name__, "value": {k: _capture(v, f"{where}.{k}", above) for k, v in inside.items()}}
    raise Unsavable(f"attribute {where[1:]} is of type {type(value).__name__}")


def _restore(old: Any, saved: Any) -> Any:
    """The value `saved` stands for; written into `old` where others may hold on to it."""
    if not isinstance(saved, dict):
        return saved
    kind, value = saved["kind"], saved["value"]
    if kind == "constant":
        return old
    if kind == "array":
        return _restore_array(old, value.numpy())
    if kind == "number":
        return value.numpy()[()]
    if kind == "generator":
        return _load(old, value)
    if kind == "space":
        for each, state in zip(_spaces(old), value, strict=True):
            _load(each.np_random, state)
        return old
    if kind == "mjdata":
        return _restore_physics(old, value)
    if kind == "dict":
        before = old if isinstance(old, dict) else {}
        return {(name := _restore(None, k)): _restore(before.get(name), v) for k, v in value}
    if kind in ("list", "tuple", "set", "deque"):
        return _restore_container(old, kind, value)
    if kind != type(old).__name__:
        raise UserError(f"environment state does not fit: expected a {type(old).__name__}, got a {kind}")
    for name, each in value.items():
        vars(old)[name] = _restore(vars(old).get(name), each)
    return old


def _restore_container(old: Any, kind: str, value: list[Any]) -> Any:
    before = list(old) if isinstance(old, list | tuple | deque) and len(old) == len(value) else [None] * len(value)
    restored = [_restore(b, each) for b, each in zip(before, value, strict=True)]
    if kind == "deque":
        return deque(restored, old.maxlen if isinstance(old, deque) else None)
    return {"list": list, "tuple": tuple, "set": set}[kind](restored)


def _restore_array(old: Any, new: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy; but an array that looks into memory NumPy does not own, say `self.q = self.data.qpos`, goes on looking there."""
    root = old
    while isinstance(root, np.ndarray):
        root = root.base
    if root is None or old.shape != new.shape or not old.flags.writeable:
        return new.copy()
    old[...] = new
    return old  # type: ignore[no-any-return]


def _tensor(value: Any, where: str) -> torch.Tensor:
    try:
        return torch.from_numpy(np.array(value))
    except TypeError as error:
        raise Unsavable(f"attribute {where[1:]} is an array of {value.dtype}") from error


def _spaces(space: spaces.Space[Any]) -> Iterator[spaces.Space[Any]]:
    """The space and those inside of it: each has a generator of its own."""
    yield space
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for part in space.values() if isinstance(space, spaces.Dict) else space:
            yield from _spaces(part)


def _dump(generator: np.random.Generator) -> str:
    return json.dumps(generator.bit_generator.state, default=lambda array: array.tolist())


def _load(generator: Any, text: str) -> np.random.Generator:
    state = json.loads(text)
    if not isinstance(generator, np.random.Generator) or generator.bit_generator.state["bit_generator"] != state["bit_generator"]:
        generator = np.random.Generator(getattr(np.random, state["bit_generator"])())
    own: np.random.Generator = generator
    own.bit_generator.state = state
    return own


def _capture_physics(data: Any) -> State:
    """The integration state, warm start included, and every derived array of fixed size.

    The second is what an environment may read before it steps: Ant takes xpos and Humanoid xipos, both one substep older than qpos.
    """
    import mujoco

    which = mujoco.mjtState.mjSTATE_INTEGRATION
    integration = np.empty(mujoco.mj_stateSize(data.model, which))
    mujoco.mj_getState(data.model, data, integration, which)
    derived = {name: torch.from_numpy(getattr(data, name).copy()) for name in _derived(data.model)}
    return {"integration": torch.from_numpy(integration), "derived": derived}


def _restore_physics(data: Any, saved: State) -> Any:
    import mujoco

    which = mujoco.mjtState.mjSTATE_INTEGRATION
    size = mujoco.mj_stateSize(data.model, which)
    if len(saved["integration"]) != size:
        raise UserError(f"environment state does not fit: expected {size} numbers of MuJoCo state, got {len(saved['integration'])}")
    mujoco.mj_setState(data.model, data, saved["integration"].numpy(), which)
    for name, array in saved["derived"].items():
        getattr(data, name)[:] = array.numpy()
    return data


def _derived(model: Any) -> list[str]:
    """Names of MjData's float arrays whose size the model fixes; those of contacts are empty in new data, and a step makes them anew."""
    import mujoco

    new = mujoco.MjData(model)
    arrays = ((name, getattr(new, name)) for name in dir(new) if not name.startswith("_"))
    return [name for name, a in arrays if isinstance(a, np.ndarray) and a.size and a.dtype == np.float64]
