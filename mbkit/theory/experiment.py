"""Experiments on the theory: a function that measures, claims checked against the measurements, tables and one figure.

Usage::

    @experiment("horizon", "Errors grow linearly with the horizon if they are averaged, and quadratically otherwise")
    def horizon(setting: Setting) -> Findings: ...
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from mbkit.errors import UserError
from mbkit.paths import check_folder, is_file, reason, short
from mbkit.registry import nearest
from mbkit.report.figure import save_png
from mbkit.storage import plain, write_text


class Setting(NamedTuple):
    """Size and seed of an experiment."""

    quick: bool = False  # fewer seeds and smaller problems, the same claims: seconds instead of minutes
    seed: int = 0  # seed of the first repetition

    def pick(self, full: Any, quick: Any) -> Any:
        """`quick` in a quick experiment, else `full`."""
        return quick if self.quick else full


class Claim(NamedTuple):
    """Refutable statement with the measurement that decides it."""

    text: str
    measured: str  # measured values as text
    holds: bool


class Table(NamedTuple):
    """Table with a title and named columns; numbers are formatted when it is written."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def markdown(self) -> str:
        """Markdown text with numbers to five digits."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return f"**{self.title}**\n\n" + "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


class Findings(NamedTuple):
    """Result of an experiment."""

    claims: Sequence[Claim]
    tables: Sequence[Table]
    figure: Figure


class TheoryExperiment(NamedTuple):
    """Named experiment on the theory."""

    name: str
    summary: str  # claim in one line, for `mbkit list experiments`
    run: Callable[[Setting], Findings]


_EXPERIMENTS: dict[str, TheoryExperiment] = {}
_ALIASES: dict[str, str] = {}  # short name -> name


def experiment(name: str, summary: str, alias: str = "") -> Callable[[Callable[[Setting], Findings]], Callable[[Setting], Findings]]:
    """Decorator that registers a function as the experiment `name`, which may have a short name, `alias`."""

    def register(run: Callable[[Setting], Findings]) -> Callable[[Setting], Findings]:
        _EXPERIMENTS[name] = TheoryExperiment(name, summary, run)
        if alias:
            _ALIASES[alias] = name
        return run

    return register


def registered() -> list[TheoryExperiment]:
    """All experiments, sorted by name."""
    return sorted(_EXPERIMENTS.values(), key=lambda e: e.name)


def find(name: str) -> list[TheoryExperiment]:
    """Experiment of this name or short name, or all for "all"; raises UserError with the nearest name otherwise."""
    if name == "all":
        return registered()
    name = _ALIASES.get(name, name)
    if name not in _EXPERIMENTS:
        raise UserError(f"unknown experiment {name!r}; {nearest(name, [*_EXPERIMENTS, 'all'])}")
    return [_EXPERIMENTS[name]]


def make_folder(folder: Path) -> None:
    """Create the output folder before measuring; raises UserError if it cannot be written to."""
    try:
        check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        refusal = "" if os.access(folder, os.W_OK) else "it cannot be written to"
    except OSError as error:
        refusal = "it is a file" if is_file(folder) else reason(error)
    if refusal:
        raise UserError(f"--out {short(folder)}: expected a folder to write into, but {refusal}")


def save(entry: TheoryExperiment, findings: Findings, setting: Setting, seconds: float, folder: Path) -> list[Path]:
    """Write NAME.json, NAME.md and NAME.png into `folder`, each file atomically."""
    make_folder(folder)
    files = [folder / f"{entry.name}.{kind}" for kind in ("json", "md", "png")]
    write_text(files[0], as_json(entry, findings, setting, seconds))
    write_text(files[1], as_markdown(entry, findings, setting, seconds))
    save_png(findings.figure, files[2])
    return files


def as_json(entry: TheoryExperiment, findings: Findings, setting: Setting, seconds: float) -> str:
    """Findings as JSON."""
    tables = [{"title": t.title, "columns": list(t.columns), "rows": [list(row) for row in t.rows]} for t in findings.tables]
    claims = [c._asdict() for c in findings.claims]
    record = {
        "experiment": entry.name,
        "summary": entry.summary,
        **setting._asdict(),
        "seconds": seconds,
        "claims": claims,
        "tables": tables,
    }
    return json.dumps(plain(record), indent=1) + "\n"


def as_markdown(entry: TheoryExperiment, findings: Findings, setting: Setting, seconds: float) -> str:
    """Findings as a Markdown page."""
    command = f"`mbkit theory {entry.name}{' --quick' * setting.quick} --seed {setting.seed}`, {seconds:.1f} s"
    claims = "".join(f"- {'holds' if c.holds else '**FAILS**'}: {c.text} ({c.measured})\n" for c in findings.claims)
    tables = "\n".join(table.markdown() for table in findings.tables)
    return f"# {entry.name}\n\n{entry.summary}.\n\n{command}\n\n{claims}\n{tables}\n![{entry.name}]({entry.name}.png)\n"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
