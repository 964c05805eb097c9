"""One self-contained HTML page from run directories: readable offline, in a light and a dark scheme."""

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
from mbkit.paths import check_file, is_file, make_folder, resolved
from mbkit.report.collect import Group, RunRecord, group_runs, number, read_run, unit_of
from mbkit.report.command import command, full_command
from mbkit.report.curves import final_score
from mbkit.report.figure import SERIES, save_png, svg
from mbkit.report.plots import Plot
from mbkit.report.remarks import remarks
from mbkit.report.sections import SECTIONS, Slot
from mbkit.storage import write_text

EMBED_BYTES = 8 * 2**20  # larger videos are linked
TOKEN = re.compile(
    r"(?P<comment>(?:^|(?<=\s))#.*$)|(?P<key>[\w./-]+(?=:(?:\s|$)))|(?P<text>'[^'\n]*'|\"[^\"\n]*\")"
    r"|(?P<word>\b(?:true|false|null)\b)|(?P<num>(?<![\w.])-?\d[\d_]*\.?\d*(?:[eE][+-]?\d+)?(?![\w.]))",
    re.MULTILINE,
)


class Clip(NamedTuple):
    """A video on the page."""

    source: str  # data: URI, or a relative link
    poster: str | None
    caption: str


class Figures(NamedTuple):
    """A section's figures, the numbers in place of those with a single point, and the lines in place of those without data."""

    plots: list[Plot]
    numbers: list[tuple[str, str]]
    absent: list[str]


def write_report(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Write one page on one or several runs and return its path.

    The seeds of one experiment are summarised, different experiments are overlaid. By default the page lies in the run directory, or in the
    directory that all runs share. The figures of a lone run are also saved as PNG in its plots/.

    Raises UserError: no run, a path that is not a run directory, a run without metrics, runs of different environments, unwritable `out`.
    """
    paths = list(dict.fromkeys(map(resolved, run_dirs)))
    if not paths:
        raise UserError("a report needs at least one run directory, none was given")
    runs = [read_run(path) for path in paths]
    groups = group_runs(runs)
    out = Path(out) if out else Path(os.path.commonpath(paths)) / "report.html"
    check_file(out, makes_folders=True)
    sections = draw_sections(groups)
    html = render(groups, sections, resolved(out).parent)
    plots = paths[0] / "plots" if len(runs) == 1 and os.access(paths[0], os.W_OK) else None  # an archived run may be read-only
    for folder in (out.parent, plots):
        if folder is not None:
            make_folder(folder)
    write_text(out, html)
    if plots is not None:
        save_plots(plots, sections)
    return out


def draw_sections(groups: Sequence[Group]) -> dict[str, Figures]:
    """All sections that have something to show."""
    drawn = {name: draw(slots, groups) for name, slots in applicable(groups).items()}
    if all(run.env == "none" for group in groups for run in group.runs):
        unscored = "Not scored: the run has no environment. `mbkit evaluate RUN --data FILE --method fqe` estimates what its policy earns."
        drawn["Learning"] = Figures([], [], [unscored])
    if numbers := data_numbers(groups):
        drawn = {"The data set": Figures([], numbers, [])} | drawn
    if "The model" in drawn:
        drawn["The model"].numbers.extend(model_numbers(groups))
    return {name: figures for name, figures in drawn.items() if any(figures)}


def applicable(groups: Sequence[Group]) -> dict[str, list[Slot]]:
    """The sections of these runs: the model's only where one is learned, the planner's only where plans are made."""
    runs = [run for group in groups for run in group.runs]
    learned = any(run.part("dynamics") not in (None, "mujoco") or _logs(run, "model/", "diagnose/") for run in runs)
    planned = any(run.part("planner") or _logs(run, "plan/") for run in runs)
    shown = {"The model": learned, "The planner": planned}
    return {name: slots for name, slots in SECTIONS.items() if shown.get(name, True)}


def _logs(run: RunRecord, *prefixes: str) -> bool:
    return any(key.startswith(prefixes) for row in run.rows for key in row)


def draw(slots: Sequence[Slot], groups: Sequence[Group]) -> Figures:
    """Draw the figures of a section for which there is data; what is a single point becomes a number."""
    numbers = [slot.numbers(groups) for slot in slots]
    drawn = [(slot, slot.draw(groups)) for slot, pairs in zip(slots, numbers, strict=True) if not pairs]
    plots = [plot for _, plot in drawn if plot]
    return Figures(plots, [pair for pairs in numbers for pair in pairs], [slot.absent for slot, plot in drawn if not plot and slot.absent])


def save_plots(folder: Path, sections: dict[str, Figures]) -> None:
    """Save every figure as PNG."""
    for figures in sections.values():
        for plot in figures.plots:
            save_png(plot.figure, folder / f"{plot.name}.png")


def render(groups: Sequence[Group], sections: dict[str, Figures], folder: Path) -> str:
    """The page as HTML; links are relative to `folder`."""
    runs = [run for group in groups for run in group.runs]
    return (
        templates()
        .get_template("template.html.j2")
        .render(
            groups=groups,
            runs=runs,
            run=runs[0],
            sections=sections,
            clips=[clip(run, video, folder, group.label) for group in groups for run, video in best_videos(group, len(runs))],
            score=final_score,
            unit=unit_of(groups),
            without_environment=all(run.env == "none" for run in runs),
            command=command,
            full_command=full_command,
            notes=remarks(runs),
            versions=versions(runs),
            series=len(SERIES),
            isfinite=math.isfinite,
        )
    )


def templates() -> Environment:
    """The templates of this package, with the filters that they use."""
    jinja = Environment(
        loader=PackageLoader("mbkit.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    jinja.filters.update(num=num, seconds=duration, svg=lambda plot: Markup(svg(plot.figure, plot.name)), yaml=highlight)
    return jinja


def model_numbers(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Diagnostics of the final model in single numbers, averaged over seeds; of a lone experiment only."""
    if len(groups) != 1:
        return []
    sections = [section for run in groups[0].runs if isinstance(section := run.diagnostics.get("one_step"), dict)]
    likelihoods = [number(section.get("nll")) for section in sections]
    if not np.isfinite(likelihoods).any():
        return []
    return [("Negative log-likelihood on evaluation episodes, nats", num(float(np.nanmean(likelihoods)), 3))]


def data_numbers(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """What is known of the data set that all runs learned from; empty where there is none, or several."""
    about = [run.data for group in groups for run in group.runs]
    if not about[0] or any(one.get("sha256") != about[0].get("sha256") for one in about):
        return []
    first, share = about[0], number(about[0].get("share"), 1.0)
    of = f" (the best {100 * share:g}\u00a0% of the episodes)" if share < 1 else ""
    kind = f"{first['choices']} discrete" if first.get("choices") else f"{len(first.get('action_low') or [])} continuous"
    numbers = [
        ("File", Path(str(first.get("path"))).name),
        ("Rows", num(number(first.get("rows")), 12) + of),
        ("Episodes", num(number(first.get("episodes")), 12)),
        ("Observations", num(number(first.get("obs_dim")))),
        ("Actions", kind),
    ]
    mean = number(first.get("return_mean"))
    return [*numbers, ("Mean return of an episode", num(mean))] if math.isfinite(mean) else numbers


def best_videos(group: Group, runs: int) -> list[tuple[RunRecord, Path]]:
    """All videos of a lone run, latest first; of a group, the last video of its best run."""
    if runs == 1:
        return [(group.runs[0], video) for video in reversed(group.runs[0].videos)]
    filmed = [run for run in group.runs if run.videos]
    best = max(filmed, key=lambda run: (math.isfinite(run.final()[0]), run.final()[0]), default=None)
    return [(best, best.videos[-1])] if best else []


def clip(run: RunRecord, video: Path, folder: Path, label: str) -> Clip:
    """The video, embedded if small enough."""
    poster = video.with_suffix(".png")
    image = "data:image/png;base64," + base64.b64encode(poster.read_bytes()).decode() if is_file(poster) else None
    if video.stat().st_size <= EMBED_BYTES:
        source = "data:video/mp4;base64," + base64.b64encode(video.read_bytes()).decode()
    else:
        source = quote(Path(os.path.relpath(video, folder)).as_posix())
    return Clip(source, image, f"{label}, seed {run.seed}: {video.stem.replace('-', ' ').replace('_', ' ')}")


def versions(runs: Sequence[RunRecord]) -> dict[str, str]:
    """Versions of the libraries, comma-separated where runs differ."""
    by_name: dict[str, dict[str, None]] = {}
    for run in runs:
        recorded = run.summary.get("versions")
        for name, version in recorded.items() if isinstance(recorded, dict) else ():
            if version is not None:
                by_name.setdefault(name, {})[str(version)] = None
    return {name: ", ".join(values) for name, values in by_name.items()}


def num(value: float | None, digits: int = 4) -> str:
    """A number as 12 345, 987.6 or 0.0123; a dash where it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == int(value) or abs(value) >= 10 ** (digits - 1):
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits}g}" if abs(value) < 1 else f"{value:.{max(0, digits - 1 - int(math.log10(abs(value))))}f}"
    return text.replace(",", "\u202f").replace("-", "\u2212")


def duration(seconds: float) -> str:
    """A time as 41 s, 6 min 20 s or 3 h 05 min."""
    if not math.isfinite(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def highlight(text: str) -> Markup:
    """YAML as HTML, with its keys, numbers, constants, strings and comments marked for colours."""
    parts, at = [], 0
    for match in TOKEN.finditer(text):
        parts += [escape(text[at : match.start()]), Markup("<i class={}>{}</i>").format(match.lastgroup, match.group())]
        at = match.end()
    return Markup("").join([*parts, escape(text[at:])])
