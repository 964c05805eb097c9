"""Commands that show what there is: list, config."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mbkit import config as configuration
from mbkit import registry
from mbkit.cli.app import Options, app, say
from mbkit.cli.experiments import experiments
from mbkit.config.describe import describe
from mbkit.errors import UserError

LISTED = {
    "agents": registry.agents,
    "recipes": registry.recipes,
    "dynamics": registry.dynamics,
    "planners": registry.planners,
    "critics": registry.critics,
    "gates": registry.gates,
}


@app.command("list")
def list_names(
    what: Annotated[str, typer.Argument(help="agents, recipes, dynamics, planners, critics, gates, envs or experiments")],
) -> None:
    """Which names there are."""
    if what == "envs":
        from mbkit import envs

        rows = envs.available()
    elif what == "experiments":
        rows = [(listed.name, listed.summary) for listed in experiments()]
    elif what in LISTED:
        rows = [(entry.name, entry.summary) for entry in LISTED[what]]
    else:
        raise UserError(f"cannot list {what!r}; {registry.nearest(what, [*LISTED, 'envs', 'experiments'])}")
    print_table(["name", "what it is"], [list(row) for row in rows])


@app.command()
def config(
    algo: Annotated[str, typer.Argument(help="an algorithm")],
    options: Options = None,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="print the composed YAML instead")] = False,
) -> None:
    """Every option of ALGO that counts, with its value, range and meaning; preset and options applied."""
    experiment = configuration.compose(algo, options or [])
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
