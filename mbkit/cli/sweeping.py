"""The command that trains many runs: sweep."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbkit.cli.app import app, say

if TYPE_CHECKING:
    from mbkit.sweep.api import Execution, Result
    from mbkit.sweep.planning import SweepPlan

CLUSTER = "Cluster"
SEARCH = "Search"


@app.command()
def sweep(
    algorithms: Annotated[str, typer.Argument(metavar="ALGO[,ALGO]...", help="one or several algorithms")],
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=A,B]... [ALGO:KEY=A,B]...", help="options of `mbkit config ALGO`, with one or several values each"),
    ] = None,
    seeds: Annotated[str, typer.Option(metavar="1..5", help="seeds of each combination, such as 1..5 or 1,2,7")] = "0",
    out: Annotated[Path | None, typer.Option(help="directory of the sweep; by default runs/sweep-ALGO-DIGEST")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the table, check every run, and end")] = False,
    workers: Annotated[int | None, typer.Option(help="runs at once; by default as many as there are cores")] = None,
    retries: Annotated[int, typer.Option(help="how often a run that failed is tried again")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="only the result")] = False,
    trials: Annotated[
        int | None, typer.Option(help="trials, where an option is drawn: agent.lr=log(1e-5..1e-3)", rich_help_panel=SEARCH)
    ] = None,
    backend: Annotated[str, typer.Option(help="local, ray or slurm", rich_help_panel=CLUSTER)] = "local",
    address: Annotated[str | None, typer.Option(help="address of a running Ray cluster, or auto", rich_help_panel=CLUSTER)] = None,
    gpus_per_run: Annotated[float, typer.Option(help="GPUs, or a share of one, for each run", rich_help_panel=CLUSTER)] = 0.0,
    slurm: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="parameter of submitit, slurm_partition=gpu", rich_help_panel=CLUSTER)
    ] = None,
) -> None:
    """Train algorithms x options x seeds, or search for options; the same command goes on where it was stopped.

    mbkit sweep mbpo,sac env=Hopper-v5,Walker2d-v5 agent.lr=1e-4,3e-4 mbpo:imagination.horizon=1,2 --seeds 1..5
    """
    from mbkit.sweep.lists import parse_seeds

    chosen = parse_seeds(seeds)

    from mbkit.sweep.api import Execution, checked_execution, execute
    from mbkit.sweep.planning import check_place, default_directory, planned
    from mbkit.sweep.tables import LiveView

    plan = planned(algorithms, options or [], chosen)
    execution = Execution(backend, workers, retries, address, gpus_per_run, tuple(slurm or ()))
    checked = checked_execution(plan, trials, execution)
    directory = out or default_directory(plan)
    check_place(directory, plan)
    if not quiet:
        show_plan(plan, checked, execution, directory)

    from mbkit.sweep.assembling import check_assembly

    if not quiet:
        typer.echo("checking that they can be built", err=True)
    check_assembly(plan)
    if dry_run:
        say("nothing was started; without --dry-run these runs start")
        return
    with LiveView(quiet) as view:
        result = execute(plan, directory, checked, execution, view)
    conclude_sweep(plan, result)


def show_plan(plan: "SweepPlan", trials: int | None, execution: "Execution", directory: Path) -> None:
    """The table of what is going to run, and where and how."""
    from mbkit.recording import shown
    from mbkit.sweep.api import share
    from mbkit.sweep.tables import console, plan_table, plural
    from mbkit.sweep.worker import is_finished

    console().print(plan_table(plan, trials))
    runs = len(plan.groups) * len(plan.seeds) * (trials or 1)
    what = plural(runs, "run") if trials is None else f"at most {plural(runs, 'run')}"
    if execution.backend == "local":
        workers, threads = share(plan, execution)
        typed = any(argument.startswith("threads=") for group in plan.groups for argument in group.arguments)
        how = f"{workers} at once" + ("" if typed else f", {plural(threads, 'thread')} each")
    else:
        how = f"by {execution.backend.capitalize()}"
    finished = sum(is_finished(directory / run.name) for run in plan.runs) if trials is None else 0
    say(f"{what}, {how}, in {shown(directory)}" + (f", {finished} of them finished" if finished else ""))
    if trials is not None and not any(group.eval_every for group in plan.groups):
        say("no trial is pruned, since none is evaluated before its end; eval.every=N prunes")


def conclude_sweep(plan: "SweepPlan", result: "Result") -> None:
    """The table of returns, what failed and why, and the command that writes the report; exit status 1 where a run failed for good."""
    from mbkit.recording import shown
    from mbkit.sweep.tables import console, plural, result_table

    where = shown(result.directory)
    drawn = list(dict.fromkeys(axis.key for grid in plan.grids for axis in grid.searched))
    console().print(result_table(result.rows, drawn))
    if result.trials:
        said = {"complete": "finished", "fail": "failed"}
        say(
            ", ".join(f"{count} {said.get(state, state)}" for state, count in result.trials.items())
            + f" of {plural(sum(result.trials.values()), 'trial')}"
        )
    for group, best in result.best.items():
        options = " ".join(f"{key}={text}" for key, text in best.options.items())
        say(f"best of {group}: trial {best.number}, return {best.value:.1f}: {options}")
    if any(row.runs for row in result.rows):
        say(f"report: mbkit report {where}")
    for name, reason in result.failed.items():
        say(f"failed: {name}: {reason} (log: {where}/{name}.log)")
    if result.failed:
        say(f"{plural(len(result.failed), 'run')} failed; the same command tries {'it' if len(result.failed) == 1 else 'them'} again")
        raise typer.Exit(1)
