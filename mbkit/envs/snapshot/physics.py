"""MuJoCo models and data, whose arrays lie on memory of the simulator's.

Models are restored field by field, since tasks change masses, sizes and friction. So are data: Ant reads xpos and Humanoid xipos, both one
substep older than qpos, before they step. Contacts and constraint forces, which lie elsewhere in memory after every step, are restored
where the user's code mentions them: it may read those of the step before.
"""

import copy
import hashlib
import re
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mbkit.envs.snapshot import variables
from mbkit.envs.snapshot.containers import Resolve
from mbkit.envs.snapshot.walk import Node, Unsavable, Walk, to_bytes, to_text, unsavable

LARGE = 1 << 16  # bytes of a model's field, such as a mesh, from which on only its hash is stored: it cannot be restored, but compared
PIXELS = "tex_data"  # serves rendering only
SCALARS = re.compile("time|nidof|flg_.*|n.*_awake")  # numbers of data that are neither sizes nor counts of contacts
CONTACTS = re.compile("contact|ncon|nefc|efc_|island|Constraint|mulJac|[cC]opyData|deepcopy")  # names in code that may read contacts
VIEWS = re.compile("_Mj(Data|Model)(.+)Views")  # types of data.body("torso") and the like


def is_physics(kind: type) -> bool:
    """Whether a type is MjModel, MjData, or one of their named views; by name, since a wrong MUJOCO_GL makes the import of MuJoCo fail."""
    return kind.__module__ == "mujoco._structs" and (kind.__name__ in ("MjModel", "MjData") or VIEWS.fullmatch(kind.__name__) is not None)


def take(value: Any, walk: Walk) -> Node | None:
    """The node of a model, of data, or of a named view; None to come back later."""
    name = type(value).__name__
    if name not in ("MjModel", "MjData"):
        return _take_view(value, walk)
    if id(value) not in walk.physics:
        walk.physics[id(value)] = value, _fields(value)
    fields = walk.physics[id(value)][1]
    if name == "MjModel":
        return _take_model(value, fields)
    return _take_data(value, fields, walk) if walk.complete else None  # then all code is known, too


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
    """The arrays that stay where they are in memory: for those, MuJoCo gives the same object each time."""
    fields = {name: getattr(owner, name) for name in dir(owner) if not name.startswith("_")}
    return {name: each for name, each in fields.items() if isinstance(each, np.ndarray) and each.size and getattr(owner, name) is each}


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


def _take_data(value: Any, fields: dict[str, NDArray[Any]], walk: Walk) -> Node:
    numbers = {name: getattr(value, name) for name in dir(value) if SCALARS.fullmatch(name)}
    warnings = [value.warning.lastinfo.tolist(), value.warning.number.tolist()]
    node: Node = {"head": ["MjData"], "model": walk.refer(value.model), "numbers": numbers, "warnings": warnings}
    node["fields"] = {name: to_text(field.tobytes()) for name, field in fields.items()}
    if any(CONTACTS.search(name) for code, _ in walk.codes.values() for name in variables.names_in(code).attributes):
        whole = copy.copy(value)
        whole.timer.duration[:] = 0
        prefix, state = value.model.__getstate__(), whole.__getstate__()
        if state[1 : 1 + len(prefix)] != prefix or not _is_whole(state[1 + len(prefix) :]):
            return unsavable("is MuJoCo data with contacts, of a version whose serialisation is not known")
        node["contacts"] = to_text(zlib.compress(state[1 + len(prefix) :], 1))
    return node


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
    if "contacts" in node:
        _fill_contacts(value, zlib.decompressobj().decompress(to_bytes(node["contacts"]), int(value.narena)))
    fields = _fields(value)
    for name, text in node["fields"].items():
        fields[name][...] = np.frombuffer(to_bytes(text), fields[name].dtype).reshape(fields[name].shape)
    for name, number in node["numbers"].items():
        if SCALARS.fullmatch(name):
            setattr(value, name, number)
    value.warning.lastinfo[:], value.warning.number[:] = node["warnings"]


def _fill_contacts(value: Any, state: bytes) -> None:
    import mujoco

    if len(state) >= value.narena or not _is_whole(state):  # MuJoCo's reader compares lengths, but trusts that contacts fit into its memory
        raise ValueError("MuJoCo data of a length that cannot be")
    whole = mujoco.MjData.__new__(mujoco.MjData)
    try:
        whole.__setstate__(value.__getstate__()[:1] + value.model.__getstate__() + state)
    except ValueError as error:
        raise Unsavable("MuJoCo data of another version of MuJoCo") from error
    mujoco.mj_copyData(value, value.model, whole)
