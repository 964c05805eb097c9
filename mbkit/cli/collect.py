"""`mbkit data collect`: data sets from random actions, policies of runs, and replays of runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbkit.cli.app import say
from mbkit.cli.data import commands
from mbkit.config import parse_overrides
from mbkit.errors import UserError
from mbkit.paths import check_file

if TYPE_CHECKING:
    from mbkit.data import Dataset

SOURCES = "random, RUN, RUN@best or RUN@STEP, several for equal shares; and env_kwargs.NAME=VALUE of the environment"


@commands.command()
def collect(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help=SOURCES)],
    out: Annotated[Path, typer.Option(help="the file to write")],
    env: Annotated[str | None, typer.Option(help="id of the environment; runs name theirs")] = None,
    steps: Annotated[int | None, typer.Option(help="steps of all sources together")] = None,
    seed: Annotated[int | None, typer.Option(help="random seed; 0 by default")] = None,
    noise: Annotated[
        float | None, typer.Option(help="of policies: standard deviation on actions in [-1, 1], or probability of a random discrete action")
    ] = None,
    replay: Annotated[bool, typer.Option("--replay", help="all that a run has stored instead of new steps")] = False,
) -> None:
    """Write a data set of steps with SOURCE's actions, or of all that a run has stored; OUT is written whole or not at all."""
    options = {"env": env, "steps": steps, "seed": seed, "noise": noise}
    chosen, kwargs = _divided(sources)
    passed = {f"--{name}": value for name, value in options.items() if value is not None} | {f"env_kwargs.{key}": kwargs for key in kwargs}
    if replay and (passed or len(chosen) != 1 or chosen[0] == "random"):
        wrong = ", ".join(passed) or " ".join(chosen) or "none"
        raise UserError(f"--replay takes one run, RUN, RUN@best or RUN@STEP, and of the options only --out; got {wrong}")
    if not replay and steps is None:
        raise UserError("expected --steps, the number of steps to collect, or --replay; got neither")
    check_file(out)

    from mbkit.data import write
    from mbkit.loops.interrupt import interrupted

    with interrupted(lambda: f"{out} was not written; the same command starts again"):
        data = _replayed(chosen[0]) if replay else _collected(chosen, kwargs, {key: x for key, x in options.items() if x is not None})
        path = write(data, out)
    say(f"{path}: {data.rows} rows in {data.episodes} episodes")
    for note in data.notes:
        say(f"note: {note}")


def _divided(arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Sources, and arguments of the environment."""
    texts = [text for text in arguments if text.startswith("env_kwargs.")]
    return [text for text in arguments if text not in texts], parse_overrides(texts).get("env_kwargs", {})


def _replayed(source: str) -> "Dataset":
    from mbkit.data.run_replay import split
    from mbkit.run.replays import replay_of

    return replay_of(*split(source))


def _collected(sources: list[str], kwargs: dict[str, Any], options: dict[str, Any]) -> "Dataset":
    from mbkit.run import collect

    return collect(sources, **options, env_kwargs=kwargs or None)
