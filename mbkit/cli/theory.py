"""The command that checks claims of theory."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from mbkit.cli.app import app, say
from mbkit.cli.experiments import check_experiment


@app.command()
def theory(
    name: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="`mbkit list experiments` shows them; all: every one")],
    quick: Annotated[bool, typer.Option("--quick", help="smaller problems and fewer seeds")] = False,
    seed: Annotated[int, typer.Option(min=0, help="random seed of the first repetition")] = 0,
    out: Annotated[Path, typer.Option(help="folder of tables and figures")] = Path("runs/theory"),
) -> None:
    """Check a claim of theory; writes EXPERIMENT.json, EXPERIMENT.md and EXPERIMENT.png."""
    if "mbkit.theory" not in sys.modules:
        check_experiment(name)
    from mbkit import theory as experiments  # matplotlib, and every experiment: a second that other commands need not wait for
    from mbkit.recording import shown

    setting, failed = experiments.Setting(quick, seed), 0
    chosen = experiments.find(name)
    experiments.make_folder(out)
    for experiment in chosen:
        began = time.perf_counter()
        findings = experiment.run(setting)
        files = experiments.save(experiment, findings, setting, seconds := time.perf_counter() - began, out)
        say(f"{experiment.name}: {experiment.summary} ({seconds:.1f} s)")
        for claim in findings.claims:
            failed += not claim.holds
            say(f"  {'holds' if claim.holds else 'FAILS'}: {claim.text} ({claim.measured})")
        say(f"  {shown(files[1])}")
    if failed:
        say(f"{failed} claim{'s' * (failed > 1)} did not hold")
        raise typer.Exit(1)
