"""The app, and how it ends: a user's mistake with status 2 and one line on stderr, an interrupted run with 130, a crash with 1.

Behind the line stands the traceback where the user's own code raised an exception. Commands import what they need when they are called, so
that help and mistakes are answered at once.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

import mbkit
from mbkit.cli import completing
from mbkit.cli.stopping import ending_on_sigterm
from mbkit.cli.traces import user_traceback
from mbkit.config.threads import wait_passively
from mbkit.errors import Interrupted, UserCodeError, UserError

INTERRUPTED = 130  # exit status; typer's too, where Ctrl-C reaches it
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Model-based reinforcement learning on PyTorch and MuJoCo.",
)
Options = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="options; `mbkit config ALGO` lists them all", autocompletion=completing.options),
]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="a run directory")]


def say(text: str) -> None:
    """One line to the user, on stdout."""
    typer.echo(text)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    """Model-based reinforcement learning on PyTorch and MuJoCo."""
    if version:
        say(mbkit.__version__)


def main() -> None:
    """Entry point of the `mbkit` command."""
    wait_passively()
    try:
        with ending_on_sigterm():
            status = app(standalone_mode=False, prog_name="mbkit")
        if status == INTERRUPTED:
            typer.echo("mbkit: stopped before it was done; the same command starts again", err=True)
        sys.exit(status if isinstance(status, int) else 0)
    except TyperException as error:  # the command line itself was mistyped
        if error.format_message():
            typer.echo(f"mbkit: {error.format_message()} (`mbkit --help` shows the commands)", err=True)
        sys.exit(2)
    except UserError as error:
        typer.echo(f"mbkit: {error}", err=True)
        if isinstance(error, UserCodeError) and error.__cause__:
            typer.echo(user_traceback(error.__cause__), err=True)
        sys.exit(2)
    except Interrupted as interrupted:
        typer.echo(f"mbkit: {interrupted}", err=True)
        sys.exit(INTERRUPTED)
