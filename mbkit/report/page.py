"""One self-contained HTML page from run directories: readable offline, in a light and a dark scheme."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mbkit.errors import UserError
from mbkit.paths import check_file, make_folder, resolved
from mbkit.report.chapters import Chapter, Figures, chapters, compare
from mbkit.report.clips import clips
from mbkit.report.collect import RunRecord, group_runs, unit_of
from mbkit.report.command import command, full_command
from mbkit.report.curves import final_score
from mbkit.report.figure import SERIES, chart, save_png
from mbkit.report.gather import read_runs
from mbkit.report.pictured import pictured
from mbkit.report.plots import Plot
from mbkit.report.published import PublishedCurve, read_published, write_published
from mbkit.report.remarks import remarks
from mbkit.report.scores import MethodScores
from mbkit.report.tables import board, diagnostics, last_metrics, overall
from mbkit.report.text import duration, highlight, num, ranges
from mbkit.storage import write_text


def write_report(
    run_dirs: Sequence[Path],
    out: Path | None = None,
    *,
    beside: Sequence[str | Path] = (),
    csv: Path | None = None,
    pictures: bool = False,
) -> Path:
    """Write one page on one or several runs and return its path.

    The seeds of one experiment are summarised, different experiments are overlaid, environments are chapters. A directory with runs below
    it stands for all of them. By default the page lies in the run directory, or in the directory that all runs share. The figures of a
    lone run are also saved as PNG in its plots/.

    Args:
        run_dirs: run directories, or directories with runs below them.
        out: path of the page.
        beside: CSV files of published curves, FILE or FILE@METRIC, which are drawn beside those of the same environments.
        csv: path to which the evaluations of all runs are written in the form of published curves.
        pictures: load the run, or the best run of each group, and show its model's predictions along an episode; what was computed is
            stored in its pictures/ and read from there later.

    Raises:
        UserError: no run, a path without a run, a run without metrics, a file of curves that cannot be used, unwritable `out` or `csv`.
    """
    if not run_dirs:
        raise UserError("a report needs at least one run directory, none was given")
    runs, notes = read_runs(list(run_dirs))
    paths = [run.path for run in runs]
    groups = group_runs(runs)
    published = beside_all(beside, list(dict.fromkeys(group.env for group in groups)))
    shared = resolved(run_dirs[0]) if len(run_dirs) == 1 else Path(os.path.commonpath(paths))
    out = Path(out) if out else shared / "report.html"
    check_file(out, makes_folders=True)
    parts = chapters(groups, published)
    if pictures:
        parts = [pictured(part, resolved(out).parent) for part in parts]
    html = render(parts, resolved(out).parent, compare(groups), notes)
    plots = paths[0] / "plots" if len(runs) == 1 and os.access(paths[0], os.W_OK) else None  # an archived run may be read-only
    for folder in (out.parent, plots):
        if folder is not None:
            make_folder(folder)
    if csv is not None:
        write_published(Path(csv), groups)
    write_text(out, html)
    if plots is not None:
        save_plots(plots, parts[0].sections)
    return out


def beside_all(files: Sequence[str | Path], environments: Sequence[str]) -> dict[str, list[PublishedCurve]]:
    """The published curves of several files, by the environment of ours."""
    curves: dict[str, list[PublishedCurve]] = {}
    for file in files:
        for env, published in read_published(file, environments).items():
            curves.setdefault(env, []).extend(published)
    return curves


def save_plots(folder: Path, sections: Mapping[str, Figures]) -> None:
    """Save every figure as PNG."""
    for figures in sections.values():
        for plot in figures.plots:
            save_png(plot.figure, folder / f"{plot.name}.png")


def render(parts: Sequence[Chapter], folder: Path, comparison: Figures | None = None, notes: Sequence[str] = ()) -> str:
    """The page as HTML; links are relative to `folder`."""
    groups = [group for part in parts for group in part.groups]
    runs = [run for group in groups for run in group.runs]
    labels = list(dict.fromkeys(group.label for group in groups))
    return (
        templates()
        .get_template("template.html.j2")
        .render(
            chapters=parts,
            comparison=comparison or Figures([], [], []),
            groups=groups,
            labels=labels,
            runs=runs,
            run=runs[0],
            clips=clips(groups, folder),
            score=final_score,
            board=board,
            overall=overall(groups) if len(parts) > 1 else [],
            diagnostics=diagnostics,
            meaning=MethodScores(groups).meaning,
            metrics=last_metrics(groups),
            unit=unit_of(groups),
            without_environment=all(run.env == "none" for run in runs),
            command=command,
            full_command=full_command,
            notes=[*remarks(runs), *notes],
            versions=versions(runs),
            series=len(SERIES),
            isfinite=math.isfinite,
        )
    )


def templates() -> Environment:
    """The templates of this package, with the filters that they use; ids of a page's figures are told apart by their number."""
    jinja = Environment(
        loader=PackageLoader("mbkit.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    names: dict[str, int] = {}

    def inline(plot: Plot) -> Markup:
        number = names[plot.name] = names.get(plot.name, 0) + 1
        return Markup(chart(plot.figure, plot.name if number == 1 else f"{plot.name}-{number}"))

    jinja.filters.update(num=num, seconds=duration, ranges=ranges, svg=inline, yaml=highlight, raw=raw)
    return jinja


def raw(value: float | None) -> str:
    """A number with all its digits, for tables that are copied; empty where it is missing or not finite."""
    return "" if value is None or not math.isfinite(value) else repr(int(value) if value == int(value) else float(value))


def versions(runs: Sequence[RunRecord]) -> dict[str, str]:
    """Versions of the libraries, comma-separated where runs differ."""
    by_name: dict[str, dict[str, None]] = {}
    for run in runs:
        recorded = run.summary.get("versions")
        for name, version in recorded.items() if isinstance(recorded, dict) else ():
            if version is not None:
                by_name.setdefault(name, {})[str(version)] = None
    return {name: ", ".join(values) for name, values in by_name.items()}
