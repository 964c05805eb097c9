"""Run directories, read as they lie on disk: a finished run and one that was cut short give the same `Run`."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mbkit.config import read_yaml
from mbkit.errors import UserError

Floats = NDArray[np.float64]
MEMBER = re.compile(r"model/holdout_mse[/_.](?:member_?)?\d+")
INCIDENTAL = ("seed", "run_dir", "steps", "device", "threads", "preset", "eval", "checkpoint", "video", "record")  # no other experiment


@dataclass(frozen=True)
class Series:
    """One metric of one run where it is finite: environment steps [N], seconds [N], values [N]."""

    steps: Floats
    seconds: Floats
    values: Floats

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Run:
    """What one run directory holds."""

    path: Path
    config: dict[str, Any]
    config_text: str
    rows: list[dict[str, Any]]  # lines of metrics.jsonl, in order of their step
    unreadable: int  # lines of metrics.jsonl that are not JSON, e.g. one cut by a kill
    summary: dict[str, Any]  # empty while the run has not finished
    diagnostics: dict[str, Any]
    videos: list[Path]

    @property
    def algo(self) -> str:
        """Recipe or agent."""
        return str(self.summary.get("algo") or self.config.get("algo") or "?")

    @property
    def env(self) -> str:
        """Name of the environment."""
        return str(self.summary.get("env") or self.config.get("env") or "?")

    @property
    def seed(self) -> int | str:
        """The run's seed, "?" if unknown."""
        seed: int | str = self.summary.get("seed", self.config.get("seed", "?"))
        return seed

    @property
    def steps(self) -> int:
        """Environment steps taken, as far as logged."""
        return int(self.rows[-1]["step"])

    @property
    def planned(self) -> int | None:
        """Environment steps asked for."""
        steps = self.config.get("steps")
        return steps if isinstance(steps, int) else None

    @property
    def finished(self) -> bool:
        """A summary stands, and it is not that of a shorter run since extended."""
        return bool(self.summary) and (self.planned is None or int(self.summary.get("steps") or 0) >= self.planned)

    @property
    def wall_seconds(self) -> float:
        """Duration in seconds, all sittings together."""
        logged = number(self.rows[-1].get("seconds"))
        return number(self.summary.get("wall_seconds"), logged) if self.finished else logged

    def part(self, name: str) -> str | None:
        """Name of the chosen `dynamics` or `planner`, or None where the configuration has no such part."""
        value = self.config.get(name)
        chosen = value.get("name", name) if isinstance(value, dict) and value else value
        return str(chosen) if chosen else None

    def series(self, *keys: str) -> Series:
        """All finite values logged under the first of `keys` that was logged at all."""
        key = next((key for key in keys if any(key in row for row in self.rows)), keys[0])
        found = [(row["step"], number(row.get("seconds")), number(row[key])) for row in self.rows if key in row]
        table = np.array(found, dtype=np.float64).reshape(-1, 3)
        return Series(*table[np.isfinite(table[:, 2])].T)

    def keys(self, pattern: re.Pattern[str]) -> list[str]:
        """Names of the metrics that match `pattern`, in order."""
        return sorted({key for row in self.rows for key in row if pattern.fullmatch(key)}, key=lambda k: (len(k), k))

    def final(self) -> tuple[float, float, int | None]:
        """Return of the final policy: mean, standard deviation over episodes, number of episodes (None if not known).

        The last evaluation stands in while the run has not finished.
        """
        mean, std = self.series("eval/return"), self.series("eval/return_std")
        fallback = mean.values[-1] if len(mean) else math.nan, std.values[-1] if len(std) else math.nan
        scores = self.summary if self.finished else {}
        episodes = scores.get("eval_episodes")
        return (
            number(scores.get("eval_return_mean"), fallback[0]),
            number(scores.get("eval_return_std"), fallback[1]),
            int(episodes) if episodes is not None else None,
        )

    @property
    def best(self) -> float:
        """Highest mean return of any evaluation."""
        values = [*self.series("eval/return").values, number(self.summary.get("best_eval_return"))]
        return float(np.nanmax(values)) if np.isfinite(values).any() else math.nan


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed."""

    label: str
    runs: list[Run]

    def all_series(self, *keys: str) -> list[Series]:
        """The metric in each run that logged it; `keys` are its names, the preferred one first."""
        return [series for run in self.runs if len(series := run.series(*keys))]


def number(value: Any, default: float = math.nan) -> float:
    """`value` as a float; `default` where it is null or no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def read_run(path: Path) -> Run:
    """Read one run directory; raises UserError where it is none or has logged nothing yet."""
    config_file, metrics_file = path / "config.yaml", path / "metrics.jsonl"
    for file in (config_file, metrics_file):
        if not file.is_file():
            raise UserError(
                f"{path} is not a run directory: expected a file {file.name} in it, found {'none' if path.is_dir() else 'no directory'}"
            )
    text = config_file.read_text(encoding="utf-8", errors="replace")
    rows, unreadable = _rows(metrics_file)
    if not rows:
        raise UserError(f"{metrics_file} holds no metrics: expected at least one line with a step, the run stopped before it wrote one")
    return Run(
        path=path,
        config=_config(config_file, text),
        config_text=text,
        rows=rows,
        unreadable=unreadable,
        summary=_json(path / "summary.json"),
        diagnostics=_json(path / "diagnostics.json"),
        videos=[v for v in sorted((path / "videos").glob("*.mp4"), key=natural) if v.stat().st_size],
    )


def natural(path: Path) -> list[tuple[int, str]]:
    """Sort key by which step-900 comes before step-1000."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.stem)]


def _config(file: Path, text: str) -> dict[str, Any]:
    config = read_yaml(text, str(file))
    if not isinstance(config, dict):
        raise UserError(f"{file} must hold a mapping of keys to values, came {type(config).__name__}")
    return {str(key): value for key, value in config.items()}


def _json(file: Path) -> dict[str, Any]:
    """The object in `file`; empty where there is none or a kill left half of one."""
    try:
        value = json.loads(file.read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def _rows(file: Path) -> tuple[list[dict[str, Any]], int]:
    """Lines in order of their step, and how many could not be read."""
    rows: list[dict[str, Any]] = []
    unreadable = 0
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line) if line.strip() else None
        except json.JSONDecodeError:
            unreadable += 1
            continue
        if isinstance(row, dict) and math.isfinite(number(row.get("step"))):
            rows.append(row)
    return sorted(rows, key=lambda row: float(row["step"])), unreadable  # means of an interval are written after events of the next


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a nested configuration as ("group.key", value)."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group runs that differ in their seed only; a label says what sets two groups of one algorithm apart.

    Raises UserError where the runs are of more than one environment: their returns have no common scale.
    """
    for run in runs:
        if run.env != runs[0].env:
            raise UserError(f"{run.path} ran on {run.env}, {runs[0].path} on {runs[0].env}: one page compares runs of one environment only")
    split: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        split.setdefault((run.algo, json.dumps(_essence(run), default=str)), []).append(run)
    groups = []
    for (algo, _), members in split.items():
        rivals = [other[0] for (name, _), other in split.items() if name == algo]
        label = " ".join([algo, *_distinguishing(members[0], rivals)])
        groups.append(Group(label, sorted(members, key=lambda r: str(r.seed).zfill(12))))
    return groups


def _essence(run: Run) -> dict[str, Any]:
    return {key: value for key, value in sorted(flatten(run.config)) if key.split(".")[0] not in INCIDENTAL}


def _distinguishing(run: Run, rivals: Sequence[Run], most: int = 3) -> list[str]:
    """`key=value` for the keys whose values differ between `run` and its rivals, `most` of them."""
    if len(rivals) < 2:
        return []
    essences = [_essence(rival) for rival in rivals]
    own = _essence(run)
    keys = [key for key in own if len({json.dumps(essence.get(key), default=str) for essence in essences}) > 1]
    return [f"{key}={own[key]}" for key in keys[:most]] + ["…"] * (len(keys) > most)
