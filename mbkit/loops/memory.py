"""Too little memory, said in a sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

from mbkit.errors import UserError

WORDS = ("memory", "alloc", "overflow")  # one of them is in what torch says where memory is too small or a size beyond all numbers


@contextmanager
def enough_room(what: str) -> Iterator[None]:
    """Inside, whatever torch says of too little memory is a UserError of one sentence: `what` needs more than there is."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not any(word in str(error).lower() for word in WORDS):
            raise
        raise UserError(f"{what} needs more memory than the device has; expected less") from error
