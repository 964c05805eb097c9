"""How far a run is, read from its metrics while another process writes them."""

import json
from dataclasses import dataclass, field
from pathlib import Path

FILE = "metrics.jsonl"


@dataclass
class RunCurve:
    """The step and the evaluation returns of one run so far."""

    step: int = 0
    returns: dict[int, float] = field(default_factory=dict)  # evaluation return by environment step
    position: int = 0  # bytes of the file that were read

    @property
    def last_return(self) -> float | None:
        """The last evaluation's, None before there is one."""
        return self.returns[max(self.returns)] if self.returns else None

    def follow(self, directory: str | Path) -> None:
        """Read what was written since; a run that was resumed has cut its file, which is read again then."""
        path = Path(directory) / FILE
        try:
            if path.stat().st_size < self.position:
                self.position = 0
            with open(path, "rb") as file:
                file.seek(self.position)
                new = file.read()
        except OSError:
            return  # not there yet
        whole = new[: new.rfind(b"\n") + 1]
        self.position += len(whole)
        for line in whole.splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            self.step = int(row["step"])
        except (ValueError, TypeError, LookupError):  # bytes of a file that was cut meanwhile
            return
        value = row.get("eval/return")
        if isinstance(value, int | float):
            self.returns[self.step] = float(value)
