"""The page, the figure and the JSON file of `mbkit dynamics report`: a stored model and its penalties on a data set."""

import math
import platform
import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

import mbkit
from mbkit.diagnostics.verdict import DETECTS, RANKS
from mbkit.errors import UserError
from mbkit.paths import check_file, short
from mbkit.recording import shown
from mbkit.report.collect import Group, RunRecord
from mbkit.report.figure import draw_png
from mbkit.report.model_plots import calibration, dimensions, horizon
from mbkit.report.page import templates
from mbkit.report.penalty_plots import Quality, coverage, depths_of, detection, overview, qualities, ranks, shares, tenths
from mbkit.report.plots import Plot
from mbkit.report.text import num
from mbkit.storage import json_text, replacing

SUFFIXES = (".html", ".json", ".png")


class Row(NamedTuple):
    """A penalty in the table."""

    name: str
    cells: list[tuple[str, bool]]  # value, and whether it is the best of its column


def places(file: str | Path, out: str | Path | None = None) -> list[Path]:
    """Paths of the page, of the JSON file and of the figure: beside the model, or beside the page `out`.

    Raises:
        UserError: `out` is no path of a page, or in no directory.
    """
    page = Path(file).with_suffix(".report.html") if out is None else Path(out)
    if page.suffix != ".html" or not page.stem:
        raise UserError(f"--out names the page: expected FILE.html, came {short(page)}")
    check_file(page)
    return [page.with_suffix(suffix) for suffix in SUFFIXES]


def write_model_report(facts: Mapping[str, Any], paths: list[Path]) -> list[Path]:
    """Write page, JSON file and figure, all of them or none; returns those that were written: without a penalty there is no figure.

    Args:
        facts: contents of the JSON file, as `mbkit.run.model_report.report_on` returns them.
        paths: what `places` returns.

    Raises:
        UserError: one of them cannot be written.
    """
    html, text, figure = render_model(facts).encode(), json_text(facts).encode(), overview(facts)
    contents: list[bytes | None] = [html, text, None if figure is None else draw_png(figure)]
    written = [(path, content) for path, content in zip(paths, contents, strict=True) if content is not None]
    with ExitStack() as files:
        streams = [files.enter_context(replacing(path)) for path, _ in written]
        for stream, (_, content) in zip(streams, written, strict=True):
            stream.write(content)
    return [path for path, _ in written]


def render_model(facts: Mapping[str, Any]) -> str:
    """The page as HTML."""
    path, data, rollouts = Path(facts["model"]["path"]), Path(str(facts["data"]["path"])), facts["rollouts"]
    rows = "data that the model was fitted to" if facts["data"]["in_sample"] else f"the episodes of {data.name}"
    page = templates().get_template("dynamics.html.j2")
    return page.render(
        name=path.name,
        data_name=data.name,
        verdict=sentence(facts["verdict"]),
        notes=facts["notes"],
        numbers=headline_numbers(facts),
        depths=depths_of(facts),
        table=table(qualities(facts)),
        medians=[num(value, 3) for value in rollouts["median"]],
        windows=[num(value, 9) for value in rollouts["windows"]],
        penalties=[plot for plot in (ranks(facts), detection(facts), tenths(facts), shares(facts)) if plot],
        model=model_figures(facts, rows),
        coverage=coverage(facts),
        command=shlex.join(["mbkit", "dynamics", "report", shown(path), shown(data)]),
        versions={"mbkit": mbkit.__version__, "torch": torch.__version__, "Python": platform.python_version()},
        sha256=facts["data"]["sha256"][:12],
    )


def sentence(text: str) -> str:
    """A line with a capital letter where it doesn't begin with a name, and a full stop."""
    return (text[0].upper() + text[1:] if text.startswith("no ") else text) + "."


def headline_numbers(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What stands below the verdict."""
    model, data = facts["model"], facts["data"]
    kind = f"{model['members']} {'probabilistic' if model['probabilistic'] else 'deterministic'}, {model['elites']} of them elites"
    numbers = [
        ("Members", kind),
        ("Data", f"{num(data['rows'], 12)} rows, {num(data['episodes'], 12)} episodes"),
        ("Fitted to these rows", "yes" if data["in_sample"] else "no"),
    ]
    gap = facts.get("return_gap")
    return [*numbers, (f"Predicted minus real return, {len(gap['mean'])} steps", num(gap["mean"][-1], 3))] if gap else numbers


def table(penalties: list[Quality]) -> list[Row]:
    """Correlation and AUROC of each penalty at each depth; the best of a column is marked where it says something."""
    least = [limit for limit in (RANKS, DETECTS) for _ in range(len(penalties[0].spearman))] if penalties else []
    columns = zip(*([*q.spearman, *q.auroc] for q in penalties), strict=True)
    best = [max((x for x in column if x >= limit), default=math.nan) for column, limit in zip(columns, least, strict=True)]
    return [Row(q.name, [(two_digits(x), x == top) for x, top in zip([*q.spearman, *q.auroc], best, strict=True)]) for q in penalties]


def two_digits(value: float) -> str:
    """0.71, −0.05; a dash where it is not a number."""
    return f"{value:.2f}".replace("-", "\u2212") if math.isfinite(value) else "–"


def model_figures(facts: Mapping[str, Any], rows: str) -> list[Plot]:
    """Calibration, error against horizon and error of each dimension, on these `rows`; a report's contents serve as a run's diagnostics."""
    alone = RunRecord(Path(facts["model"]["path"]), {}, "", [], 0, {}, dict(facts), [])
    groups = [Group("model", [alone])]
    figures = (partial(horizon, rows=rows), calibration, partial(dimensions, rows=rows))
    return [plot for plot in (draw(groups) for draw in figures) if plot and measured(plot, facts)]


def measured(plot: Plot, facts: Mapping[str, Any]) -> bool:
    """Whether a figure says something: deterministic members state no intervals."""
    return plot.name != "calibration" or bool(facts["model"]["probabilistic"] or facts["model"]["members"] > 1)
