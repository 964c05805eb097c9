"""Commands on runs: train, resume, evaluate."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mbkit import run
from mbkit.cli.app import Options, RunDir, app, say
from mbkit.report import write_report


def conclude(finished: run.Run, report: Path) -> None:
    """The score, the notes and where everything is."""
    summary = finished.summary()
    say(
        f"return {summary['eval_return_mean']:.1f} ± {summary['eval_return_std']:.1f} over {summary['eval_episodes']} fresh episodes "
        f"after {summary['steps']} steps, {summary['wall_seconds']:.0f} s"
    )
    for note in finished.notes:
        say(note)
    say(f"run:    {finished.path}")
    say(f"report: {report}")


@app.command()
def train(
    algo: Annotated[str, typer.Argument(help="`mbkit list recipes` and `mbkit list agents` show them")], options: Options = None
) -> None:
    """Train ALGO; a preset in configs/ALGO/ENV.yaml is used by itself."""
    finished = run.train(algo, *(options or []))
    conclude(finished, write_report([finished.path]))


@app.command()
def resume(directory: RunDir, options: Options = None) -> None:
    """Go on from the last checkpoint, bit for bit; with steps=M further than planned."""
    finished = run.resume(directory, *(options or []))
    conclude(finished, write_report([finished.path]))


@app.command()
def evaluate(
    directory: RunDir,
    episodes: Annotated[int, typer.Option(min=1, help="episodes, all on fresh seeds")] = 10,
    video: Annotated[bool, typer.Option("--video", help="also film one episode")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Deterministic returns of a trained run on fresh evaluation seeds."""
    result = run.evaluate(directory, episodes=episodes, video=video)
    if as_json:
        say(json.dumps(result))
        return
    say(f"return {result['return_mean']:.1f} ± {result['return_std']:.1f} over {episodes} episodes of {result['length_mean']:.0f} steps")
    if video:
        say(str(result["video"]))
