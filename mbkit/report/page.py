"""One HTML page from run directories: self-contained, readable offline, light or dark."""

import base64
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mbkit.errors import UserError
from mbkit.report.collect import Group, Run, group_runs, number, read_run
from mbkit.report.command import command, full_command
from mbkit.report.curves import diagnostic, final_score
from mbkit.report.figure import SERIES, save_png, svg
from mbkit.report.plots import Plot
from mbkit.report.sections import IMAGINATION, LEARNER, LEARNING, MODEL, PLANNER, Slot
from mbkit.storage import write_text

EMBED_BYTES = 8 * 2**20  # larger videos are linked
TOKEN = re.compile(
    r"(?P<comment>(?:^|(?<=\s))#.*$)|(?P<key>[\w./-]+(?=:(?:\s|$)))|(?P<text>'[^'\n]*'|\"[^\"\n]*\")"
    r"|(?P<word>\b(?:true|false|null)\b)|(?P<num>(?<![\w.])-?\d[\d_]*\.?\d*(?:[eE][+-]?\d+)?(?![\w.]))",
    re.MULTILINE,
)


class Clip(NamedTuple):
    """A video as the page shows it."""

    source: str  # data: URI, or a relative link
    poster: str | None
    caption: str


class Figures(NamedTuple):
    """A section's figures, and short lines for those that are missing."""

    plots: list[Plot]
    absent: list[str]


def write_report(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Write one page on one or several runs and return its path.

    Seeds of one experiment are summarised together, different experiments overlaid. By default the page lies in the run directory, or in
    the directory that all runs share. The figures of a lone run are saved as PNG under its plots/ as well.

    Raises UserError: no run, a path that is no run directory, a run without metrics, runs of different environments, unwritable `out`.
    """
    paths = list(dict.fromkeys(Path(path).resolve() for path in run_dirs))
    if not paths:
        raise UserError("a report needs at least one run directory, none was given")
    runs = [read_run(path) for path in paths]
    groups = group_runs(runs)
    out = Path(out) if out else Path(os.path.commonpath(paths)) / "report.html"
    drawn = {name: draw(slots, groups) for name, slots in applicable(groups).items()}
    sections = {name: figures for name, figures in drawn.items() if figures.plots or figures.absent}
    html = render(groups, sections, out.resolve().parent)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror})") from error
    write_text(out, html)
    if len(runs) == 1 and os.access(paths[0], os.W_OK):  # an archived run may be read-only
        save_plots(paths[0] / "plots", sections)
    return out


def applicable(groups: Sequence[Group]) -> dict[str, list[Slot]]:
    """What each section may show: no model figures for a model-free run, none on fitting for ground-truth dynamics."""
    runs = [run for group in groups for run in group.runs]
    learned = any(run.part("dynamics") not in (None, "mujoco") or _logs(run, "model/", "diagnose/") for run in runs)
    planned = any(run.part("planner") or _logs(run, "plan/") for run in runs)
    model, planner = MODEL if learned else [], PLANNER if planned else []
    return {"Learning": LEARNING, "The learner": LEARNER, "The model": model, "Imagination": IMAGINATION, "The planner": planner}


def _logs(run: Run, *prefixes: str) -> bool:
    return any(key.startswith(prefixes) for row in run.rows for key in row)


def draw(slots: Sequence[Slot], groups: Sequence[Group]) -> Figures:
    """Draw what can be drawn."""
    drawn = [(slot, slot.draw(groups)) for slot in slots]
    return Figures([plot for _, plot in drawn if plot], [slot.absent for slot, plot in drawn if not plot and slot.absent])


def save_plots(folder: Path, sections: dict[str, Figures]) -> None:
    """Save every figure as PNG."""
    folder.mkdir(exist_ok=True)
    for figures in sections.values():
        for plot in figures.plots:
            save_png(plot.figure, folder / f"{plot.name}.png")


def render(groups: Sequence[Group], sections: dict[str, Figures], folder: Path) -> str:
    """The page as HTML; links are relative to `folder`."""
    jinja = Environment(
        loader=PackageLoader("mbkit.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    jinja.filters.update(num=num, seconds=duration, svg=lambda plot: Markup(svg(plot.figure, plot.name)), yaml=highlight)
    runs = [run for group in groups for run in group.runs]
    return jinja.get_template("template.html.j2").render(
        groups=groups,
        runs=runs,
        run=runs[0],
        sections=sections,
        clips=[clip(run, video, folder, group.label) for group in groups for run, video in best_videos(group, len(runs))],
        score=final_score,
        command=command,
        full_command=full_command,
        notes=[note for run in runs for note in remarks(run, len(runs) == 1)],
        versions=versions(runs),
        model_numbers=model_numbers(groups),
        series=len(SERIES),
        isfinite=math.isfinite,
    )


def model_numbers(groups: Sequence[Group]) -> list[tuple[str, float]]:
    """What diagnostics.json says of the final model in single numbers, averaged over seeds; for a lone experiment only."""
    if len(groups) != 1:
        return []
    found = [run.diagnostics.get("holdout") for run in groups[0].runs]
    parts = [part for part in found if isinstance(part, dict)]
    named = [
        (name, [number(part.get(key)) for part in parts])
        for name, key in (("Mean squared error", "mse"), ("Negative log-likelihood", "nll"))
    ]
    numbers = [(name, float(np.nanmean(values))) for name, values in named if np.isfinite(values).any()]
    if ahead := diagnostic(groups[0], "horizon", "steps", "median"):
        numbers += [
            (f"Median error {ahead[0][i]:.0f} {'step' if ahead[0][i] == 1 else 'steps'} ahead", float(ahead[1][i]))
            for i in sorted({0, len(ahead[0]) - 1})
        ]
    return numbers


def best_videos(group: Group, runs: int) -> list[tuple[Run, Path]]:
    """All videos of a lone run, latest first; of a group, the last video of its best run."""
    if runs == 1:
        return [(group.runs[0], video) for video in reversed(group.runs[0].videos)]
    filmed = [run for run in group.runs if run.videos]
    best = max(filmed, key=lambda run: (math.isfinite(run.final()[0]), run.final()[0]), default=None)
    return [(best, best.videos[-1])] if best else []


def clip(run: Run, video: Path, folder: Path, label: str) -> Clip:
    """The video, embedded if small enough."""
    poster = video.with_suffix(".png")
    image = "data:image/png;base64," + base64.b64encode(poster.read_bytes()).decode() if poster.is_file() else None
    if video.stat().st_size <= EMBED_BYTES:
        source = "data:video/mp4;base64," + base64.b64encode(video.read_bytes()).decode()
    else:
        source = quote(Path(os.path.relpath(video, folder)).as_posix())
    return Clip(source, image, f"{label}, seed {run.seed}: {video.stem.replace('-', ' ').replace('_', ' ')}")


def remarks(run: Run, alone: bool) -> list[str]:
    """What a reader should know about an unusual run."""
    who = "This run" if alone else f"{run.algo}, seed {run.seed} ({run.path.name})"
    planned = f" of {run.planned}" if run.planned else ""
    cut = [] if run.finished else [f"{who} has not finished: this page shows it up to step {run.steps}{planned}."]
    bad = [f"{who}: {run.unreadable} unreadable line{'s' * (run.unreadable > 1)} of metrics.jsonl left out."] if run.unreadable else []
    said = run.summary.get("notes")
    return cut + bad + ([f"{who}: {note}." for note in said] if isinstance(said, list) else [])


def versions(runs: Sequence[Run]) -> dict[str, str]:
    """Library versions; where runs differ, all of them."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        recorded = run.summary.get("versions")
        for name, version in recorded.items() if isinstance(recorded, dict) else ():
            if version is not None:
                found.setdefault(name, {})[str(version)] = None
    return {name: ", ".join(values) for name, values in found.items()}


def num(value: float | None, digits: int = 4) -> str:
    """A number for a person: 12 345, 987.6, 0.0123; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == int(value) or abs(value) >= 10 ** (digits - 1):
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits}g}" if abs(value) < 1 else f"{value:.{max(0, digits - 1 - int(math.log10(abs(value))))}f}"
    return text.replace(",", "\u202f").replace("-", "\u2212")


def duration(seconds: float) -> str:
    """41 s, 6 min 20 s, 3 h 05 min."""
    if not math.isfinite(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def highlight(text: str) -> Markup:
    """YAML with its keys, numbers, words, strings and comments marked."""
    parts, at = [], 0
    for match in TOKEN.finditer(text):
        parts += [escape(text[at : match.start()]), Markup("<i class={}>{}</i>").format(match.lastgroup, match.group())]
        at = match.end()
    return Markup("").join([*parts, escape(text[at:])])
