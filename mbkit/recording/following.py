"""A run followed from outside while it is written: its metrics read as they come, its state, and how far it is.

Nothing is written here, and a file that is cut when a run is resumed is read again from its beginning.
"""

import json
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from os import walk
from pathlib import Path
from typing import Any, Literal

from mbkit.config.reading import read_yaml
from mbkit.errors import UserError
from mbkit.paths import is_dir, read_text, short
from mbkit.recording.lock import failure, is_training
from mbkit.recording.recorder import FILE, WARNINGS

RunState = Literal["running", "failed", "interrupted", "finished", "unreadable"]
SPAN = 60.0  # seconds of the run over which its speed is a mean
EPISODES = 10  # over which the training return is a mean
SILENCE = 120.0  # seconds after its last line for which a run counts as running where the file system has no locks
TAIL = 200  # bytes before the position that show whether the file was cut and written again


def run_directories(path: str | Path) -> list[Path]:
    """The run directories that a path stands for: itself, or all below it, sorted.

    Raises:
        UserError: there is no such directory.
    """
    if not is_dir(path):
        raise UserError(f"there is no directory {short(path)}: expected a run, or a folder of runs")
    return sorted(_below(Path(path)))


def _below(top: Path) -> Iterator[Path]:
    for folder, folders, files in walk(top, followlinks=True):
        if "config.yaml" in files and {"run.lock", FILE, "summary.json"} & set(files):
            folders.clear()
            yield Path(folder)
        folders.sort()


class Growing:
    """The JSON objects of a file of lines that grows; `restarted` tells whether the last reading began at its beginning again."""

    def __init__(self, path: Path) -> None:
        self.path, self.position, self.tail, self.restarted = path, 0, b"", False

    def new(self) -> Iterator[dict[str, Any]]:
        """The objects of whole lines since the last call; of all lines where the file was cut in between. Other lines are skipped."""
        self.restarted = False
        try:
            with open(self.path, "rb") as file:
                file.seek(self.position - len(self.tail))
                if file.read(len(self.tail)) != self.tail:
                    self.position, self.restarted = 0, True
                    file.seek(0)
                content = file.read()
        except (OSError, ValueError):
            content, self.restarted, self.position = b"", self.position > 0, 0
        whole = content[: content.rfind(b"\n") + 1]
        before = b"" if self.restarted else self.tail
        self.position, self.tail = self.position + len(whole), (before + whole)[-TAIL:]
        return _objects(whole)


def _objects(lines: bytes) -> Iterator[dict[str, Any]]:
    for line in lines.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


class FollowedRun:
    """One run directory, as it stood at the last `refresh`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._metrics, self._warnings = Growing(self.path / FILE), Growing(self.path / WARNINGS)
        self._stamps: dict[str, tuple[int, int]] = {}
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.state: RunState = "unreadable"
        self.reason = ""  # why the run failed, or cannot be read
        self._forget()
        self.refresh()

    def _forget(self) -> None:
        self.step, self.seconds = 0, 0.0
        self.evaluations: list[tuple[int, float]] = []  # (step, return); a return that is no finite number is NaN
        self._episodes: deque[float] = deque(maxlen=EPISODES)
        self._pace: deque[tuple[float, int]] = deque()  # (seconds, step) of the last lines

    def refresh(self) -> None:
        """Read what is new."""
        try:
            self._read_files()
        except UserError as error:
            self.state, self.reason = "unreadable", str(error)
            return
        rows = self._metrics.new()
        if self._metrics.restarted:
            self._forget()
        for row in rows:
            self._take(row)
        texts = [str(row["text"]) for row in self._warnings.new() if "text" in row]
        self.warnings = list(dict.fromkeys([*([] if self._warnings.restarted else self.warnings), *texts]))
        self.state, self.reason = self._judged()

    def _read_files(self) -> None:
        """Configuration and summary, where they changed."""
        if self._changed("config.yaml"):
            content = read_yaml(read_text(self.path / "config.yaml"), short(self.path / "config.yaml"))
            if not isinstance(content, dict):
                raise UserError(f"{short(self.path / 'config.yaml')} must hold a mapping of options to values")
            self.config = content
        if self._changed("summary.json"):
            self.summary = next(_objects(" ".join(read_text(self.path / "summary.json").split()).encode()), {})

    def _changed(self, name: str) -> bool:
        """Whether the file is there and another than at the last look."""
        try:
            facts = (self.path / name).stat()
        except OSError:
            return name == "config.yaml"  # whose absence is an error
        stamp = (facts.st_mtime_ns, facts.st_size)
        changed = self._stamps.get(name) != stamp
        self._stamps[name] = stamp
        return changed

    def _take(self, row: Mapping[str, Any]) -> None:
        step, seconds = _number(row.get("step")), _number(row.get("seconds"))
        if not (math.isfinite(step) and math.isfinite(seconds)):
            return
        self.step, self.seconds = max(self.step, int(step)), max(self.seconds, seconds)
        if "eval/return" in row:
            self.evaluations.append((int(step), _number(row["eval/return"])))
        if math.isfinite(episode := _number(row.get("episode/return"))):
            self._episodes.append(episode)
        self._pace.append((seconds, int(step)))
        while len(self._pace) > 2 and seconds - self._pace[1][0] >= SPAN:
            self._pace.popleft()

    def _judged(self) -> tuple[RunState, str]:
        """The state, and its reason where there is one. A summary of fewer steps than planned is of before the run was extended."""
        training = is_training(self.path)
        if training:
            return "running", ""
        if self.summary and (self.total is None or _number(self.summary.get("steps")) >= self.total):
            return "finished", ""
        if training is None and self._silent_for() < SILENCE:
            return "running", ""
        why = failure(self.path)
        return ("failed", why) if why else ("interrupted", "")

    def _silent_for(self) -> float:
        try:
            return time.time() - (self.path / FILE).stat().st_mtime
        except OSError:
            return math.inf

    # --- what a view shows ---------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Algorithm, environment or data set, and seed."""
        c = self.config
        task = c.get("env", "?")
        if task == "none" and c.get("data"):
            task = Path(str(c["data"])).name
        return f"{c.get('algo', '?')} {task} seed {c.get('seed', '?')}"

    @property
    def unit(self) -> str:
        """What a step is: of an environment, or an update on a data set."""
        return "update" if self.config.get("data") is not None and self.config.get("continues") is None else "step"

    @property
    def total(self) -> int | None:
        """Planned steps."""
        steps = self.config.get("steps")
        return steps if isinstance(steps, int) else None

    @property
    def rate(self) -> float:
        """Steps per second of the last minute, or of the whole where it has ended; NaN where it is unknown."""
        if self.state != "running":
            return self.step / self.seconds if self.seconds > 0 and self.step else math.nan
        (began, first), (now, last) = (self._pace[0], self._pace[-1]) if self._pace else ((0.0, 0), (0.0, 0))
        return (last - first) / (now - began) if now > began and last > first else math.nan

    @property
    def left(self) -> float:
        """Seconds to the last planned step at this speed; NaN where it is unknown or the run has ended."""
        if self.state != "running" or self.total is None:
            return math.nan
        return max(self.total - self.step, 0) / self.rate

    @property
    def last(self) -> float:
        """Return of the last evaluation; NaN before the first."""
        final = _number(self.summary.get("eval_return_mean")) if self.state == "finished" else math.nan
        return final if math.isfinite(final) else self.evaluations[-1][1] if self.evaluations else math.nan

    @property
    def best(self) -> float:
        """Highest return of an evaluation; NaN before the first."""
        return max((value for _, value in self.evaluations if math.isfinite(value)), default=math.nan)

    @property
    def training(self) -> float:
        """Mean return of the last ten training episodes; NaN before the first."""
        return sum(self._episodes) / len(self._episodes) if self._episodes else math.nan

    @property
    def warned(self) -> list[str]:
        """Warnings of learning that goes wrong; why the run failed; evaluations that are no finite numbers."""
        broken = [step for step, value in self.evaluations if not math.isfinite(value)]
        nan = [f"The evaluation at {self.unit} {broken[-1]} is no finite number."] if broken else []
        return [*self.warnings, *nan, *([self.reason] if self.reason else [])]


def _number(value: Any) -> float:
    """A number as float, anything else as NaN."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
