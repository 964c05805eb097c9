"""The state that a task's next step depends on, as text that `torch.load(weights_only=True)` accepts.

`capture` walks over everything that the task holds: attributes, containers, arrays, generators, MuJoCo's memory, closures, attributes of
the user's classes, and the global variables that their code uses. What an object is decides how it is saved, never the name of the
attribute, and two references to one object lead to one object again. What cannot be saved, and may affect the next step, raises Unsavable
with its name; what serves rendering or logging only is left out.

`restore` writes the state into a newly made task, and compares the result with the state: what is not the same again, such as the order of
a set, raises Unsavable. A state runs no code: classes and functions must be found in the new task. So must the code of its methods, since
with other code the run is another one.
"""

import gc
import json
import zlib
from typing import Any

from mbkit.envs.snapshot.kinds import KINDS, take
from mbkit.envs.snapshot.rebuild import Rebuild
from mbkit.envs.snapshot.walk import Unsavable, Walk, where
from mbkit.errors import UserError
from mbkit.types import State

__all__ = ["Unsavable", "capture", "restore"]

FORMAT = "mbkit task 1"
DAMAGED = (
    ArithmeticError,
    AttributeError,
    BufferError,
    LookupError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    zlib.error,
)


def capture(source: Any) -> State:
    """The state of a source of rows, for `restore`; raises Unsavable."""
    walk = Walk(take).run(source)
    for n, node in enumerate(walk.nodes):
        if node["head"][0] == "unsavable":
            raise Unsavable(f"{where(walk.nodes, n)} {node['head'][1]}")
    return {"format": FORMAT, "nodes": json.dumps(walk.nodes)}


def restore(source: Any, state: State) -> None:
    """Write a captured state into a newly made `source`.

    Raises:
        Unsavable: something cannot be restored exactly; the message names it.
        UserError: the state is that of another task, or is damaged.
    """
    if state.get("format") != FORMAT or not isinstance(state.get("nodes"), str):
        raise UserError(f"environment state does not fit: expected {FORMAT!r}, got {state.get('format')!r}")
    try:
        nodes = json.loads(state["nodes"])
        if not all(node["head"][0] in KINDS for node in nodes):
            raise ValueError("a node of an unknown kind")
        Rebuild(nodes, source).run()
    except DAMAGED as error:
        raise UserError(f"environment state is damaged: {type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
    if '"weak reference"' in state["nodes"]:
        gc.collect()  # what the new task needs no more may still hold what a weak reference leads to
