"""Stopping: while training after a whole step, elsewhere at once, so that a run that the user interrupts can be resumed."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from mbkit.errors import Interrupted

PATIENCE = 10.0  # seconds after SIGTERM that a step of an environment may take; there is nobody who could send a second signal

__all__ = ["Interrupted", "interruptible"]


@contextmanager
def interruptible() -> Iterator[list[str]]:
    """Collects the name of a signal that asks us to stop after the present step.

    KeyboardInterrupt is raised at once by a second signal, and where an environment does not come back within `PATIENCE` after SIGTERM.
    """
    caught: list[str] = []
    handlers: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if caught:
            raise KeyboardInterrupt(name)
        caught.append(name)
        if number == signal.SIGTERM:
            handlers[signal.SIGALRM] = signal.signal(signal.SIGALRM, look)
            signal.setitimer(signal.ITIMER_REAL, PATIENCE, PATIENCE / 10)
        else:
            tell(f"{name}: stopping after this step; one more Ctrl-C stops at once")

    def look(number: int, frame: FrameType | None) -> None:
        if inside_environment(frame):
            raise KeyboardInterrupt(caught[0])

    with suppress(ValueError):  # outside the main thread the caller handles signals
        handlers.update({number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)})
    try:
        yield caught
    finally:
        if signal.SIGALRM in handlers:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def interrupted(advice: Callable[[], str]) -> Iterator[None]:
    """KeyboardInterrupt inside becomes Interrupted with the signal's name and `advice`: how to go on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Interrupted(f"stopped by {signal_name(stop)}: {advice()}") from None


def signal_name(stop: KeyboardInterrupt) -> str:
    """The signal that raised this."""
    return str(stop.args[0]) if stop.args else "SIGINT"


def inside_environment(frame: FrameType | None) -> bool:
    """Whether this frame belongs to a step or a reset of an environment."""
    from mbkit.envs import Environment  # options are checked before a simulator is imported

    while frame is not None:
        if frame.f_code in (Environment.step.__code__, Environment.reset.__code__):
            return True
        frame = frame.f_back
    return False


def tell(text: str) -> None:
    """One line on stderr, from inside a signal handler, where a write that was interrupted cannot be entered again."""
    with suppress(RuntimeError, OSError):
        print(f"\nmbkit: {text}", file=sys.stderr, flush=True)
