"""Errors that are the user's to mend, and which of torch's are: too little memory, in any of its wordings."""

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


def lacks_memory(error: Exception) -> bool:
    """Whether torch or NumPy failed for lack of memory, on any device, or because a size is beyond all numbers.

    A fault of the GPU ("an illegal memory access was encountered") speaks of memory too and is none of these.
    """
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in OVERSIZED)
