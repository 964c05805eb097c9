"""What a user's task may return, and what is said where it returns something else or raises.

The checks here are called only for values whose type is not one of the usual ones, so that a task that behaves costs nothing.
"""

import reprlib
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mbkit.errors import UserError, crashed

CRASHES = (Exception, SystemExit)  # what a task raises
NUMBERS = frozenset({float, int, np.float64, np.float32, np.int64, np.int32})  # usual types of a reward
FLAGS = frozenset({bool, np.bool_})  # usual types of terminated and truncated
STEP = "(observation, reward, terminated, truncated, info)"


FLOAT32_MAX = float(np.finfo(np.float32).max)


class Fault(Exception):
    """One of several environments misbehaved: it returned something unexpected, or raised the fault's `__cause__`.

    Args:
        index: of the environment; None where a vector environment did.
        what: the method or the value at fault.
        text: what was expected and what came; "" where an exception was raised.
    """

    def __init__(self, index: int | None, what: str, text: str = "") -> None:
        super().__init__(what, text)
        self.index, self.what, self.text = index, what, text

    def named(self, name: str, when: str = "") -> UserError:
        """The sentence for the user, to be raised from the fault's cause; `when`: "at step 3"."""
        at = f" {when}" if when and when != f"on {self.what}" else ""
        subject = f"{self.what} of {name}" + f" (environment {self.index})" * (self.index is not None) + at
        return UserError(f"{subject}: {self.text}") if self.text or self.__cause__ is None else crashed(subject, self.__cause__)


def step_parts(result: Any, index: int | None = None) -> tuple[Any, Any, Any, Any, Any]:
    """The five values of a step."""
    if isinstance(result, tuple | list) and len(result) == 5:
        return tuple(result)  # type: ignore[return-value]
    raise Fault(index, "step", f"expected five values {STEP}, got {outline(result)}")


def reset_obs(result: Any, index: int | None = None) -> Any:
    """The observation of a reset."""
    if isinstance(result, tuple | list) and len(result) == 2:
        return result[0]
    raise Fault(index, "reset", f"expected two values (observation, info), got {outline(result)}")


def reward_number(value: Any, index: int) -> float:
    """A reward of an unusual type as a number: an array of one number, a fraction, a tensor."""
    array = as_array(value)
    if array is not None and array.size == 1 and array.dtype.kind in "biuf":
        return float(array.reshape(())[()])
    try:
        if isinstance(value, Real):
            return float(value)
    except OverflowError:
        pass
    raise Fault(index, "reward", f"expected a number, got {outline(value)}")


def flag(value: Any, what: str, index: int) -> bool:
    """`terminated` or `truncated` of an unusual type: 0 or 1, or an array of one of them."""
    array = as_array(value)
    if array is not None and array.size == 1 and array.dtype.kind in "biuf" and array.reshape(())[()] in (0, 1):
        return bool(array.reshape(())[()])
    raise Fault(index, what, f"expected True or False, got {outline(value)}")


def column(values: Any, what: str, count: int, kind: type) -> NDArray[Any]:
    """Rewards (`kind` float) or flags (bool) of `count` environments as a new array [M]."""
    array = as_array(values)
    numeric = array is not None and array.size == count and array.dtype.kind in "biuf"
    if array is None or not numeric or (kind is bool and array.dtype.kind != "b" and not np.isin(array, (0, 1)).all()):
        raise Fault(None, what, f"expected {count} {'numbers' if kind is float else 'times True or False'}, got {outline(values)}")
    return array.reshape(count).astype(kind)


def as_array(value: Any) -> NDArray[Any] | None:
    """The value as an array; None where it is ragged or cannot be one."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def outline(value: Any) -> str:
    """A value, or of several their number and types, on one line."""
    if isinstance(value, tuple | list) and len(value) > 1:
        return f"{len(value)} ({', '.join(type(item).__name__ for item in value[:8])})"
    if isinstance(value, np.ndarray) and value.size > 1:
        return f"{value.dtype} {list(value.shape)}"
    return " ".join(reprlib.repr(value).split())
