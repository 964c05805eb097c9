"""The command that shows running and finished runs in the terminal."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mbkit.cli.app import app
from mbkit.errors import UserError

if TYPE_CHECKING:
    from mbkit.recording.following import FollowedRun

BLOCKS = "▁▂▃▄▅▆▇█"
COLOURS = {"running": "green", "failed": "red", "interrupted": "yellow", "finished": "blue", "unreadable": "red"}  # in this order
CURVE = 24  # letters of the curve of evaluation returns
NARROW = 60  # columns below which there is no curve
SEARCH = 5.0  # seconds between two searches for new runs


def curve(values: Sequence[float], width: int = CURVE) -> str:
    """A curve in block letters, at most `width` of them; each is a mean of neighbours, and values that are no finite number a dot."""
    groups = min(width, len(values))
    means = []
    for n in range(groups):
        part = [v for v in values[n * len(values) // groups : (n + 1) * len(values) // groups] if math.isfinite(v)]
        means.append(sum(part) / len(part) if part else math.nan)
    finite = [v for v in means if math.isfinite(v)]
    low, span = min(finite, default=0.0), max(finite, default=0.0) - min(finite, default=0.0)
    top = len(BLOCKS) - 1
    return "".join("·" if math.isnan(v) else BLOCKS[round((v - low) / span * top) if span else top // 2] for v in means)


def duration(seconds: float) -> str:
    """Seconds as 0:41, 12:05 or 3:07:00 h."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


def figures(run: "FollowedRun") -> str:
    """How far the run is, how fast, and how long it will take."""
    share = f" of {run.total} ({100 * run.step // run.total} %)" if run.total else ""
    parts = [f"{run.unit} {run.step}{share}"]
    if math.isfinite(run.rate):
        parts.append(f"{run.rate:.3g} {run.unit}s/s")
    if math.isfinite(run.left):
        parts.append(f"{duration(run.left)} left")
    elif run.seconds:
        parts.append(f"took {duration(run.seconds)}")
    return ", ".join(parts)


def returns(run: "FollowedRun") -> str:
    """Last and best evaluation, and the return of training episodes, where there are any."""
    shown = {"eval": run.last, "best": run.best, "training": run.training}
    return ", ".join(f"{label} {value:.1f}" for label, value in shown.items() if math.isfinite(value)) or "no return yet"


def block(run: "FollowedRun", width: int, where: str = "") -> RenderableType:
    """A run in two lines, and a line for its directory `where`, each warning and the reason of a failure."""
    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    head.add_column(justify="right", no_wrap=True)
    state = Text(run.state, style=f"bold {COLOURS[run.state]}")
    head.add_row(Text(run.name, style="bold"), state)
    body = Table.grid(expand=True, padding=(0, 1))
    body.add_column(ratio=1, overflow="fold")
    body.add_column(justify="right", no_wrap=True)
    points = [value for _, value in run.evaluations]
    body.add_row(f"  {figures(run)}", "")
    body.add_row(f"  {returns(run)}", curve(points) if len(points) > 1 and width >= NARROW else "")
    lines = [Text(f"  in {where}", style="dim", no_wrap=True, overflow="ellipsis")] if where else []
    told = [Text(f"  ! {text}", style="red" if run.state in ("failed", "unreadable") else "yellow") for text in run.warned]
    return Group(head, body, *lines, *told)


def view(runs: Sequence["FollowedRun"], console: Console, height: int | None = None) -> RenderableType:
    """All runs, those that go on first; `height`: the lines that there are for them."""
    from mbkit.recording import shown

    ordered = sorted(runs, key=lambda run: list(COLOURS).index(run.state))
    names, states = Counter(run.name for run in runs), Counter(str(run.state) for run in runs)
    parts: list[RenderableType] = []
    if len(runs) > 1:
        parts.append(Text(f"{len(runs)} runs: " + ", ".join(f"{states[s]} {s}" for s in COLOURS if states[s])))
    lines = len(parts)
    for n, run in enumerate(ordered):
        part = block(run, console.width, shown(run.path) if names[run.name] > 1 or run.state in ("failed", "unreadable") else "")
        lines += len(console.render_lines(part, console.options.update(height=None)))
        if height is not None and lines > height - 1 and n:
            parts.append(Text(f"and {len(ordered) - n} more; `mbkit watch --once` prints all of them", style="dim"))
            break
        parts.append(part)
    return Group(*parts) if runs else Text("no run yet")


@app.command()
def watch(
    places: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run directories, or folders of them, such as a sweep's")],
    once: Annotated[bool, typer.Option("--once", help="print where they stand, and end")] = False,
    every: Annotated[float, typer.Option(metavar="SECONDS", help="time between two looks", min=0.1)] = 1.0,
) -> None:
    """Where runs stand, live in the terminal: step, speed, time left, returns and warnings. Ctrl-C ends the view, not the runs.

    It ends by itself when all of the named runs have ended; in a folder it waits for new ones.
    """
    from mbkit.recording.following import FollowedRun, run_directories

    runs: dict[Path, FollowedRun] = {}

    def search() -> bool:
        """Take up new runs; returns whether one of the places is a folder, in which more may begin."""
        listed = [run_directories(place) for place in places]
        for path in (path for paths in listed for path in paths):
            if path not in runs:
                runs[path] = FollowedRun(path)
        return any(paths != [place] for place, paths in zip(places, listed, strict=True))

    folders, console = search(), Console()
    if once or not console.is_terminal:
        if not runs:
            raise UserError(f"there is no run in {', '.join(map(str, places))}: expected directories with a config.yaml")
        console.print(view(list(runs.values()), console))
        return
    try:
        follow(runs, search, console, every, folders)
    except KeyboardInterrupt as stop:
        if stop.args:  # SIGTERM
            raise


def follow(runs: "Mapping[Path, FollowedRun]", search: Callable[[], bool], console: Console, every: float, folders: bool) -> None:
    """Show the runs until all have ended, or in folders for ever."""
    searched = time.monotonic()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            live.update(view(list(runs.values()), console, console.height), refresh=True)
            if not folders and all(run.state != "running" for run in runs.values()):
                return
            time.sleep(every)
            if folders and time.monotonic() - searched > SEARCH:
                search()
                searched = time.monotonic()
            for run in runs.values():
                run.refresh()
