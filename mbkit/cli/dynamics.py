"""Commands on dynamics models: fit."""

from pathlib import Path
from typing import Annotated

import typer

from mbkit.cli.app import app, say

commands = typer.Typer(no_args_is_help=True, help="Fit dynamics models to data sets.")
app.add_typer(commands, name="dynamics")


@commands.command()
def fit(
    data: Annotated[str, typer.Argument(metavar="DATA", help="a data set: a file or folder of any format")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="the model to write, a dynamics.pt")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="dynamics.*, seed=, threads=, device=, env=")
    ] = None,
) -> None:
    """Fit an ensemble to DATA; `dynamics.load=FILE` hands it to PETS, MBPO and every other consumer of a model."""
    from mbkit.recording.rundir import shown
    from mbkit.run.fitting import fit_dynamics, settings

    settings(options or [], {})
    done = fit_dynamics(data, *(options or []), out=out)
    error, epochs = done.metrics.get("model/holdout_error"), done.metrics.get("model/epochs", 0)
    say(f"{shown(out)}: fitted to {done.rows} rows in {epochs:.0f} epochs")
    if error is not None:
        say(f"hold-out error: {error:.3g} standard deviations of what happens in a step; 1 is no better than its mean")
    for note in done.notes:
        say(f"note: {note}")
