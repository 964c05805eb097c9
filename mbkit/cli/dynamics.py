"""Commands on dynamics models: fit, report."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mbkit.cli.app import app, say
from mbkit.cli.listing import print_table

commands = typer.Typer(no_args_is_help=True, help="Fit dynamics models to data sets, and measure them on others.")
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


@commands.command()
def report(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a model, a dynamics.pt")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="a data set, best one that the model was not fitted to")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="path of the page, by default beside the model; JSON and figure beside it")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the contents of the JSON file instead of a table")] = False,
) -> None:
    """Whether the model in FILE and each of its penalties can be trusted on DATA: error, calibration, rank correlations, coverage."""
    from mbkit.recording.rundir import shown
    from mbkit.report.model_page import places, write_model_report
    from mbkit.run.model_report import report_on
    from mbkit.storage import plain

    paths = places(file, out)
    facts = report_on(file, data)
    written = write_model_report(facts, paths)
    if as_json:
        say(json.dumps(plain(facts), allow_nan=False))
        return
    tell(facts)
    for path in written:
        say(f"{path.suffix[1:] + ':':6}{shown(path)}")


def tell(facts: Mapping[str, Any]) -> None:
    """A table of the penalties, the best at the judged depth first, the verdict and the notes."""
    from mbkit.diagnostics.verdict import by_correlation, judged_depth

    rollouts, penalties = facts["rollouts"], facts["penalties"]
    depths = rollouts["depths"]
    names = by_correlation(penalties, judged_depth(depths))
    rows = [[name, *(two_digits(penalties[name][str(depth)][key]) for key in ("spearman", "auroc") for depth in depths)] for name in names]
    blank = [""] * (len(depths) if names else 0)
    rows.append(["median error", *(f"{error:.3g}" for error in rollouts["median"]), *blank])
    heads = [f"{name} @{depth}" for name in ("rho", "AUROC") for depth in depths] if names else [f"@{depth}" for depth in depths]
    print_table(["penalty" if names else "", *heads], rows)
    say(f"verdict: {facts['verdict']}")
    for note in facts["notes"]:
        say(f"note: {note}")


def two_digits(value: float) -> str:
    """0.71; a dash where it is not a number."""
    return f"{value:.2f}" if math.isfinite(value) else "-"
