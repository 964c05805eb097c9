"""NumPy arrays and torch tensors: memory, and views of it that stay views of the same memory."""

import ast
import math
from array import array
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mbkit.envs.snapshot import physics
from mbkit.envs.snapshot.containers import Resolve
from mbkit.envs.snapshot.walk import Node, Walk, to_bytes, to_text, unsavable

NUMBERS = "?biufcmMSUV"  # kinds of NumPy types whose elements are plain bytes


def take_array(value: NDArray[Any], walk: Walk) -> Node | None:
    """The node of an array: its own memory, or a view of an array, a tensor, bytes or MuJoCo's memory; None to come back later."""
    if value.dtype.hasobject:
        return _take_objects(value, walk)
    root: Any = value
    while type(root.base) is np.ndarray:
        root = root.base
    if root.base is None:
        if root is not value:
            return _view(value, root, _start(root), walk)
        block = _block(value)
        if block is None:
            return unsavable("is an array with gaps in its memory")
        return {"head": ["array", *_layout(value), value.flags.writeable], "bytes": to_text(block.tobytes())}
    exporter: Any = root.base.obj if type(root.base) is memoryview else root.base
    if type(exporter) in (bytes, bytearray, array):
        return _view(value, exporter, np.frombuffer(exporter, np.uint8).ctypes.data, walk)
    if isinstance(exporter, torch.Tensor):
        storage = exporter.untyped_storage()
        return _view(value, storage, storage.data_ptr(), walk)
    return _take_foreign(value, exporter, walk)


def _take_foreign(value: NDArray[Any], exporter: Any, walk: Walk) -> Node | None:
    """An array on memory of another library: a field of MuJoCo's, or one that is restored only if the new task has it too."""
    owner, name = physics.field_of(value, walk)
    if owner is not None:
        field = getattr(owner, name)
        if field is value:
            return {"head": ["field", name], "owner": walk.refer(owner)}
        return _view(value, field, _start(field), walk)
    if not walk.complete:
        return None
    head = ["foreign array", type(exporter).__name__, *_layout(value), value.flags.writeable]
    return {"head": head, "bytes": to_text(value.tobytes())}


def _take_objects(value: NDArray[Any], walk: Walk) -> Node:
    if value.dtype != object or value.base is not None or not value.flags.c_contiguous:
        return unsavable(f"is an array of {value.dtype}")
    return {"head": ["objects", list(value.shape)], "items": [walk.refer(item) for item in value.reshape(-1).tolist()]}


def _view(value: NDArray[Any], base: Any, start: int, walk: Walk) -> Node:
    layout = [type_text(value.dtype), list(value.shape), list(value.strides)]
    return {"head": ["view", *layout, value.ctypes.data - start, value.flags.writeable], "base": walk.refer(base)}


def _layout(value: NDArray[Any]) -> tuple[str, list[int], list[int]]:
    """Type, shape and strides; an axis of length 1 may have any stride."""
    strides = [step if length > 1 else 0 for step, length in zip(value.strides, value.shape, strict=True)]
    return type_text(value.dtype), list(value.shape), strides


def _start(value: NDArray[Any]) -> int:
    return int(np.lib.array_utils.byte_bounds(value)[0])


def _block(value: NDArray[Any]) -> NDArray[np.uint8] | None:
    """The memory of an array as bytes, in the order in which it lies there; None if the array leaves gaps in it."""
    axes = sorted(range(value.ndim), key=lambda axis: -value.strides[axis])
    dense = value.transpose(axes)
    return dense.reshape(-1).view(np.uint8) if dense.flags.c_contiguous else None


def type_text(dtype: np.dtype[Any]) -> str:
    """A NumPy type as text for `type_of`."""
    return repr(np.lib.format.dtype_to_descr(dtype))


def type_of(text: str) -> np.dtype[Any]:
    """The NumPy type of a text; ValueError if its elements are not plain bytes."""
    dtype: np.dtype[Any] = np.lib.format.descr_to_dtype(ast.literal_eval(text))
    if dtype.hasobject or dtype.kind not in NUMBERS:
        raise ValueError(f"numbers of type {text}")
    return dtype


def make_array(node: Node, resolve: Resolve) -> NDArray[Any]:
    """A new array with its own memory."""
    new = _stored(node).copy(order="K")
    new.flags.writeable = node["head"][4]
    return new


def fill_array(value: NDArray[Any], node: Node, resolve: Resolve) -> None:
    """Write the numbers of an array whose layout is that of the node."""
    writeable = value.flags.writeable
    value.flags.writeable = True
    value[...] = _stored(node)
    value.flags.writeable = writeable


def fill_foreign(value: NDArray[Any], node: Node, resolve: Resolve) -> None:
    """Write the numbers of an array on foreign memory, if it is writeable."""
    if value.flags.writeable:
        value[...] = np.frombuffer(to_bytes(node["bytes"]), type_of(node["head"][2])).reshape(node["head"][3])


def _stored(node: Node) -> NDArray[Any]:
    """The array of a node, read-only."""
    _, text, shape, strides, _ = node["head"]
    return np.ndarray(shape, type_of(text), to_bytes(node["bytes"]), strides=strides)


def make_objects(node: Node, resolve: Resolve) -> NDArray[Any]:
    """A new array of objects."""
    if math.prod(node["head"][1]) != len(node["items"]):
        raise ValueError("an array of objects of another size")
    return np.empty(node["head"][1], object)


def fill_objects(value: NDArray[Any], node: Node, resolve: Resolve) -> None:
    """Write the objects."""
    flat = value.reshape(-1)
    for i, item in enumerate(node["items"]):
        flat[i] = resolve(item)


def make_view(node: Node, resolve: Resolve) -> NDArray[Any]:
    """An array on the memory of another object."""
    _, text, shape, strides, offset, writeable = node["head"]
    base = resolve(node["base"])
    if isinstance(base, torch.UntypedStorage):
        memory: Any = _bytes_of(base).numpy()
    else:
        memory = _block(base) if isinstance(base, np.ndarray) else base
    new: NDArray[Any] = np.ndarray(shape, type_of(text), memory, offset, strides)
    new.flags.writeable = writeable
    return new


def take_scalar(value: np.generic, walk: Walk) -> Node:
    """The node of a NumPy number."""
    if value.dtype.hasobject:
        return unsavable(f"is a number of {value.dtype}")
    return {"head": ["scalar", type_text(value.dtype)], "bytes": to_text(np.asarray(value).tobytes())}


def make_scalar(node: Node, resolve: Resolve) -> Any:
    """A NumPy number."""
    return np.ndarray((), type_of(node["head"][1]), to_bytes(node["bytes"])).copy()[()]


def take_tensor(value: torch.Tensor, walk: Walk) -> Node:
    """The node of a tensor: a view of its storage."""
    if value.layout is not torch.strided or value.is_quantized or value.is_conj() or value.is_neg() or vars(value):
        return unsavable("is a tensor of a kind that cannot be saved")
    if value.grad_fn is not None:
        return unsavable("is a tensor with a gradient's graph")
    layout = [list(value.size()), list(value.stride()), value.storage_offset(), value.requires_grad]
    head = ["tensor", type(value).__name__, str(value.dtype).removeprefix("torch."), *layout]
    return {"head": head, "storage": walk.refer(value.untyped_storage()), "grad": walk.refer(value.grad)}


def make_tensor(node: Node, resolve: Resolve) -> torch.Tensor:
    """A tensor on its storage."""
    _, name, dtype, size, stride, offset, gradient = node["head"]
    storage = resolve(node["storage"])
    new = torch.empty(0, dtype=tensor_type(dtype), device=storage.device).set_(storage, offset, size, stride)
    return torch.nn.Parameter(new, gradient) if name == "Parameter" else new.requires_grad_(gradient)


def fill_tensor(value: torch.Tensor, node: Node, resolve: Resolve) -> None:
    """The gradient of a tensor; its numbers lie in its storage."""
    value.grad = resolve(node["grad"])


def tensor_type(name: str) -> torch.dtype:
    """A torch type by name."""
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"a tensor of type {name}")
    return dtype


def take_storage(value: torch.UntypedStorage, walk: Walk) -> Node:
    """The node of the memory of tensors."""
    return {"head": ["storage", str(value.device), value.nbytes()], "bytes": to_text(_bytes_of(value).cpu().numpy().tobytes())}


def make_storage(node: Node, resolve: Resolve) -> torch.UntypedStorage:
    """New memory for tensors."""
    if node["head"][2] != len(to_bytes(node["bytes"])):
        raise ValueError("memory of another size")
    return torch.UntypedStorage(node["head"][2], device=node["head"][1])  # type: ignore[no-untyped-call]


def fill_storage(value: torch.UntypedStorage, node: Node, resolve: Resolve) -> None:
    """Write the memory of tensors."""
    _bytes_of(value).copy_(torch.frombuffer(bytearray(to_bytes(node["bytes"])), dtype=torch.uint8) if value.nbytes() else torch.empty(0))


def _bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)  # type: ignore[call-overload,no-any-return]
