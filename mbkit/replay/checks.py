"""A saved replay buffer is one that could have been saved: no row of it points outside."""

import torch
from torch import Tensor

from mbkit.errors import UserError
from mbkit.replay.in_place import NONE
from mbkit.types import EnvSpec, State

INTEGERS = {"link": (), "origin": (2,), "open": (), "total": None}  # trailing dimensions; None: one number


def check_rows(state: State, capacity: int, width: int) -> None:
    """UserError unless the saved rows, links and counters fit one another and a buffer of this capacity and row width."""
    data, total = state["data"], state["total"]
    size = min(int(total), capacity)
    if not (isinstance(data, Tensor) and data.dtype == torch.float32 and tuple(data.shape) == (size, width)):
        raise UserError(f"the saved replay buffer has rows of shape {_shape(data)}; expected {(size, width)}")
    for name, trailing in INTEGERS.items():
        value, rows = state[name], len(state["open"]) if name == "open" else size
        shape = () if trailing is None else (rows, *trailing)
        if not (isinstance(value, Tensor) and value.dtype == torch.int64 and tuple(value.shape) == shape):
            raise UserError(f"the saved replay buffer has {name} of shape {_shape(value)}; expected whole numbers of shape {shape}")
    within = {"link": (0, capacity), "open": (NONE, int(total) - 1)}
    for name, (low, high) in within.items():
        if len(state[name]) and not low <= int(state[name].min()) <= int(state[name].max()) <= high:
            raise UserError(f"the saved replay buffer has {name} outside {low} to {high}")


def check_steps(state: State, num_envs: int, spec: EnvSpec) -> None:
    """UserError unless the saved steps since the last update are of this many environments and these dimensions."""
    rows, valid, counts = state["rows"], state["valid"], state["counts"]
    action = spec.action_shape
    trailing = [(spec.obs_dim,), action, (), (spec.obs_dim,), (), ()]
    steps = len(rows[0]) if rows else 0
    shapes = [tuple(x.shape) for x in rows], None if valid is None else tuple(valid.shape), tuple(counts.shape)
    expected = [(steps, num_envs, *t) for t in trailing] if steps else [], (steps, num_envs) if steps else None, (num_envs,)
    booleans = [*rows[4:], *([] if valid is None else [valid])]
    if shapes != expected or any(x.dtype != torch.bool for x in booleans):
        raise UserError(f"the saved steps have the shapes {shapes}; expected {expected}")
    if counts.dtype != torch.int64 or not torch.equal(counts, counts.new_zeros(num_envs) if valid is None else valid.sum(0)):
        raise UserError(f"the saved steps count {counts.tolist()} of each environment; expected as many as there are")


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else repr(value)
