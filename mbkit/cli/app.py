"""The `mbkit` command: a user's mistake ends with status 2 and one line on stderr, an interrupted run with 130, a crash with 1."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from typer.exceptions import TyperException

import mbkit
from mbkit import config as configuration
from mbkit import envs, registry, run
from mbkit.config.describe import describe
from mbkit.errors import UserError
from mbkit.report import write_report
from mbkit.tabular.mdp import TabularError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Model-based reinforcement learning on PyTorch and MuJoCo.",
)
LISTED = {"agents": registry.agents, "recipes": registry.recipes, "dynamics": registry.dynamics, "planners": registry.planners}
Words = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="options; `mbkit config ALGO` lists them all")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="a run directory")]


def say(text: str) -> None:
    """One line to the user, on stdout."""
    typer.echo(text)


def tell(finished: run.Run, report: Path) -> None:
    """What came out, and where it is."""
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
def train(algo: Annotated[str, typer.Argument(help="`mbkit list recipes` shows them")], words: Words = None) -> None:
    """Train ALGO; a preset in configs/ALGO/ENV.yaml is picked up by itself."""
    finished = run.train(algo, *(words or []))
    tell(finished, write_report([finished.path]))


@app.command()
def resume(directory: RunDir, words: Words = None) -> None:
    """Go on from the last checkpoint, bit for bit; with steps=M further than planned."""
    finished = run.resume(directory, *(words or []))
    tell(finished, write_report([finished.path]))


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


@app.command()
def report(
    directories: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run directories")],
    out: Annotated[Path | None, typer.Option(help="where to write the page")] = None,
) -> None:
    """One HTML page: curves with intervals, model diagnostics, video, configuration."""
    say(str(write_report(directories, out)))


@app.command()
def theory(
    name: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="`mbkit list experiments` shows them; all: every one")],
    quick: Annotated[bool, typer.Option("--quick", help="smaller problems and fewer seeds")] = False,
    seed: Annotated[int, typer.Option(min=0, help="of the first repetition")] = 0,
    out: Annotated[Path, typer.Option(help="folder of tables and figures")] = Path("runs/theory"),
) -> None:
    """Check a claim of theory; writes EXPERIMENT.json, EXPERIMENT.md and EXPERIMENT.png."""
    from mbkit import theory as experiments  # matplotlib, and every experiment: a second that other commands need not wait for

    setting, failed = experiments.Setting(quick, seed), 0
    chosen = experiments.find(name)
    experiments.make_folder(out)
    for what in chosen:
        began = time.perf_counter()
        findings = what.run(setting)
        files = experiments.save(what, findings, setting, seconds := time.perf_counter() - began, out)
        say(f"{what.name}: {what.summary} ({seconds:.1f} s)")
        for claim in findings.claims:
            failed += not claim.holds
            say(f"  {'holds' if claim.holds else 'FAILS'}: {claim.text} ({claim.measured})")
        say(f"  {files[1]}")
    if failed:
        say(f"{failed} claim{'s' * (failed > 1)} did not hold")
        raise typer.Exit(1)


@app.command("list")
def list_names(what: Annotated[str, typer.Argument(help="agents, recipes, dynamics, planners, envs or experiments")]) -> None:
    """Which names there are."""
    if what == "envs":
        rows = envs.available()
    elif what == "experiments":
        from mbkit import theory as experiments

        rows = [(e.name, e.summary) for e in experiments.registered()]
    elif what in LISTED:
        rows = [(entry.name, entry.summary) for entry in LISTED[what]]
    else:
        raise UserError(f"cannot list {what!r}; {registry.nearest(what, [*LISTED, 'envs', 'experiments'])}")
    print_table(["name", "what it is"], [list(row) for row in rows])


@app.command()
def config(
    algo: Annotated[str, typer.Argument(help="an algorithm")],
    words: Words = None,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="print the composed YAML instead")] = False,
) -> None:
    """Every option of ALGO with its value, range and meaning, preset and words applied."""
    experiment = configuration.compose(algo, words or [])
    if as_yaml:
        say(configuration.to_yaml(experiment).rstrip())
        return
    rows = [[d.key, str(d.value), " ".join([d.kind, d.limits]).strip(), d.meaning] for d in describe(experiment)]
    print_table(["option", "value", "type", "meaning"], rows)


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """A plain table, as wide as the terminal."""
    table = Table(box=None, pad_edge=False)
    for n, column in enumerate(columns):
        table.add_column(column, no_wrap=n == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160, markup=False, highlight=False).print(table)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    """Model-based reinforcement learning on PyTorch and MuJoCo."""
    if version:
        say(mbkit.__version__)


def main() -> None:
    """Entry point of the `mbkit` command."""
    try:
        status = app(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except TyperException as error:  # the command line itself was mistyped
        if error.format_message():
            typer.echo(f"mbkit: {error.format_message()} (`mbkit --help` shows the commands)", err=True)
        sys.exit(2)
    except (UserError, TabularError) as error:
        typer.echo(f"mbkit: {error}", err=True)
        sys.exit(2)
    except run.Interrupted as interrupted:
        typer.echo(f"mbkit: {interrupted}", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
