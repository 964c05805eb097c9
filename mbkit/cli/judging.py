"""The command that scores runs: in their environment, or by a data set without one."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbkit.cli.app import app, say
from mbkit.errors import UserError
from mbkit.paths import exists

if TYPE_CHECKING:
    from mbkit.run.judging import PolicyValue

OPTION = re.compile(r"[^\W\d][\w.]*=")
PANEL = "By a data set"
CHOSEN = 3  # regrets of choosing up to so many runs are told


@app.command()
def evaluate(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN... [KEY=VALUE]...", help="run directories; env_kwargs.* that differ, device=cpu|cuda")
    ],
    episodes: Annotated[int, typer.Option(min=1, help="episodes, all on fresh seeds")] = 10,
    checkpoint: Annotated[str, typer.Option(metavar="last|best|STEP", help="stored checkpoint")] = "last",
    seed: Annotated[int | None, typer.Option(help="random seed of the evaluation, by default the run's; with --data 0")] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="plan|distilled", help="policy of a run that plans; distilled: that of imagination.distill")
    ] = None,
    video: Annotated[bool, typer.Option("--video", help="also film one episode")] = False,
    data: Annotated[Path | None, typer.Option(help="data set by which the policies are judged", rich_help_panel=PANEL)] = None,
    method: Annotated[
        str | None, typer.Option(metavar="fqe|model|environment", help="methods, with commas between", rich_help_panel=PANEL)
    ] = None,
    horizon: Annotated[int | None, typer.Option(help="model steps, by default the longest episode", rich_help_panel=PANEL)] = None,
    dynamics: Annotated[Path | None, typer.Option(help="model, by default the run's dynamics.pt", rich_help_panel=PANEL)] = None,
    gamma: Annotated[float | None, typer.Option(help="discount, by default the runs'", rich_help_panel=PANEL)] = None,
    updates: Annotated[int | None, typer.Option(help="gradient updates of fqe, by default 10 000", rich_help_panel=PANEL)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object, with --data one for each run and method")] = False,
) -> None:
    """Deterministic returns of a trained run on fresh evaluation seeds; with --data what a data set says of one run or several."""
    directories, options = divided(runs)
    by_data: dict[str, Any] = {"method": method, "horizon": horizon, "dynamics": dynamics, "gamma": gamma, "updates": updates}
    by_data = {name: value for name, value in by_data.items() if value is not None}
    if data is None and by_data:
        raise UserError(f"--{next(iter(by_data))} counts only where policies are judged by a data set: --data FILE is missing")
    if data is None and len(directories) > 1:
        raise UserError(f"{len(directories)} runs are compared by a data set: --data FILE is missing")

    from mbkit import run

    common: dict[str, Any] = {
        "episodes": episodes,
        "checkpoint": checkpoint,
        "seed": seed,
        "policy": policy,
        **run.evaluation_options(directories[0], options),
    }
    if data is None:
        tell_score(run.evaluate(directories[0], video=video, **common), as_json, video)
    else:
        from mbkit.run.scoring import estimates

        results = estimates(directories, data=data, video=video, **common, **by_data)
        if as_json:
            tell_json(results)
        else:
            tell_estimates(results)


def divided(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Run directories and key=value options; UserError where no run is among them."""
    options = [text for text in arguments if OPTION.match(text) and not exists(text)]
    directories = [text for text in arguments if text not in options]
    if not directories:
        raise UserError(f"expected a run directory before {' '.join(options)}")
    return directories, options


def tell_score(result: Mapping[str, Any], as_json: bool, video: bool) -> None:
    """The score in an environment."""
    if as_json:
        say(json.dumps(result))
        return
    mean, std = result["return_mean"], result["return_std"]
    say(f"return {mean:.1f} ± {std:.1f} over {result['episodes']} episodes of {result['length_mean']:.0f} steps")
    if "note" in result:
        say(result["note"])
    if video:
        say(str(result["video"]))


def tell_json(estimates: "Sequence[PolicyValue]") -> None:
    """An object a line."""
    from mbkit.run.judging import as_row

    for estimate in estimates:
        say(json.dumps(as_row(estimate)))


def tell_estimates(estimates: "Sequence[PolicyValue]") -> None:
    """Method by method a table, the best run first; then how the ranking agrees with true returns, where they are known."""
    from mbkit.run.ranking import rankings, true_returns

    several = len({e.run for e in estimates}) > 1
    true, what = true_returns(estimates)
    width = max(len(e.run) for e in estimates)
    for method in dict.fromkeys(e.method for e in estimates):
        for e in sorted((e for e in estimates if e.method == method), key=lambda e: -e.value):
            limits = "" if math.isnan(e.low) else f"  ({e.low:.4g} to {e.high:.4g})"
            say(f"{method:<11} {e.run:<{width}} {e.value:>9.4g}{limits}")
    say(
        "values: mean discounted return from the first states of the data, with 95 % intervals that hold no bias of the fit or of the model"
    )
    if not (several and true):
        return
    say(f"true returns: {what}")
    for ranking in rankings(estimates, true):
        correlation = "unknown, since values are equal" if math.isnan(ranking.correlation) else f"{ranking.correlation:.2f}"
        costs = ", ".join(f"{regret:.4g} of the best {k}" for k, regret in enumerate(ranking.regret[:CHOSEN], 1))
        say(f"{ranking.method}: rank correlation {correlation}; regret of choosing {costs}")
