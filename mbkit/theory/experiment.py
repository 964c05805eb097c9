"""What an experiment of theory is: a function that measures, claims held against what was measured, tables and one figure.

Usage::

    @experiment("horizon", "How errors grow with the horizon: linearly with averaging, quadratically without")
    def horizon(setting: Setting) -> Findings: ...
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from mbkit.errors import UserError
from mbkit.registry import nearest
from mbkit.report.figure import save_png
from mbkit.storage import plain, write_text


class Setting(NamedTuple):
    """How much is to be measured."""

    quick: bool = False  # seconds instead of minutes: fewer seeds, smaller problems, the same claims
    seed: int = 0  # of the first repetition

    def pick(self, full: Any, quick: Any) -> Any:
        """One of two sizes."""
        return quick if self.quick else full


class Claim(NamedTuple):
    """A statement that the experiment could have refuted."""

    text: str
    measured: str  # the figure it was held against, as a person reads it
    holds: bool


class Table(NamedTuple):
    """Rows under named columns; numbers stay numbers until they are printed."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def markdown(self) -> str:
        """The table as Markdown, numbers to five digits."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return f"**{self.title}**\n\n" + "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


class Findings(NamedTuple):
    """What came out."""

    claims: Sequence[Claim]
    tables: Sequence[Table]
    figure: Figure


class Experiment(NamedTuple):
    """A named experiment."""

    name: str
    summary: str  # the claim in one line, for `mbkit list experiments`
    run: Callable[[Setting], Findings]


_EXPERIMENTS: dict[str, Experiment] = {}


def experiment(name: str, summary: str) -> Callable[[Callable[[Setting], Findings]], Callable[[Setting], Findings]]:
    """Decorator: file the function as the experiment `name`."""

    def file(run: Callable[[Setting], Findings]) -> Callable[[Setting], Findings]:
        _EXPERIMENTS[name] = Experiment(name, summary, run)
        return run

    return file


def registered() -> list[Experiment]:
    """Every experiment, by name."""
    return sorted(_EXPERIMENTS.values(), key=lambda e: e.name)


def find(name: str) -> list[Experiment]:
    """The experiment of that name, or every one for "all"; UserError with the nearest name where there is none."""
    if name == "all":
        return registered()
    if name not in _EXPERIMENTS:
        raise UserError(f"unknown experiment {name!r}; {nearest(name, [*_EXPERIMENTS, 'all'])}")
    return [_EXPERIMENTS[name]]


def make_folder(folder: Path) -> None:
    """Where the files are to lie, made before minutes are spent on measuring; UserError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        why = "" if os.access(folder, os.W_OK) else "it cannot be written to"
    except OSError as error:
        why = "it is a file" if folder.is_file() else error.strerror or str(error)
    if why:
        raise UserError(f"--out {folder}: expected a folder to write into, but {why}")


def save(what: Experiment, findings: Findings, setting: Setting, seconds: float, folder: Path) -> list[Path]:
    """Write NAME.json, NAME.md and NAME.png into `folder`; each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{what.name}.{kind}" for kind in ("json", "md", "png")]
    write_text(files[0], as_json(what, findings, setting, seconds))
    write_text(files[1], as_markdown(what, findings, setting, seconds))
    save_png(findings.figure, files[2])
    return files


def as_json(what: Experiment, findings: Findings, setting: Setting, seconds: float) -> str:
    """Everything measured, as JSON."""
    tables = [{"title": t.title, "columns": list(t.columns), "rows": [list(row) for row in t.rows]} for t in findings.tables]
    claims = [c._asdict() for c in findings.claims]
    found = {"experiment": what.name, "summary": what.summary, **setting._asdict(), "seconds": seconds, "claims": claims, "tables": tables}
    return json.dumps(plain(found), indent=1) + "\n"


def as_markdown(what: Experiment, findings: Findings, setting: Setting, seconds: float) -> str:
    """The same for a reader."""
    how = f"`mbkit theory {what.name}{' --quick' * setting.quick} --seed {setting.seed}`, {seconds:.1f} s"
    claims = "".join(f"- {'holds' if c.holds else '**FAILS**'}: {c.text} ({c.measured})\n" for c in findings.claims)
    tables = "\n".join(table.markdown() for table in findings.tables)
    return f"# {what.name}\n\n{what.summary}.\n\n{how}\n\n{claims}\n{tables}\n![{what.name}]({what.name}.png)\n"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
