"""Run directories as they lie on disk; a run that was cut short is read like a finished one."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mbkit.config import read_yaml
from mbkit.config.identity import group_identity
from mbkit.errors import UserError
from mbkit.paths import is_dir, is_file, matching, read_text, short

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """The finite values of one metric of one run: steps [N], seconds [N], values [N]."""

    steps: Floats
    seconds: Floats
    values: Floats

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class RunRecord:
    """The contents of one run directory."""

    path: Path
    config: dict[str, Any]
    config_text: str
    rows: list[dict[str, Any]]  # lines of metrics.jsonl, in order of their step
    unreadable: int  # lines of metrics.jsonl that are not JSON, e.g. one cut by a kill
    summary: dict[str, Any]  # summary.json; empty until the run has finished
    diagnostics: dict[str, Any]  # diagnostics.json; empty until the run has finished, or where no model was learned
    videos: list[Path]

    @property
    def algo(self) -> str:
        """Name of the algorithm."""
        return str(self.summary.get("algo") or self.config.get("algo") or "?")

    @property
    def env(self) -> str:
        """Name of the environment."""
        return str(self.summary.get("env") or self.config.get("env") or "?")

    @property
    def seed(self) -> int | str:
        """Random seed, "?" if unknown."""
        seed: int | str = self.summary.get("seed", self.config.get("seed", "?"))
        return seed

    @property
    def data(self) -> dict[str, Any]:
        """What the run says of its data set; empty where it has none."""
        about = self.summary.get("data") or _json(self.path / "data.json")
        return about if isinstance(about, dict) else {}

    @property
    def model_report(self) -> dict[str, Any]:
        """What `mbkit dynamics report` wrote beside the run's model; empty where it did not, or of an earlier model."""
        facts, model = _json(self.path / "dynamics.report.json"), self.path / "dynamics.pt"
        about = facts.get("model")
        if not isinstance(about, dict) or not is_file(model):
            return {}
        return facts if about.get("sha256") == hashlib.sha256(model.read_bytes()).hexdigest() else {}

    @property
    def unit(self) -> str:
        """What its steps are: gradient updates on a data set, or environment steps."""
        offline = self.config.get("data") is not None and self.config.get("continues") is None
        return "gradient updates" if offline else "environment steps"

    @property
    def task(self) -> str:
        """The environment, or the data set's file where there is none."""
        return Path(str(self.config.get("data"))).name if self.env == "none" and self.config.get("data") else self.env

    @property
    def steps(self) -> int:
        """Steps of the last line logged."""
        return int(self.rows[-1]["step"])

    @property
    def planned(self) -> int | None:
        """Steps that the configuration asks for."""
        steps = self.config.get("steps")
        return steps if isinstance(steps, int) else None

    @property
    def finished(self) -> bool:
        """Whether there is a summary of all planned steps; after an extension the old one counts no more."""
        return bool(self.summary) and (self.planned is None or (count(self.summary.get("steps")) or 0) >= self.planned)

    @property
    def wall_seconds(self) -> float:
        """Wall-clock duration in seconds, before and after a resumption together."""
        logged = number(self.rows[-1].get("seconds"))
        return number(self.summary.get("wall_seconds"), logged) if self.finished else logged

    def part(self, name: str) -> str | None:
        """Name of the chosen `dynamics` or `planner`, or None where the configuration has no such part."""
        value = self.config.get(name)
        chosen = value.get("name", name) if isinstance(value, dict) and value else value
        return str(chosen) if chosen else None

    def series(self, *keys: str) -> Series:
        """All finite values of the first of `keys` that was logged at all."""
        key = next((key for key in keys if any(key in row for row in self.rows)), keys[0])
        points = [(row["step"], number(row.get("seconds")), number(row[key])) for row in self.rows if key in row]
        table = np.array(points, dtype=np.float64).reshape(-1, 3)
        return Series(*table[np.isfinite(table[:, 2])].T)

    def member_series(self, key: str) -> list[Series]:
        """The metrics `key`/0, `key`/1, ...: one for each member of an ensemble."""
        names = {name for row in self.rows for name in row if re.fullmatch(re.escape(key) + r"/\d+", name)}
        return [self.series(name) for name in sorted(names, key=lambda name: (len(name), name))]

    def final(self) -> tuple[float, float, int | None]:
        """Return of the final policy: mean, standard deviation over episodes, number of episodes (None if unknown).

        While the run has not finished, those of its last evaluation.
        """
        mean, std = self.series("eval/return"), self.series("eval/return_std")
        fallback = mean.values[-1] if len(mean) else math.nan, std.values[-1] if len(std) else math.nan
        scores = self.summary if self.finished else {}
        return (
            number(scores.get("eval_return_mean"), fallback[0]),
            number(scores.get("eval_return_std"), fallback[1]),
            count(scores.get("eval_episodes")),
        )

    @property
    def best(self) -> float:
        """Highest mean return of any evaluation."""
        values = [*self.series("eval/return").values, number(self.summary.get("best_eval_return"))]
        return float(np.nanmax(values)) if np.isfinite(values).any() else math.nan


@dataclass(frozen=True)
class Group:
    """Runs of one experiment: they agree in `group_identity` and differ in their seeds."""

    label: str
    runs: list[RunRecord]
    index: int = 0  # of its label among all labels of a page: the number of its colour, the same in every environment

    @property
    def env(self) -> str:
        """Name of the environment."""
        return self.runs[0].env

    @property
    def data_return(self) -> float:
        """Mean return of the episodes of the runs' data set; NaN where it is not known."""
        return number(self.runs[0].data.get("return_mean"))

    def all_series(self, *keys: str) -> list[Series]:
        """A metric in each run that logged it; algorithms may log it under different names, `keys`."""
        return [series for run in self.runs if len(series := run.series(*keys))]


def unit_of(groups: Sequence[Group]) -> str:
    """What the steps of all these runs are; "steps" where they differ."""
    units = {run.unit for group in groups for run in group.runs}
    return next(iter(units)) if len(units) == 1 else "steps"


def number(value: Any, default: float = math.nan) -> float:
    """`value` as a float; `default` where it is not a number."""
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default
    except OverflowError:  # a whole number of hundreds of digits
        return default


def count(value: Any) -> int | None:
    """`value` as a whole number; None where it is not one."""
    return int(value) if math.isfinite(number(value)) else None


def read_run(path: Path) -> RunRecord:
    """Read one run directory. UserError where the path is not one, or where nothing was logged yet."""
    config_file, metrics_file = path / "config.yaml", path / "metrics.jsonl"
    for file in (config_file, metrics_file):
        if not is_file(file):
            came = "none" if is_dir(path) else "no directory"
            raise UserError(f"{short(path)} is not a run directory: expected a file {file.name} in it, found {came}")
    text = read_text(config_file, errors="replace")
    rows, unreadable = _rows(metrics_file)
    if not rows:
        raise UserError(f"{metrics_file} holds no metrics: expected at least one line with a step; the run stopped before it wrote one")
    return RunRecord(
        path=path,
        config=_config(config_file, text),
        config_text=text,
        rows=rows,
        unreadable=unreadable,
        summary=_json(path / "summary.json"),
        diagnostics=_json(path / "diagnostics.json"),
        videos=[v for v in sorted(matching(path / "videos", "*.mp4"), key=natural) if is_file(v) and v.stat().st_size],
    )


def natural(path: Path) -> list[tuple[int, str]]:
    """Sort key by which step-900 comes before step-1000."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.stem)]


def _config(file: Path, text: str) -> dict[str, Any]:
    config = read_yaml(text, str(file))
    if not isinstance(config, dict):
        raise UserError(f"{file} must hold a mapping of options to values, came a {type(config).__name__}")
    return {str(key): value for key, value in config.items()}


def _json(file: Path) -> dict[str, Any]:
    """The JSON object in `file`; empty where the file is missing, incomplete or something else."""
    try:
        value = json.loads(read_text(file, errors="replace"))
    except (UserError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _rows(file: Path) -> tuple[list[dict[str, Any]], int]:
    """Lines of metrics.jsonl in order of their step, and the number of unreadable ones."""
    rows: list[dict[str, Any]] = []
    unreadable = 0
    for line in read_text(file, errors="replace").splitlines():
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            unreadable += 1
            continue
        if isinstance(row, dict) and math.isfinite(number(row.get("step"))):
            rows.append(row)
    return sorted(rows, key=lambda row: float(row["step"])), unreadable  # means of an interval are written after events of the next


def group_runs(runs: Sequence[RunRecord]) -> list[Group]:
    """Group the runs of each experiment, environment by environment; a label names the options in which groups of one algorithm differ.

    Options that differ between environments alone, as presets do, are not named: a label stands for the same method in all of them.
    """
    by_identity: dict[tuple[str, str, str], list[RunRecord]] = {}
    for env in dict.fromkeys(run.env for run in runs):
        for run in (run for run in runs if run.env == env):
            by_identity.setdefault((env, run.algo, _text(group_identity(run.config))), []).append(run)
    keys = {algo: _differing({key: members[0] for key, members in by_identity.items() if key[1] == algo}) for _, algo, _ in by_identity}
    groups, indices = [], dict[str, int]()
    for (_, algo, _), members in by_identity.items():
        label = " ".join([algo, *_distinguishing(members[0], keys[algo])])
        index = indices.setdefault(label, len(indices))
        groups.append(Group(label, sorted(members, key=lambda r: str(r.seed).zfill(12)), index))
    return groups


def by_environment(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """The groups of each environment, in their order."""
    return {env: [group for group in groups if group.env == env] for env in dict.fromkeys(group.env for group in groups)}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _differing(rivals: Mapping[tuple[str, str, str], RunRecord]) -> list[str]:
    """Options in which rivals of one environment differ, in any of them."""
    differing: dict[str, None] = {}
    for env in dict.fromkeys(env for env, _, _ in rivals):
        identities = [group_identity(run.config) for key, run in rivals.items() if key[0] == env]
        for key in dict.fromkeys(key for identity in identities for key in identity):
            if len({_text(identity.get(key)) for identity in identities}) > 1:
                differing[key] = None
    return list(differing)


def _distinguishing(run: RunRecord, keys: Sequence[str], most: int = 3) -> list[str]:
    """`key=value` for up to `most` of these options."""
    identity = group_identity(run.config)
    named = [key for key in keys if key in identity]
    return [f"{key}={identity[key]}" for key in named[:most]] + ["…"] * (len(named) > most)
