"""Commands on runs: train, resume, evaluate. Options are checked before run and report, and with them the simulators, are imported."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from mbkit import config
from mbkit.cli.app import Options, RunDir, app, say
from mbkit.errors import UserError

if TYPE_CHECKING:
    from mbkit.recording.progress import Verbosity
    from mbkit.run import Run

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress, only the result")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="also every line of metrics")]


def level(quiet: bool, verbose: bool) -> "Verbosity":
    """How much a run says, from two switches; UserError where both are set."""
    if quiet and verbose:
        raise UserError("--quiet and --verbose contradict one another; expected at most one of them")
    return "quiet" if quiet else "verbose" if verbose else "normal"


def conclude(finished: "Run") -> None:
    """Write the report, then the score, the notes and where everything is."""
    from mbkit.loops.interrupt import interrupted
    from mbkit.recording import shown
    from mbkit.recording.progress import say as tell
    from mbkit.report import write_report

    tell("writing the report")
    with interrupted(lambda: f"the run in {shown(finished.path)} is finished, `mbkit report {shown(finished.path)}` writes its report"):
        report = write_report([finished.path])
    summary = finished.summary()
    after = f"after {summary['steps']} {finished.unit}s, {summary['wall_seconds']:.0f} s"
    if summary["eval_return_mean"] is None:
        say(f"not scored {after}")
    else:
        score = f"return {summary['eval_return_mean']:.1f} ± {summary['eval_return_std']:.1f}"
        say(f"{score} over {summary['eval_episodes']} fresh episodes {after}")
    for note in finished.notes:
        say(note)
    say(f"run:    {shown(finished.path)}")
    say(f"report: {shown(report)}")


@app.command()
def train(
    algo: Annotated[str, typer.Argument(help="`mbkit list recipes` and `mbkit list agents` show them")],
    options: Options = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train ALGO; a preset in configs/ALGO/ENV.yaml is used by itself."""
    chosen = level(quiet, verbose)
    if not any(option.startswith("data=") for option in options or []):  # with data= its file is read first, which names the environment
        config.compose(algo, options or [])

    from mbkit import run
    from mbkit.recording.progress import verbosity

    with verbosity(chosen):
        conclude(run.train(algo, *(options or [])))


@app.command()
def resume(directory: RunDir, options: Options = None, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Go on from the last checkpoint, bit for bit; with steps=M further than planned, with threads=N on another number of threads."""
    chosen = level(quiet, verbose)
    config.parse_resumption(options or [])

    from mbkit import run
    from mbkit.recording.progress import verbosity

    with verbosity(chosen):
        conclude(run.resume(directory, *(options or [])))


@app.command()
def evaluate(
    directory: RunDir,
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="env_kwargs.* that differ from training, device=cpu|cuda")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="episodes, all on fresh seeds")] = 10,
    checkpoint: Annotated[str, typer.Option(metavar="last|best|STEP", help="stored checkpoint")] = "last",
    seed: Annotated[int | None, typer.Option(help="random seed of the evaluation, by default the run's")] = None,
    video: Annotated[bool, typer.Option("--video", help="also film one episode")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Deterministic returns of a trained run on fresh evaluation seeds."""
    from mbkit import run

    changes = run.evaluation_options(directory, options or [])
    result = run.evaluate(directory, episodes=episodes, video=video, checkpoint=checkpoint, seed=seed, **changes)
    if as_json:
        say(json.dumps(result))
        return
    say(f"return {result['return_mean']:.1f} ± {result['return_std']:.1f} over {episodes} episodes of {result['length_mean']:.0f} steps")
    if "note" in result:
        say(result["note"])
    if video:
        say(str(result["video"]))
