"""How signals end a command outside the training loop: SIGTERM as Ctrl-C does."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt("SIGTERM") meanwhile, so that what is open is closed first."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = None
    with suppress(ValueError):  # outside the main thread the caller handles signals
        before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
