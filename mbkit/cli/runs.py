"""Commands on runs: train, resume, finetune. Options are checked before run and report, and with them the simulators, are imported."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbkit import config
from mbkit.cli.app import Options, RunDir, app, say
from mbkit.cli.completing import algorithms
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
    if "distilled_return_mean" in summary:
        say(f"distilled policy: return {summary['distilled_return_mean']:.1f} ± {summary['distilled_return_std']:.1f}")
    for note in finished.notes:
        say(note)
    say(f"run:    {shown(finished.path)}")
    say(f"report: {shown(report)}")


@app.command()
def train(
    algo: Annotated[str, typer.Argument(help="`mbkit list recipes` and `mbkit list agents` show them", autocompletion=algorithms)],
    options: Options = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train ALGO; a preset in configs/ALGO/ENV.yaml is used by itself. With seeds=11,12,13 several seeds learn side by side."""
    chosen = level(quiet, verbose)
    _, plain, _ = config.taken_seeds(options or [], {})
    if not any(option.startswith("data=") for option in plain):  # with data= its file is read first, which names the environment
        config.compose(algo, plain)

    from mbkit import run
    from mbkit.recording.progress import verbosity

    with verbosity(chosen):
        trained = run.train(algo, *(options or []))
        for each in trained if isinstance(trained, list) else [trained]:
            conclude(each)


@app.command()
def resume(
    directory: RunDir,
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]... [KEY=VALUE]...", help="further seeds that were trained side by side; options")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Go on from the last checkpoint, bit for bit; with steps=M further than planned, with threads=N on another number of threads."""
    chosen = level(quiet, verbose)
    others, changes = [one for one in options or [] if "=" not in one], [one for one in options or [] if "=" in one]
    config.parse_resumption(changes)

    from mbkit import run
    from mbkit.recording.progress import verbosity

    with verbosity(chosen):
        for each in run.resume([directory, *others], *changes) if others else [run.resume(directory, *changes)]:
            conclude(each)


@app.command()
def finetune(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="a run directory, RUN@best or RUN@STEP")],
    options: Options = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """The agent of RUN goes on learning in its environment, steps=N, with the data set in loop.offline_ratio of each batch."""
    chosen = level(quiet, verbose)

    from mbkit import run
    from mbkit.recording.progress import verbosity

    with verbosity(chosen):
        conclude(run.finetune(directory, *(options or [])))
