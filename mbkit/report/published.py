"""Curves as papers publish them, in one long CSV: exp_name, env_name, seed, metric, env_step, value. Read beside ours, and written."""

import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mbkit.errors import UserError
from mbkit.paths import check_file, is_file, make_folder, short
from mbkit.report.collect import Group, Series
from mbkit.storage import write_text

COLUMNS = ("exp_name", "env_name", "seed", "metric", "env_step", "value")
RETURN = "return"  # name of the metric in our files
# Names under which returns of evaluations are published, the likeliest first
RETURNS = [RETURN, "eval/return", "eval_return", "evaluation/return", "eval/episode_reward", "eval_episode_reward", "eval/avg_return"]
RETURNS += ["avg_return", "average_return", "eval_avg_return", "episode_return", "episode_reward", "reward"]


class PublishedCurve(NamedTuple):
    """One experiment of a file on one environment."""

    name: str
    env: str  # as the file calls it
    runs: list[Series]  # a seed each
    file: str


def task(env: str) -> tuple[str, str]:
    """Name of an environment without its version, in small letters, and the version: ("hopper", "v4")."""
    match = re.fullmatch(r"(?:.*/)?(.+?)(?:-(v\d+))?", env.strip())
    return (match[1].lower(), match[2] or "") if match else (env.lower(), "")


def read_published(place: str | Path, environments: Sequence[str]) -> dict[str, list[PublishedCurve]]:
    """The curves of FILE, or of the metric that FILE@METRIC names, on these environments, whose versions may differ.

    Returns:
        Environment of ours -> curves of the file, without those on which it has none.

    Raises:
        UserError: no such file, a column or metric that is missing, a number that is none, or no curve of any of the environments.
    """
    file, _, metric = (str(place), "", "") if is_file(place) else str(place).rpartition("@")
    if not is_file(file):
        file, _, metric = str(place).partition("@")  # a metric with an @ in its name
    if not is_file(file):
        raise UserError(f"--beside={short(place)}: there is no such file; expected a CSV with the columns {', '.join(COLUMNS)}")
    ours = {task(env)[0]: env for env in environments}
    points: dict[tuple[str, str, str, str], list[tuple[float, float]]] = defaultdict(list)  # metric, environment, experiment, seed
    others: dict[str, None] = {}
    known = False
    for line, row in rows_of(Path(file)):
        if task(row["env_name"])[0] not in ours:
            others[row["env_name"]] = None
            continue
        step, value = (number_of(row, column, file, line) for column in ("env_step", "value"))
        if not (math.isfinite(step) and step >= 0):
            raise UserError(f"{short(file)}, line {line}: env_step must be a finite number from 0 on, came {short(row['env_step'])}")
        known = True
        if math.isfinite(value):
            points[row["metric"], row["env_name"], row["exp_name"], row["seed"]].append((step, value))
    if known and not points:
        raise UserError(f"{short(file)} has no finite value of {', '.join(environments)}")
    if not points:
        listed = ", ".join(sorted(others)[:8]) + ", …" * (len(others) > 8) or "no rows"
        raise UserError(f"{short(file)} has no curve of {', '.join(environments)}: it has {listed}")
    chosen = chosen_metric({key[0] for key in points}, metric, file)
    curves: dict[str, list[PublishedCurve]] = {}
    for env, name in dict.fromkeys((env, name) for m, env, name, _ in points if m == chosen):
        seeds = [sorted(values) for key, values in points.items() if key[:3] == (chosen, env, name)]
        runs = [Series(steps, np.full(len(steps), np.nan), values) for steps, values in (np.array(seed).T for seed in seeds)]
        curves.setdefault(ours[task(env)[0]], []).append(PublishedCurve(name, env, runs, Path(file).name))
    return curves


def rows_of(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows with their line numbers; UserError where a column is missing, or the file is no text."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if missing := [column for column in COLUMNS if column not in (reader.fieldnames or ())]:
                came = ", ".join(map(str, reader.fieldnames or ())) or "an empty file"
                raise UserError(f"{short(file)} lacks the column {missing[0]}: expected {', '.join(COLUMNS)}; came {short(came)}")
            for row in reader:
                if None in row.values() or None in row:
                    raise UserError(f"{short(file)}, line {reader.line_num}: expected {len(reader.fieldnames or ())} values in a row")
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{short(file)} is no CSV file: {error}") from error


def number_of(row: dict[str, str], column: str, file: str, line: int) -> float:
    """A cell as a float; UserError where it is none."""
    try:
        return float(row[column])
    except ValueError:
        raise UserError(f"{short(file)}, line {line}: {column} must be a number, came {short(repr(row[column]))}") from None


def chosen_metric(metrics: set[str], named: str, file: str) -> str:
    """The metric that is named, or else the only one, or the likeliest to be the return; UserError where none is."""
    if named:
        if named not in metrics:
            raise UserError(f"{short(file)} has no metric {named!r}: it has {', '.join(sorted(metrics))}")
        return named
    by_name = {metric.lower(): metric for metric in metrics}
    likely = next((by_name[name] for name in RETURNS if name in by_name), None)
    if likely is None and len(metrics) > 1:
        listed = sorted(metrics)
        raise UserError(f"{short(file)} has the metrics {', '.join(listed)}: name one, as in --beside {short(file)}@{listed[0]}")
    return likely or next(iter(metrics))


def write_published(file: Path, groups: Sequence[Group]) -> None:
    """Write the evaluations of all runs in the same form; UserError where the file cannot be written."""
    check_file(file, makes_folders=True)
    make_folder(file.parent)
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([COLUMNS, *evaluations(groups)])
    write_text(file, buffer.getvalue())


def evaluations(groups: Iterable[Group]) -> Iterator[tuple[str, str, str, str, str, str]]:
    """One row for each evaluation, values with all their digits."""
    for group in groups:
        for run in group.runs:
            series = run.series("eval/return")
            for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
                yield group.label, run.env, str(run.seed), RETURN, f"{step:.0f}", repr(value)
