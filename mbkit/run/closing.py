"""What a run opens is closed when it ends, also after a failure."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from mbkit.envs import Environment
from mbkit.types import Actor


def close(part: object) -> None:
    """Close a part that has something to close, such as an actor whose model simulates in threads."""
    if callable(end := getattr(part, "close", None)):
        end()


class Closable(Protocol):
    """An environment, a run."""

    def close(self) -> None:
        """Release what it has opened."""


@contextmanager
def closed_on_failure(part: Closable) -> Iterator[None]:
    """Close the part where what follows fails."""
    try:
        yield
    except BaseException:
        part.close()
        raise


@contextmanager
def acting(env: Environment, actor_for: Callable[[Environment], Actor]) -> Iterator[tuple[Environment, Actor]]:
    """An environment and the actor that `actor_for` makes for it; both are closed afterwards."""
    with ExitStack() as opened:
        opened.enter_context(env)
        actor = actor_for(env)
        opened.callback(close, actor)
        yield env, actor
