"""Commands on data sets: inspect, convert."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbkit.cli import tables
from mbkit.cli.app import app, say
from mbkit.errors import UserError

if TYPE_CHECKING:
    from mbkit.data import Dataset

commands = typer.Typer(no_args_is_help=True, help="Look at data sets and convert them.")
app.add_typer(commands, name="data")

File = Annotated[str, typer.Argument(metavar="DATA", help="a data set: a file or folder of any format")]
Low = Annotated[str | None, typer.Option(help="lower bounds of the actions, one or one for each dimension: -1 or -1,-2")]
High = Annotated[str | None, typer.Option(help="upper bounds of the actions")]
Choices = Annotated[int | None, typer.Option(help="number of discrete actions")]
Env = Annotated[str | None, typer.Option(help="id of the environment, where the file names none")]


@commands.command()
def inspect(
    data: File,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    low: Low = None,
    high: High = None,
    choices: Choices = None,
    env: Env = None,
    obs: tables.Obs = None,
    action: tables.Action = None,
    reward: tables.Reward = None,
    episode: tables.Episode = None,
    gap: tables.Gap = None,
    time: tables.Time = None,
    history: tables.History = None,
    terminated: tables.Terminated = None,
) -> None:
    """What is in DATA: rows, episodes, returns, how episodes end, what is missing, which actions occur."""
    table = {"obs": obs, "action": action, "reward": reward, "episode": episode, "gap": gap, "time": time, "history": history}
    options = {**told(low, high, choices, env), **table, "terminated": terminated}
    from mbkit.data import read
    from mbkit.data.summary import summary
    from mbkit.storage import plain

    facts = summary(read(data, **options))
    if as_json:
        say(json.dumps(plain(facts), allow_nan=False))
    else:
        for line in described(facts):
            say(line)
    if facts["problem"]:
        raise UserError(facts["problem"])


@commands.command()
def convert(
    data: File,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="the file to write, or the folder of a Minari data set")],
    to: Annotated[str, typer.Option(metavar="mbkit|minari|d4rl|npz", help="format to write")] = "mbkit",
    id: Annotated[str | None, typer.Option(metavar="NS/NAME-v0", help="id of a Minari data set")] = None,
    episodes: Annotated[str | None, typer.Option(metavar="A:B", help="only episodes A to B - 1, counted from 0")] = None,
    low: Low = None,
    high: High = None,
    choices: Choices = None,
    env: Env = None,
    obs: tables.Obs = None,
    action: tables.Action = None,
    reward: tables.Reward = None,
    episode: tables.Episode = None,
    gap: tables.Gap = None,
    time: tables.Time = None,
    history: tables.History = None,
    terminated: tables.Terminated = None,
) -> None:
    """Write DATA in another format, checked row by row; OUT is written whole or not at all."""
    table = {"obs": obs, "action": action, "reward": reward, "episode": episode, "gap": gap, "time": time, "history": history}
    options = {**told(low, high, choices, env), **table, "terminated": terminated}
    bounds = None if episodes is None else span(episodes)
    from mbkit.data import read, write

    source = read(data, **options)
    if bounds is not None:
        source = source.between(bounds[0], source.episodes if bounds[1] is None else bounds[1])
    path = write(source, out, to, id)
    say(f"{path}: {source.rows} rows in {source.episodes} episodes")
    _say_notes(source)


def _say_notes(data: "Dataset") -> None:
    for note in data.notes:
        say(f"note: {note}")


def told(low: str | None, high: str | None, choices: int | None, env: str | None) -> dict[str, Any]:
    """What the command line says of the actions and the environment, as readers take it."""
    return {"low": numbers("low", low), "high": numbers("high", high), "choices": choices, "env": env}


def numbers(name: str, text: str | None) -> list[float] | None:
    """Numbers divided by commas; UserError where they are none."""
    try:
        return None if text is None else [float(number) for number in text.split(",")]
    except ValueError as error:
        raise UserError(f"--{name}: expected numbers like -1 or -1,-2, got {text!r}") from error


def span(text: str) -> tuple[int, int | None]:
    """A:B as numbers; A is 0, and B the end, where they are left out."""
    first, colon, stop = text.partition(":")
    if not colon or not all(part.isdigit() or not part for part in (first, stop)):
        raise UserError(f"--episodes: expected A:B like 0:100, got {text!r}")
    return int(first or 0), int(stop) if stop else None


def described(facts: dict[str, Any]) -> list[str]:
    """A summary in lines for a person."""
    observation, action = facts["observation_space"], facts["action_space"]
    names = {"observations": observation["names"], "actions": action["names"]}
    spoken = {key: f" ({', '.join(values)})" * bool(values) for key, values in names.items()}
    if action["discrete"]:
        actions = f"{action['n']} discrete, {action['start']} to {action['start'] + action['n'] - 1}"
        coverage = "shares " + ", ".join(f"{share:.3g}" for share in facts["action_coverage"])
    else:
        actions = f"{action['dim']} in " + " x ".join(f"[{a:g}, {b:g}]" for a, b in zip(action["low"], action["high"], strict=True))
        coverage = (
            ", ".join(f"{share:.0%}" for share in facts["action_coverage"])
            + f" of the range; {facts['actions_at_bounds']:.1%} at its bounds"
        )
    missing = {name: count for name, count in facts["nan"].items() if count}
    kwargs = f" with {facts['env_kwargs']}" * bool(facts["env_kwargs"])
    lines = {
        "format": facts["format"],
        "environment": f"{facts['env'] or 'not named'}{kwargs}",
        "observations": f"{observation['dim']} of {observation['dtype']}{spoken['observations']}",
        "actions": f"{actions} of {action['dtype']}{spoken['actions']}",
        "rows": f"{facts['rows']} in {facts['episodes']} episodes",
        "return": _measures(facts, "return") if facts["has_reward"] else "no rewards",
        **({"score": "; ".join(map(_score, facts["scores"]))} if facts["scores"] else {}),
        "length": _measures(facts, "length"),
        "ends": f"{facts['terminated']} terminated, {facts['truncated']} truncated, {facts['neither']} neither",
        "not finite": ", ".join(f"{count} in {name}" for name, count in missing.items()) or "none",
        "coverage": coverage,
        "constant": ", ".join(facts["constant_columns"]) or "none",
        "sha256": facts["sha256"],
    }
    return [f"{key + ':':14}{value}" for key, value in lines.items()] + [f"note: {note}" for note in facts["notes"]]


def _score(score: dict[str, Any]) -> str:
    return f"{score['mean']:.1f} ± {score['std']:.2f} ({score['convention']})"


def _measures(facts: dict[str, Any], name: str) -> str:
    mean, std, low, high = (facts[f"{name}_{key}"] for key in ("mean", "std", "min", "max"))
    return f"{mean:.6g} ± {std:.4g}, {low:.6g} to {high:.6g}"
