"""Random generators of NumPy, torch and Python."""

import json
import random
from typing import Any

import numpy as np
import torch

from mbkit.envs.snapshot.containers import Resolve
from mbkit.envs.snapshot.walk import Node, Walk, to_bytes, to_text

BIT_GENERATORS: dict[str, Any] = {
    kind.__name__: kind for kind in (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64)
}


def take_generator(value: np.random.Generator, walk: Walk) -> Node:
    """The node of a generator, which reads its numbers from a bit generator."""
    return {"head": ["generator"], "bits": walk.refer(value.bit_generator)}


def make_generator(node: Node, resolve: Resolve) -> np.random.Generator:
    """A generator on its bit generator."""
    return np.random.Generator(resolve(node["bits"]))


def take_bits(value: np.random.BitGenerator, walk: Walk) -> Node:
    """The node of a bit generator, with the seed from which it spawns others."""
    state = json.loads(json.dumps(value.state, default=lambda array: array.tolist()))
    return {"head": ["bits", type(value).__name__], "state": state, "seed": walk.refer(value.seed_seq)}


def make_bits(node: Node, resolve: Resolve) -> Any:
    """A new bit generator."""
    return BIT_GENERATORS[node["head"][1]](0)


def fill_bits(value: Any, node: Node, resolve: Resolve) -> None:
    """Set a bit generator's state and seed."""
    value.__setstate__((node["state"], resolve(node["seed"])))


def take_seed(value: np.random.SeedSequence, walk: Walk) -> Node:
    """The node of a seed, which counts what was spawned from it."""
    spawn = [list(value.spawn_key), value.pool_size, value.n_children_spawned]
    return {"head": ["seed"], "entropy": walk.refer(value.entropy), "spawn": spawn}


def make_seed(node: Node, resolve: Resolve) -> np.random.SeedSequence:
    """A seed."""
    spawn_key, pool_size, children = node["spawn"]
    return np.random.SeedSequence(resolve(node["entropy"]), spawn_key=spawn_key, pool_size=pool_size, n_children_spawned=children)


def take_legacy(value: np.random.RandomState, walk: Walk) -> Node:
    """The node of a RandomState, which stores every other normal number."""
    state: Any = value.get_state(legacy=False)
    return {"head": ["random state"], "bits": walk.refer(value._bit_generator), "gauss": [state["has_gauss"], state["gauss"]]}


def make_legacy(node: Node, resolve: Resolve) -> np.random.RandomState:
    """A RandomState on its bit generator."""
    return np.random.RandomState(resolve(node["bits"]))


def fill_legacy(value: np.random.RandomState, node: Node, resolve: Resolve) -> None:
    """Set the stored normal number; the bit generator is set already."""
    state: Any = value.get_state(legacy=False)
    state["has_gauss"], state["gauss"] = node["gauss"]
    value.set_state(state)


def take_python(value: random.Random, walk: Walk) -> Node:
    """The node of a generator of Python's."""
    return {"head": ["Random"], "state": json.loads(json.dumps(value.getstate()))}


def make_python(node: Node, resolve: Resolve) -> random.Random:
    """A new generator of Python's."""
    return random.Random(0)


def fill_python(value: random.Random, node: Node, resolve: Resolve) -> None:
    """Set the state of a generator of Python's."""
    version, internal, gauss = node["state"]
    value.setstate((version, tuple(internal), gauss))


def take_torch(value: torch.Generator, walk: Walk) -> Node:
    """The node of a generator of torch's."""
    return {"head": ["torch generator", str(value.device)], "state": to_text(value.get_state().numpy().tobytes())}


def make_torch(node: Node, resolve: Resolve) -> torch.Generator:
    """A new generator of torch's."""
    return torch.Generator(node["head"][1])


def fill_torch(value: torch.Generator, node: Node, resolve: Resolve) -> None:
    """Set the state of a generator of torch's."""
    value.set_state(torch.frombuffer(bytearray(to_bytes(node["state"])), dtype=torch.uint8))
