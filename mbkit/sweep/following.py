"""How far a run is, read from its metrics while another process writes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mbkit.recording.following import Growing
from mbkit.recording.recorder import FILE


@dataclass
class RunCurve:
    """The step and the evaluation returns of one run so far."""

    step: int = 0
    returns: dict[int, float] = field(default_factory=dict)  # evaluation return by environment step
    lines: Growing | None = None  # of its file, from the first look on

    @property
    def last_return(self) -> float | None:
        """The last evaluation's, None before there is one."""
        return self.returns[max(self.returns)] if self.returns else None

    def follow(self, directory: str | Path) -> None:
        """Read what was written since; a run that was resumed has cut its file, which is read again then."""
        if self.lines is None:
            self.lines = Growing(Path(directory) / FILE)
        for row in self.lines.new():
            self._take(row)

    def _take(self, row: Mapping[str, Any]) -> None:
        step, value = row.get("step"), row.get("eval/return")
        if not isinstance(step, int):
            return
        self.step = step
        if isinstance(value, int | float):
            self.returns[step] = float(value)
