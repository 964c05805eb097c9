"""The command that writes reports."""

from pathlib import Path
from typing import Annotated

import typer

from mbkit.cli.app import app, say


@app.command()
def report(
    directories: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run directories")],
    out: Annotated[Path | None, typer.Option(help="path of the page")] = None,
) -> None:
    """One HTML page: curves with intervals, model diagnostics, video, configuration."""
    from mbkit.recording import shown
    from mbkit.report import write_report

    say(shown(write_report(directories, out)))
