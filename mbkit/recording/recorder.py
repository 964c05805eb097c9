"""Metrics of a run: summed on the device, copied to the host once per interval, written as one JSON object per line."""

import json
import math
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from mbkit.errors import UserError
from mbkit.paths import reason, short
from mbkit.recording.lines import Lines
from mbkit.recording.progress import Progress, say
from mbkit.recording.trackers import Tracker, last_step
from mbkit.storage import plain
from mbkit.types import State

FILE, WARNINGS = "metrics.jsonl", "warnings.jsonl"


class Means:
    """Running sums of metrics between two flushes; sums stay on the device of their values, and one kernel per call adds to them."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor | float] = {}
        self.count: dict[str, int] = {}

    def add(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Add one value to each of these means. Tensors are copied at once: a CUDA graph writes its next metrics into the same memory."""
        on_device: tuple[list[Tensor], list[Tensor]] = ([], [])  # sums, and the values to add to them
        for name, value in metrics.items():
            self.count[name] = self.count.get(name, 0) + 1
            old = self.sums.get(name)
            if isinstance(value, Tensor):
                value = value.detach()
                if isinstance(old, Tensor) and old.device == value.device:
                    on_device[0].append(old)
                    on_device[1].append(value)
                    continue
                value = value.to(torch.float32, copy=True)
            self.sums[name] = value if old is None else old + value
        if on_device[0]:
            torch._foreach_add_(*on_device)

    def take(self) -> dict[str, float]:
        """Return the means and start again from zero; one copy to the host per device."""
        by_device: dict[torch.device, list[str]] = {}
        for name, value in self.sums.items():
            if isinstance(value, Tensor):
                by_device.setdefault(value.device, []).append(name)
        floats = {name: float(value) for name, value in self.sums.items() if not isinstance(value, Tensor)}
        for names in by_device.values():
            stacked = torch.stack([torch.as_tensor(self.sums[name]) for name in names])
            floats |= dict(zip(names, stacked.tolist(), strict=True))
        means = {name: floats[name] / self.count[name] for name in self.sums}
        self.sums, self.count = {}, {}
        return means


def as_floats(values: Mapping[str, Tensor | float]) -> dict[str, float]:
    """The values on the host; those on a GPU come in one copy, which waits for it."""
    there = {name: value.double() for name, value in values.items() if isinstance(value, Tensor) and value.is_cuda}
    floats = dict(zip(there, torch.stack(list(there.values())).tolist(), strict=True)) if there else {}
    return {name: floats[name] if name in floats else float(value) for name, value in values.items()}


class Recorder:
    """Writes metrics to `metrics.jsonl` in a run directory, and optionally to TensorBoard and in short to the user, on stderr.

    Args:
        run_dir: an existing directory.
        every: environment steps between two lines of averaged metrics.
        total: environment steps of the whole run, for the progress bar.
        progress: whether to say on stderr how far the run is.
        tensorboard: whether to write event files to `run_dir/tensorboard` too.
        unit: what a step is called, for the progress bar.
    """

    def __init__(
        self,
        run_dir: str | Path,
        every: int = 1000,
        total: int | None = None,
        progress: bool = False,
        tensorboard: bool = False,
        unit: str = "step",
    ) -> None:
        self.every, self.step = every, 0
        self.path = Path(run_dir) / FILE
        self.means = Means()
        self.notes: list[str] = []  # what the user should know of the file
        self._lines = Lines(self.path)
        try:
            self._events = _tensorboard(self.path.parent) if tensorboard else None
        except BaseException:
            self._lines.close()
            raise
        self._started = time.perf_counter()
        self.progress = Progress(total, silent=not progress, unit=unit)
        self.tracker: Tracker | None = None  # of wandb, trackio or swanlab; the training of a run sets it

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of this run, including those before it was resumed."""
        return time.perf_counter() - self._started

    def log(self, step: int, metrics: Mapping[str, Tensor | float]) -> None:
        """Add metrics to the means of the current interval.

        Interval k spans environment steps k every + 1 to (k + 1) every; its means are written by the first call of a later interval.
        """
        if max(step - 1, 0) // self.every > max(self.step - 1, 0) // self.every:
            self.flush()
        self.step = step
        self.means.add(metrics)
        self.progress.advance(step)

    def event(self, step: int, values: Mapping[str, Tensor | float]) -> None:
        """Write these values at once and without averaging, such as the return of an episode or of an evaluation."""
        floats = as_floats(values)
        self._write(step, floats)
        self.progress.advance(step)
        self.progress.event(floats)

    def warn(self, step: int, text: str) -> None:
        """One line to the user, on stderr, above the progress bar, and in `warnings.jsonl`; a full disk stops no run for its sake."""
        say(text)
        with suppress(OSError), open(self.path.with_name(WARNINGS), "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "text": text}) + "\n")

    def flush(self) -> None:
        """Write the means of the interval so far, if there are any."""
        means = self.means.take()
        if means:
            self._write(self.step, means)
            self.progress.means(means)

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        line = {"step": step, "seconds": round(self.seconds, 3), **plain(values)}
        self._lines.write(line)
        if self._events is not None:
            try:
                for name, value in values.items():
                    self._events.add_scalar(name, value, step)
            except OSError as error:
                raise UserError(f"{self.path.parent / 'tensorboard'} cannot be written ({error.strerror})") from error
        if self.tracker is not None:
            self.tracker.log(step, values)

    def truncate(self, position: int) -> None:
        """Cut the file to at most `position` bytes: a resumed run writes the lines behind them again. Notes how many are missing."""
        missing = self._lines.truncate(position)
        if missing:
            self.notes.append(f"{self.path} is {missing} bytes shorter than at the checkpoint: earlier metrics are missing from it.")

    def state_dict(self) -> State:
        """File position, elapsed seconds, and the sums of the current interval."""
        sums = {name: value.clone() if isinstance(value, Tensor) else value for name, value in self.means.sums.items()}
        return {
            "position": self._lines.position(),
            "seconds": self.seconds,
            "step": self.step,
            "sums": sums,
            "count": dict(self.means.count),
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from a checkpoint: lines written after it are deleted, and the clock continues."""
        if self.tracker is not None:
            self.tracker.known_to = last_step(self.path, state["position"])
        self.truncate(state["position"])
        self._started = time.perf_counter() - state["seconds"]
        self.step, self.means.sums, self.means.count = state["step"], dict(state["sums"]), dict(state["count"])
        if self._events is not None:
            self._events.close()
            self._events = _tensorboard(self.path.parent, purge_step=self.step + 1)
        self.progress.advance(self.step)

    def close(self) -> None:
        """Write the remaining means and close the files, also where the disk refuses."""
        with ExitStack() as opened:
            if self._events is not None:
                opened.callback(self._events.close)
            opened.callback(self.progress.close)
            opened.callback(self._lines.close)
            if self.tracker is not None:
                opened.callback(self.tracker.finish)
            self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.close()
        except UserError:
            if error is None:  # what ended the run says more than that its last means could not be written
                raise


def _tensorboard(run_dir: Path, purge_step: int | None = None) -> Any:
    """A writer of TensorBoard event files that hides earlier events from `purge_step` on; UserError if tensorboard is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError('TensorBoard is not installed; `pip install "mbkit[tensorboard]"` brings it') from error
    return SummaryWriter(str(run_dir / "tensorboard"), purge_step=purge_step)


def read_metrics(run_dir: str | Path) -> list[dict[str, float]]:
    """The lines of `metrics.jsonl` with null as NaN; an incomplete last line, left by a crash, is skipped.

    Raises:
        UserError: the file cannot be read, or a complete line is not a JSON object.
    """
    path = Path(run_dir) / FILE
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except (OSError, ValueError) as error:
        raise UserError(f"{short(run_dir)} is not a run directory: {FILE} cannot be read ({reason(error)})") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append({name: math.nan if value is None else value for name, value in row.items()})
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path} line {number} is not a JSON object: {line[:60]!r}") from error
    return rows
