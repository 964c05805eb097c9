"""Metrics of a run: gathered on the device, copied to the host once per interval, one JSON object a line."""

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from tqdm.auto import tqdm

from mbkit.errors import UserError
from mbkit.storage import plain
from mbkit.types import State

FILE = "metrics.jsonl"
SHOWN = {"eval/return": "eval", "episode/return": "return"}  # on the progress bar


class Means:
    """Running sums of metrics between two flushes; sums stay where the values are, in one kernel per call."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor | float] = {}
        self.count: dict[str, int] = {}

    def add(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Add one value to each of these means. Tensors are copied at once: a CUDA graph writes its next metrics into the same memory."""
        known: tuple[list[Tensor], list[Tensor]] = ([], [])
        for name, value in metrics.items():
            self.count[name] = self.count.get(name, 0) + 1
            old = self.sums.get(name)
            if isinstance(value, Tensor):
                value = value.detach()
                if isinstance(old, Tensor) and old.device == value.device:
                    known[0].append(old)
                    known[1].append(value)
                    continue
                value = value.to(torch.float32, copy=True)
            self.sums[name] = value if old is None else old + value
        if known[0]:
            torch._foreach_add_(*known)

    def take(self) -> dict[str, float]:
        """The means, and a fresh start; one copy to the host for each device that took part."""
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


class Recorder:
    """Writes `metrics.jsonl` of a run directory, and to TensorBoard and a progress bar if asked.

    Args:
        run_dir: an existing directory.
        every: environment steps between two lines of learning metrics.
        total: environment steps planned, for the progress bar.
        progress: a bar on stderr, if that is a terminal.
        tensorboard: event files in `run_dir/tensorboard` too.
    """

    def __init__(
        self, run_dir: str | Path, every: int = 1000, total: int | None = None, progress: bool = False, tensorboard: bool = False
    ) -> None:
        self.every, self.step = every, 0
        self.path = Path(run_dir) / FILE
        self.means = Means()
        self._events = _tensorboard(self.path.parent) if tensorboard else None
        self._file = open(self.path, "ab")  # noqa: SIM115 - lives as long as the recorder
        self.truncate(_last_line_end(self.path))
        self._started = time.perf_counter()
        self._shown: dict[str, str] = {}
        self._bar = tqdm(total=total, disable=not (progress and sys.stderr.isatty()), file=sys.stderr, unit="step", dynamic_ncols=True)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of this run, those before a resume included."""
        return time.perf_counter() - self._started

    def log(self, step: int, metrics: Mapping[str, Tensor | float]) -> None:
        """Add to the means of this interval, steps k every + 1 to (k + 1) every; the first call of the next interval writes them.

        `step` counts environment steps.
        """
        if max(step - 1, 0) // self.every > max(self.step - 1, 0) // self.every:
            self.flush()
        self.step = step
        self.means.add(metrics)
        self._advance(step)

    def event(self, step: int, values: Mapping[str, Tensor | float]) -> None:
        """Write these values now, as they are: an evaluation, an episode's return."""
        floats = {name: float(value) for name, value in values.items()}
        self._write(step, floats)
        self._shown |= {SHOWN[name]: f"{value:.1f}" for name, value in floats.items() if name in SHOWN}
        self._bar.set_postfix(self._shown, refresh=False)
        self._advance(step)

    def flush(self) -> None:
        """Write the means gathered so far, if there are any."""
        means = self.means.take()
        if means:
            self._write(self.step, means)

    def _advance(self, step: int) -> None:
        if step > self._bar.n:
            self._bar.update(step - self._bar.n)

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        line = {"step": step, "seconds": round(self.seconds, 3), **plain(values)}
        self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def position(self) -> int:
        """Length of what is written, bytes, after making sure that it is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def truncate(self, position: int) -> None:
        """Forget all lines written after `position`, those that a resumed run is going to write again."""
        self._file.flush()
        self._file.truncate(min(position, os.fstat(self._file.fileno()).st_size))

    def state_dict(self) -> State:
        """Position, clock, and the means of the interval that is not over yet."""
        sums = {name: value.clone() if isinstance(value, Tensor) else value for name, value in self.means.sums.items()}
        return {"position": self.position(), "seconds": self.seconds, "step": self.step, "sums": sums, "count": dict(self.means.count)}

    def load_state_dict(self, state: State) -> None:
        """Go on where the checkpoint was written: later lines are cut, the clock continues."""
        self.truncate(state["position"])
        self._started = time.perf_counter() - state["seconds"]
        self.step, self.means.sums, self.means.count = state["step"], dict(state["sums"]), dict(state["count"])
        if self._events is not None:
            self._events.close()
            self._events = _tensorboard(self.path.parent, purge_step=self.step + 1)
        self._advance(self.step)

    def close(self) -> None:
        """Write what is left."""
        self.flush()
        self._file.close()
        self._bar.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _tensorboard(run_dir: Path, purge_step: int | None = None) -> Any:
    """A writer of event files, which hides what an earlier one wrote from `purge_step` on; tensorboard is an extra."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError('TensorBoard is not installed; `pip install "mbkit[tensorboard]"` brings it') from error
    return SummaryWriter(str(run_dir / "tensorboard"), purge_step=purge_step)


def _last_line_end(path: Path) -> int:
    """Length of the file without a last line that was cut off in the middle."""
    return path.read_bytes().rfind(b"\n") + 1


def read_metrics(run_dir: str | Path) -> list[dict[str, float]]:
    """The lines of `metrics.jsonl`, null as NaN; a last line that was cut off by a crash is left out.

    Raises:
        UserError: there is no such file, or a line in the middle is no JSON object.
    """
    path = Path(run_dir) / FILE
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{run_dir} is not a run directory: {FILE} cannot be read ({error.strerror})") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append({name: math.nan if value is None else value for name, value in row.items()})
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path} line {number} is not a JSON object: {line[:60]!r}") from error
    return rows
