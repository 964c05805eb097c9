"""Errors that are the user's to mend, and which of torch's are: too little memory, in any of its wordings."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

T = TypeVar("T")

OVERSIZED = (
    "out of memory",
    "allocate memory",
    "not enough memory",
    "alloc_failed",
    "bad_alloc",
    "size calculation overflowed",
    "unpacking long",
)


class UserError(Exception):
    """A mistake of the user's: one sentence naming the culprit, what was expected and what came. Command line: exit status 2."""


class Interrupted(Exception):
    """The user stopped the run; its directory is complete up to the step that the message names."""


class UserCodeError(UserError):
    """The user's own code (a task, a module) raised its `__cause__`, whose traceback the command line shows behind the sentence."""


def crashed(what: str, error: BaseException) -> UserCodeError:
    """The sentence "WHAT raised TYPE: first line of the message", to be raised from `error`."""
    try:
        message = str(error).strip().partition("\n")[0]
    except Exception:  # the exception's own text fails
        message = ""
    return UserCodeError(f"{what} raised {type(error).__name__}{': ' * bool(message)}{message}")


def lacks_memory(error: Exception) -> bool:
    """Whether torch or NumPy failed for lack of memory, on any device, or because a size is beyond all numbers.

    A fault of the GPU ("an illegal memory access was encountered") speaks of memory too and is none of these.
    """
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in OVERSIZED)


def guarded(function: Callable[..., T], name: str) -> Callable[..., T]:
    """The user's function, whose exceptions become a sentence that names it; those for lack of memory stay as they are."""

    @wraps(function)
    def call(*arguments: Any) -> T:
        try:
            return function(*arguments)
        except Exception as error:  # whatever it raises
            raise error if isinstance(error, UserError) or lacks_memory(error) else crashed(name, error) from error

    return call
