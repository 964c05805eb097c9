"""What hooks see of a loop: its step and what happened in the last one. A step is one of the environments, or an update on a data set."""

from collections.abc import Callable, Sequence
from typing import Protocol

from mbkit.loops.watch import Watch
from mbkit.recording import Recorder


class Clock:
    """Counts steps, calls the hooks after each, and stops when asked; a loop is a clock whose `advance` does the step."""

    recorder: Recorder  # set by whatever runs the loop, before it runs

    def __init__(self, stride: int) -> None:
        self.step = 0  # steps so far
        self.stride = stride  # steps that one `advance` takes: the number of environments, or of updates made at once
        self.episode_ended = False  # in the last step, in any environment
        self.watch = Watch()  # warns of learning that goes wrong
        self.stop: Callable[[], bool] = lambda: False  # asked before every step

    def advance(self) -> None:
        """One stride; what it is belongs to the loop."""
        raise NotImplementedError

    def passed(self, every: int) -> bool:
        """Whether the last stride reached or crossed a multiple of `every`; 0 is never."""
        return every > 0 and self.step // every > (self.step - self.stride) // every

    def run(self, until: int, hooks: Sequence["Hook"]) -> None:
        """Go on until `until` steps, or until `stop()` after a whole stride."""
        while self.step < until and not self.stop():
            self.advance()
            for hook in hooks:
                hook(self)


class Hook(Protocol):
    """Called after every stride, in the order given; it keeps its own cadence by the clock."""

    def __call__(self, clock: Clock) -> None: ...  # noqa: D102


class Every:
    """A hook that runs `action` whenever the clock passes a multiple of `steps`; 0 is never."""

    def __init__(self, steps: int, action: Callable[[], None]) -> None:
        self.steps, self.action = steps, action

    def __call__(self, clock: Clock) -> None:
        """Runs the action where a multiple was passed."""
        if clock.passed(self.steps):
            self.action()


class Until:
    """A hook that calls some hooks up to a step, and others after it."""

    def __init__(self, step: int, before: Sequence[Hook], after: Sequence[Hook]) -> None:
        self.step, self.before, self.after = step, before, after

    def __call__(self, clock: Clock) -> None:
        """Calls each of those whose time it is."""
        for hook in self.before if clock.step <= self.step else self.after:
            hook(clock)
