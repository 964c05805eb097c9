"""Commands that show what there is: list, config."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mbkit import config as configuration
from mbkit import registry
from mbkit.cli.app import Options, app, say
from mbkit.cli.completing import algorithms, lists
from mbkit.cli.experiments import experiments
from mbkit.config.describe import Described, describe, kind_text, origins, value_of_option
from mbkit.config.reading import preset_text
from mbkit.errors import UserError

LISTED = {
    "agents": registry.agents,
    "recipes": registry.recipes,
    "dynamics": registry.dynamics,
    "planners": registry.planners,
    "critics": registry.critics,
    "gates": registry.gates,
}


MARKS = {"default": (" ", "the default"), "preset": ("*", "set by the preset"), "typed": (">", "typed here")}
GROUPED = {"": "experiment", "eval": "evaluation", "checkpoint": "checkpoints"}  # headings of groups that are not their names
WIDEST = 32  # columns that the cells of a column are brought to at most
WIDE = 110  # columns from which on a preset's description stands beside it


@app.command("list")
def list_names(
    what: Annotated[
        str, typer.Argument(help="agents, recipes, dynamics, planners, critics, gates, envs, presets or experiments", autocompletion=lists)
    ],
    algo: Annotated[str | None, typer.Argument(help="of presets: those of one algorithm", autocompletion=algorithms)] = None,
) -> None:
    """Which names there are."""
    if algo is not None and what != "presets":
        raise UserError(f"list {what} takes no algorithm, came {algo!r}; `mbkit list presets {algo}` lists its presets")
    if what == "presets":
        print_presets(algo)
        return
    if what == "envs":
        from mbkit import envs

        rows = envs.available()
    elif what == "experiments":
        rows = [(listed.name, listed.summary) for listed in experiments()]
    elif what in LISTED:
        rows = [(entry.name, entry.summary) for entry in LISTED[what]]
    else:
        raise UserError(f"cannot list {what!r}; {registry.nearest(what, [*LISTED, 'envs', 'presets', 'experiments'])}")
    print_table(["name", "what it is"], [list(row) for row in rows])


def print_presets(algo: str | None) -> None:
    """The presets of all algorithms, or of one: environment, name, steps and, where there is space for it, description."""
    from mbkit.config.presets import presets

    console, listed = Console(markup=False, highlight=False), presets(algo)
    rows = [[p.algo, p.env, p.name, str(p.steps)] for p in listed]
    head = ["algorithm", "environment", "preset", "steps"]
    if console.width >= WIDE:
        print_table([*head, "description"], [[*row, p.description] for row, p in zip(rows, listed, strict=True)], console)
    else:  # of one algorithm there are few enough for a second line
        print_noted(console, [head, *rows], ["", *(p.description if algo is not None else "" for p in listed)])
    say("`mbkit train ALGORITHM env=ENVIRONMENT preset=PRESET`; without a name: the default")


@app.command()
def config(
    algo: Annotated[str, typer.Argument(help="an algorithm", autocompletion=algorithms)],
    options: Options = None,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="print the composed YAML instead")] = False,
) -> None:
    """Every option of ALGO that counts, in groups: value, where that comes from, meaning, type and range; preset and options applied."""
    experiment = configuration.compose(algo, options or [])
    if as_yaml:
        say(configuration.to_yaml(experiment).rstrip())
        return
    console, known = Console(markup=False, highlight=False), origins(experiment, options or [])
    console.print(f"{experiment.algo} on {experiment.env}, {preset_text(experiment)}", style="bold")
    console.print(f"{', '.join(f'{mark} {text}' for mark, text in MARKS.values() if mark.strip())}; without a mark: the default")
    described = list(describe(experiment))
    rows = [[d.key, f"{MARKS[known.get(d.key, 'default')][0]} {value_of_option(d.value)}", kind_of(d)] for d in described]
    groups = [d.group for d in described]
    for group in dict.fromkeys(groups):
        console.print(f"\n{GROUPED.get(group, group)}", style="bold")
        chosen = [n for n, other in enumerate(groups) if other == group]
        print_noted(console, [rows[n] for n in chosen], [described[n].meaning for n in chosen])


def kind_of(d: Described) -> str:
    """Type and range of an option."""
    return " ".join([kind_text(d.kind), d.limits]).strip()


def print_noted(console: Console, rows: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
    """Rows in columns, each with its note below; a cell that is wider than most moves the rest of its row."""
    widths = [min(max(map(len, column)), WIDEST) for column in zip(*rows, strict=True)]
    for row, note in zip(rows, notes, strict=True):
        console.print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if note:
            console.print(Padding(Text(note, style="dim"), (0, 0, 0, 4)))


def print_table(columns: list[str], rows: list[list[str]], console: Console | None = None) -> None:
    """A plain table, as wide as the terminal."""
    table = Table(box=None, pad_edge=False)
    for n, column in enumerate(columns):
        table.add_column(column, no_wrap=n == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    (console or Console(width=None if sys.stdout.isatty() else 160, markup=False, highlight=False)).print(table)
