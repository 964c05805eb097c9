"""Too little memory, reported in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

from mbkit.errors import UserError, lacks_memory

FAULTS = ("cuda error", "cublas_status", "cudnn_status", "hip error")  # one of them is in torch's message where the GPU itself failed
FAULT_NOTE = (
    "The GPU reported a fault, not a lack of memory. It is reported later than it happened: CUDA_LAUNCH_BLOCKING=1 shows where. "
    "`mbkit resume` goes on from the last checkpoint."
)


@contextmanager
def refuse_oversized(what: str) -> Iterator[None]:
    """Inside, torch's errors about too little memory become a UserError of one sentence: `what` needs more than there is.

    Other errors stay as they are; those of the GPU get a note that says so.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if lacks_memory(error):
            raise UserError(f"{what} needs more memory than the device has; expected less") from error
        if any(sign in str(error).lower() for sign in FAULTS):
            error.add_note(FAULT_NOTE)
        raise
