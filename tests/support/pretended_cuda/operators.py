"""What the device must know of an operator: what it writes, whether it waits for the host, what it may take from there."""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

A = torch.ops.aten
COPIES = {A._to_copy.default, A.copy_.default, A._foreach_copy_.default}
INDEXING = {A.index.Tensor, A.index_put_.default, A._index_put_impl_.default, A.index_put.default, A._unsafe_index.Tensor}
WAITING = {A._local_scalar_dense.default, A.nonzero.default, A.is_nonzero.default, A.equal.default, A.masked_select.default}
WAITING |= {A._unique2.default, A.unique_dim.default, A.unique_consecutive.default, A.repeat_interleave.Tensor, A.multinomial.default}
EMPTY = {A.empty.memory_format, A.empty_like.default, A.new_empty.default, A.empty_strided.default, A.new_empty_strided.default}
SCALARS = {"where", "fill_", "fill", "masked_fill", "masked_fill_", "index_fill", "index_fill_", "scalar_tensor"}  # take a host's number


class Operator(NamedTuple):
    """Facts of one overload of an operator."""

    name: str
    written: tuple[tuple[int, str], ...]  # positions and names of the arguments that it changes
    in_place: bool  # it returns what it changes
    aliases: bool  # it returns views of its arguments
    random: bool
    takes_numbers: bool  # a 0-d tensor of the host may stand for a number
    reads_shape_only: bool  # new_zeros, zeros_like, ...


@cache
def facts(func: Any) -> Operator:
    """The facts of an overload."""
    name, schema = str(func), func._schema
    written = tuple((n, a.name) for n, a in enumerate(schema.arguments) if a.alias_info is not None and a.alias_info.is_write)
    aliasing = [r.alias_info for r in schema.returns if r.alias_info is not None]
    pointwise = torch.Tag.pointwise in func.tags or "foreach" in name or "lerp" in name or name.split(".")[1] in SCALARS
    return Operator(
        name,
        written,
        in_place=bool(aliasing) and all(info.is_write for info in aliasing) and torch.Tag.inplace_view not in func.tags,
        aliases=bool(aliasing),
        random=torch.Tag.nondeterministic_seeded in func.tags or "rand" in name,
        takes_numbers=pointwise,
        reads_shape_only="_like." in name or ".new_" in name,
    )


def tensors_in(tree: Any) -> list[Tensor]:
    """Every tensor in nested lists, tuples and dictionaries."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, (list, tuple)):
        return [leaf for branch in tree for leaf in tensors_in(branch)]
    return [leaf for branch in tree.values() for leaf in tensors_in(branch)] if isinstance(tree, dict) else []


def each(change: Any, tree: Any) -> Any:
    """`change` applied to every leaf of nested lists, tuples and dictionaries."""
    if isinstance(tree, (list, tuple)):
        return type(tree)([each(change, branch) for branch in tree])
    return {key: each(change, branch) for key, branch in tree.items()} if isinstance(tree, dict) else change(tree)


def memory(tensor: Tensor) -> int | None:
    """The address of a tensor's memory; None where it has none."""
    storage = tensor.untyped_storage()
    return storage.data_ptr() if storage.nbytes() else None
