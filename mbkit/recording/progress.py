"""What a run says while it goes on, on stderr: a bar on a terminal, and elsewhere (log files, notebooks) a line every so often.

Nothing here reads a device: losses come from the lines of metrics that the recorder has copied to the host already.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from time import perf_counter
from typing import Literal

from tqdm import tqdm

from mbkit.config import Experiment
from mbkit.config.reading import preset_text
from mbkit.recording.rundir import shown

Verbosity = Literal["quiet", "normal", "verbose"]
RETURNS = {"episode/return": "return", "eval/return": "eval"}  # shown first, with these labels
LOSSES = ("critic/loss", "actor/loss", "model/loss")  # and then these
SECONDS = 10.0  # between two lines at first
SHARE = 0.05  # of the time so far: a run of hours says less often where it stands

_verbosity: ContextVar[Verbosity] = ContextVar("verbosity", default="normal")


@contextmanager
def verbosity(level: Verbosity) -> Iterator[None]:
    """How much the runs inside say: nothing, a bar or a line every so often, or also every line of metrics."""
    token = _verbosity.set(level)
    try:
        yield
    finally:
        _verbosity.reset(token)


def say(text: str) -> None:
    """One line on stderr, unless the run is to be quiet; a log that cannot be written to stops no run."""
    if _verbosity.get() != "quiet" and sys.stderr is not None:
        with suppress(OSError, ValueError):
            tqdm.write(text, file=sys.stderr)
            sys.stderr.flush()


def announce(experiment: Experiment, threads: int, path: Path, step: int = 0, notes: Iterable[str] = ()) -> None:
    """The first line of a run: what is trained on what, with how many threads, and where its files are; then what is noted at once."""
    c = experiment
    offline = c.data is not None and c.continues is None
    unit = "updates" if offline else "steps"
    part = f"{unit} {step + 1} to {c.steps}" if step else f"{c.steps} {unit}"
    task = c.env if not offline else f"{c.data}, scored on {c.env}" if c.env != "none" else c.data
    begin = preset_text(c) if c.continues is None else f"from {c.continues}"
    say(f"{c.algo} on {task}, {begin}: {part} on {c.device}, {threads} thread{'s' * (threads > 1)}, in {shown(path)}")
    for note in notes:
        say(note)


class Progress:
    """The bar or the lines of one run.

    Args:
        total: environment steps of the whole run.
        silent: say nothing, whatever the verbosity.
        unit: what a step is called.
    """

    def __init__(self, total: int | None, silent: bool = False, unit: str = "step") -> None:
        self.level: Verbosity = "quiet" if silent else _verbosity.get()
        self.total, self.step, self.unit, self.shown = total, 0, unit, dict[str, float]()
        self.began = self.said_at = perf_counter()
        self.said_step: int | None = None  # unknown until the first step, which may be that of a resumption
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self.lines = self.level == "verbose" or (self.level == "normal" and not terminal)
        shown = terminal and self.level != "quiet"
        self.bar = tqdm(total=total, disable=not shown, file=sys.stderr, unit=unit, dynamic_ncols=True)

    def advance(self, step: int) -> None:
        """The run stands at `step`; says so where it is time."""
        if step <= self.step:
            return
        self.bar.update(step - self.step)
        self.step = step
        if self.lines and (self.said_step is None or perf_counter() - self.said_at > max(SECONDS, SHARE * (self.said_at - self.began))):
            self._say_line()

    def event(self, values: Mapping[str, float]) -> None:
        """The return of an episode or of an evaluation."""
        self._show({label: values[name] for name, label in RETURNS.items() if name in values})
        if self.lines and "eval/return" in values and perf_counter() - self.said_at > 1:
            self._say_line()

    def means(self, values: Mapping[str, float]) -> None:
        """The means of an interval: the losses among them, and all of them if a run is to be verbose."""
        self._show({name: values[name] for name in LOSSES if name in values})
        if self.level == "verbose":
            say(f"{self.unit} {self.step}: {listed(values)}")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What the run is at besides steps, such as "evaluation"; a line says so once all steps are done."""
        if self.lines and (self.level == "verbose" or self.total is None or self.step >= self.total):
            say(f"{self.unit} {self.step}: {name}")
        self.bar.set_description_str(name)
        try:
            yield
        finally:
            self.bar.set_description_str("")

    def close(self) -> None:
        """End the bar."""
        self.bar.close()

    def _show(self, values: Mapping[str, float]) -> None:
        if values:
            self.shown |= values
            self.bar.set_postfix_str(listed(self.shown), refresh=False)

    def _say_line(self) -> None:
        """Where the run stands, its speed since the last line, and its last returns and losses."""
        now = perf_counter()
        if self.said_step is not None:
            of = f" of {self.total} ({100 * self.step // self.total} %)" if self.total else ""
            rate = (self.step - self.said_step) / max(now - self.said_at, 1e-9)
            say(", ".join([f"{self.unit} {self.step}{of}", f"{rate:.3g} {self.unit}s/s", *([listed(self.shown)] if self.shown else [])]))
        self.said_at, self.said_step = now, self.step


def listed(values: Mapping[str, float]) -> str:
    """ "return 31.2, critic/loss 0.0412"."""
    return ", ".join(f"{name} {value:.1f}" if name in RETURNS.values() else f"{name} {value:.3g}" for name, value in values.items())
