"""The command that writes a policy, or a dynamics model, for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from mbkit.cli.app import app, say

Source = Annotated[Path, typer.Argument(metavar="RUN|FILE", help="a run directory, for its policy, or a trained model, a dynamics.pt")]


@app.command()
def export(
    source: Source,
    out: Annotated[Path, typer.Option(help="path of the file, such as policy.onnx, policy.pt2 or model.onnx")],
    checkpoint: Annotated[
        str | None, typer.Option(metavar="last|best|STEP", help="stored checkpoint of a run, by default the last")
    ] = None,
) -> None:
    """The policy of a run, or a dynamics model, as one ONNX or torch.export file, checked against its origin."""
    from mbkit.export import ROWS, is_model
    from mbkit.export import export as write

    exported = write(source, out, checkpoint)
    what = "the dynamics model" if is_model(source) else "the policy"
    origin, where = ("ensemble", "inputs") if is_model(source) else ("run", "observations")
    after = "" if exported.step is None else f" of step {exported.step}"
    say(f"{exported.path}{' (replaced)' * exported.replaced}: {what}{after}")
    say(f"largest difference from the {origin} over {ROWS} {where}: {exported.difference:.2g}")
    for note in exported.notes:
        say(f"note: {note}")
