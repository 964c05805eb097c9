"""Too little memory, reported in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

from mbkit.errors import UserError

SIGNS = ("memory", "alloc", "overflow")  # one of them is in torch's message where memory is too small or a size beyond all numbers


@contextmanager
def refuse_oversized(what: str) -> Iterator[None]:
    """Inside, torch's errors about too little memory become a UserError of one sentence: `what` needs more than there is."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not any(sign in str(error).lower() for sign in SIGNS):
            raise
        raise UserError(f"{what} needs more memory than the device has; expected less") from error
