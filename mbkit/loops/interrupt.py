"""Stopping after a whole step, so that a run that the user interrupts can be resumed."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from mbkit.errors import Interrupted

__all__ = ["Interrupted", "interruptible"]


@contextmanager
def interruptible() -> Iterator[list[str]]:
    """Collects the name of a signal that asks us to stop after the present step; a second Ctrl-C stops at once."""
    caught: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(signal.Signals(number).name)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    handlers: dict[int, Any] = {}
    with suppress(ValueError):  # outside the main thread the caller handles signals
        handlers = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
