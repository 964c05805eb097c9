"""The command that writes a policy for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from mbkit.cli.app import RunDir, app, say


@app.command()
def export(
    directory: RunDir,
    out: Annotated[Path, typer.Option(help="path of the file, policy.onnx or policy.pt2")],
    checkpoint: Annotated[str, typer.Option(metavar="last|best|STEP", help="stored checkpoint")] = "last",
) -> None:
    """The policy of a run as one ONNX or torch.export file, checked against the run."""
    from mbkit.export import ROWS
    from mbkit.export import export as write

    exported = write(directory, out, checkpoint)
    say(f"{exported.path}{' (replaced)' * exported.replaced}: the policy of step {exported.step}")
    say(f"largest difference from the run over {ROWS} observations: {exported.difference:.2g}")
