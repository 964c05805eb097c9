"""Options of `mbkit data convert` and `inspect` that say what the columns of a table are."""

from typing import Annotated

import typer

PANEL = "Tables (CSV, Parquet)"


def _option(metavar: str, help: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(metavar=metavar, help=help, rich_help_panel=PANEL)
    return option


Obs = Annotated[str | None, _option("A,B", "columns of observations, or of outputs")]
Action = Annotated[str | None, _option("U,V", "columns of actions, each applied from its row on")]
Reward = Annotated[str | None, _option("R|PKG.MOD:FN|none", "column of rewards, or a function of (obs, action in [-1, 1], next_obs)")]
Episode = Annotated[str | None, _option("COLUMN", "column whose value changes where an episode begins")]
Gap = Annotated[float | None, _option("SECONDS", "time between two rows above which an episode begins; needs --time")]
Time = Annotated[str | None, _option("COLUMN", "column of seconds or dates")]
History = Annotated[int | None, _option("K", "observe the last K outputs and the K-1 inputs between them")]
Terminated = Annotated[str | None, _option("COLUMN", "column of 0 and 1: the step ended the episode for good")]
