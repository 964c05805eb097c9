"""MuJoCo models and data, whose arrays lie on memory of the simulator's.

Models are restored field by field, since tasks change masses, sizes and friction. Data are restored as a whole, contacts and constraint
forces included: tasks read them, and Ant reads xpos and Humanoid xipos, both one substep older than qpos, before they step.
"""

import hashlib
import re
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mbkit.envs.snapshot.containers import Resolve
from mbkit.envs.snapshot.walk import Node, Unsavable, Walk, to_bytes, to_text, unsavable

LARGE = 1 << 16  # bytes of a model's field, such as a mesh, from which on only its hash is stored: it cannot be restored, but compared
PIXELS = "tex_data"  # serves rendering only
FLAGS = re.compile("flg_.*|.*_awake|nidof|solver_niter|solver_nnz")  # fields of data that MuJoCo's own serialisation leaves out
VIEWS = re.compile("_Mj(Data|Model)(.+)Views")  # types of data.body("torso") and the like


def is_physics(kind: type) -> bool:
    """Whether a type is MjModel, MjData, or one of their named views; by name, since a wrong MUJOCO_GL makes the import of MuJoCo fail."""
    return kind.__module__ == "mujoco._structs" and (kind.__name__ in ("MjModel", "MjData") or VIEWS.fullmatch(kind.__name__) is not None)


def take(value: Any, walk: Walk) -> Node | None:
    """The node of a model, of data, or of a named view; None to come back later."""
    name = type(value).__name__
    if name not in ("MjModel", "MjData"):
        return _take_view(value, walk)
    fields = _fields(value)
    walk.physics[id(value)] = value, fields
    return _take_model(value, fields) if name == "MjModel" else _take_data(value, walk)


def _take_view(value: Any, walk: Walk) -> Node | None:
    part, index = VIEWS.fullmatch(type(value).__name__)[2].lower(), value.id  # type: ignore[index]
    for owner, _ in walk.physics.values():
        if hasattr(owner, part) and 0 <= index < _count(owner, part) and getattr(owner, part)(index) is value:
            return {"head": ["named view", part, index], "owner": walk.refer(owner)}
    return unsavable(f"is of type {type(value).__name__}") if walk.complete else None


def _count(owner: Any, part: str) -> int:
    model = owner.model if type(owner).__name__ == "MjData" else owner
    return int(getattr(model, {"actuator": "nu", "body": "nbody", "joint": "njnt", "geom": "ngeom", "site": "nsite"}.get(part, ""), 0))


def make_view(node: Node, resolve: Resolve) -> Any:
    """A named view."""
    owner, (_, part, index) = resolve(node["owner"]), node["head"]
    if not 0 <= index < _count(owner, part):
        raise ValueError(f"{part} {index} of a model")
    return getattr(owner, part)(index)


def field_of(value: NDArray[Any], walk: Walk) -> tuple[Any, str]:
    """The model or data on whose memory an array lies, and the name of the field; None and "" if it is not known."""
    low, high = np.lib.array_utils.byte_bounds(value)
    for owner, fields in walk.physics.values():
        for name, field in fields.items():
            start, stop = np.lib.array_utils.byte_bounds(field)
            if start <= low and high <= stop and value.size:
                return owner, name
    return None, ""


def make_field(node: Node, resolve: Resolve) -> NDArray[Any]:
    """An array of a model or data."""
    owner, name = resolve(node["owner"]), node["head"][1]
    return _fields(owner)[name]


def _fields(owner: Any) -> dict[str, NDArray[Any]]:
    """The arrays of a model, or those of data whose size depends on the model only: others move in memory with every step."""
    new = owner if type(owner).__name__ == "MjModel" else type(owner)(owner.model)
    fields = {name: getattr(new, name) for name in dir(new) if not name.startswith("_")}
    return {name: getattr(owner, name) for name, field in fields.items() if isinstance(field, np.ndarray) and field.size}


def _take_model(value: Any, fields: dict[str, NDArray[Any]]) -> Node:
    shapes = {name: (field.shape, field.dtype.str) for name, field in fields.items()}
    identity = hashlib.sha256(repr((shapes, value.names, value.paths)).encode()).hexdigest()[:16]
    stored = {name: _stored(field) for name, field in fields.items() if name != PIXELS}
    return {"head": ["MjModel", identity], "fields": stored, "options": _numbers(value.opt), "statistics": _numbers(value.stat)}


def _stored(field: NDArray[Any]) -> str:
    return to_text(field.tobytes()) if field.nbytes < LARGE else f"sha256:{hashlib.sha256(field.tobytes()).hexdigest()}"


def _numbers(part: Any) -> dict[str, Any]:
    """The numbers and arrays of a model's options or statistics."""
    values = {name: getattr(part, name) for name in dir(part) if not name.startswith("_")}
    return {name: each.tolist() if isinstance(each, np.ndarray) else each for name, each in values.items() if not callable(each)}


def fill_model(value: Any, node: Node, resolve: Resolve) -> None:
    """Write the fields of a model."""
    fields = _fields(value)
    for name, text in node["fields"].items():
        if text.startswith("sha256:"):
            if _stored(fields[name]) != text:
                raise Unsavable(f"field {name} of an MjModel, which is too large to be stored")
        else:
            fields[name][...] = np.frombuffer(to_bytes(text), fields[name].dtype).reshape(fields[name].shape)
    for part, numbers in ((value.opt, node["options"]), (value.stat, node["statistics"])):
        for name, number in numbers.items():
            if isinstance(number, list):
                getattr(part, name)[...] = number
            elif name in dir(part) and not name.startswith("_"):
                setattr(part, name, number)


def _take_data(value: Any, walk: Walk) -> Node:
    for timer in value.timer:  # wall-clock times of MuJoCo's own, which differ between equal runs
        timer.duration = 0.0
    model, whole = value.model.__getstate__(), value.__getstate__()
    if whole[1 : 1 + len(model)] != model or not _is_whole(whole[1 + len(model) :]):
        return unsavable("is MuJoCo data of a version whose serialisation is not known")
    flags = {name: getattr(value, name) for name in dir(value) if FLAGS.fullmatch(name)}
    flags = {name: flag.tolist() if isinstance(flag, np.ndarray) else flag for name, flag in flags.items()}
    state = to_text(zlib.compress(whole[1 + len(model) :], 1))
    return {"head": ["MjData"], "model": walk.refer(value.model), "state": state, "flags": flags}


def _is_whole(state: bytes) -> bool:
    """Whether serialised data consist of parts each of which follows its length."""
    at = 0
    while at + 8 <= len(state):
        at += 8 + max(0, int(struct.unpack_from("<q", state, at)[0]))
    return at == len(state)


def make_data(node: Node, resolve: Resolve) -> Any:
    """New data of a model."""
    import mujoco

    return mujoco.MjData(resolve(node["model"]))


def fill_data(value: Any, node: Node, resolve: Resolve) -> None:
    """Overwrite data, whose arrays stay where they are in memory."""
    import mujoco

    model = value.model
    memory = int(value.narena)
    state = zlib.decompressobj().decompress(to_bytes(node["state"]), memory)
    if len(state) >= memory or not _is_whole(state):  # MuJoCo's reader compares lengths, but trusts that contacts fit into its memory
        raise ValueError("MuJoCo data of a length that cannot be")
    copy = mujoco.MjData.__new__(mujoco.MjData)
    try:
        copy.__setstate__(value.__getstate__()[:1] + model.__getstate__() + state)
    except ValueError as error:
        raise Unsavable("MuJoCo data of another version of MuJoCo") from error
    mujoco.mj_copyData(value, model, copy)
    for name, flag in node["flags"].items():
        if FLAGS.fullmatch(name):
            if isinstance(flag, list):
                getattr(value, name)[...] = flag
            else:
                setattr(value, name, flag)
