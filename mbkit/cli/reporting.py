"""The command that writes reports."""

from pathlib import Path
from typing import Annotated

import typer

from mbkit.cli.app import app, say
from mbkit.errors import UserError


@app.command()
def report(
    directories: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run directories, or directories with runs below them")],
    out: Annotated[Path | None, typer.Option(help="path of the page")] = None,
    beside: Annotated[
        list[Path] | None, typer.Option(metavar="CSV", help="published curves, laid beside ours; CSV@METRIC names their metric")
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="also write our curves in the form of published ones")] = None,
    pictures: Annotated[
        bool | None, typer.Option(help="predictions of the model along an episode; by default of a lone run with a model")
    ] = None,
) -> None:
    """One HTML page: scores and curves with intervals, methods compared, model diagnostics, video, configuration."""
    from mbkit.recording import shown
    from mbkit.report import write_report
    from mbkit.report.gather import run_directories

    if out is not None and csv is not None and out.absolute() == csv.absolute():
        raise UserError(f"--out and --csv are both {shown(out)}: expected two files")
    several = len(directories) > 1 or len(run_directories(directories)[0]) > 1
    shows = not several if pictures is None else pictures
    say(shown(write_report(directories, out, beside=beside or (), csv=csv, pictures=shows)))
