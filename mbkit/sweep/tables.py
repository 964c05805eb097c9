"""The tables of a sweep: before it starts, while it goes on, and when it ends."""

import math
import os
import sys
import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mbkit.sweep.driver import Driver, Running
from mbkit.sweep.planning import SweepPlan, labels_of
from mbkit.sweep.results import Returns

MOST = 40  # lines of the live table
OFF_TERMINAL = 120  # columns where the output is no terminal


def console(error: bool = False) -> Console:
    """Of stdout or stderr, as wide as the terminal."""
    stream = sys.stderr if error else sys.stdout
    wide = None if stream.isatty() or "COLUMNS" in os.environ else OFF_TERMINAL
    return Console(file=stream, width=wide, markup=False, highlight=False, soft_wrap=False)


def table(*columns: tuple[str, bool]) -> Table:
    """Columns with whether they hold numbers."""
    plain = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, number in columns:
        plain.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=number)
    return plain


def plural(number: int, what: str) -> str:
    """ "1 run", "2 runs"."""
    return f"{number} {what}{'s' * (number != 1)}"


def span(seeds: Sequence[int]) -> str:
    """ "1..5", or "1,3,7" where they do not follow one another; the first and last of very many."""
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}..{seeds[-1]}"
    return ",".join(map(str, seeds)) if len(seeds) <= 8 else f"{seeds[0]},…,{seeds[-1]}"


def plan_table(plan: SweepPlan, trials: int | None) -> Table:
    """What is going to run: a line for each group, with a column for each option in which groups differ."""
    keys = list(dict.fromkeys(key for group in plan.groups for key in group.differs))
    drawn = list(dict.fromkeys(axis.key for grid in plan.grids for axis in grid.searched))
    labels = labels_of([*keys, *drawn])
    wide = table(("algorithm", False), ("environment", False), *((labels[key], False) for key in [*keys, *drawn]))
    wide.add_column("steps", justify="right")
    wide.add_column("seeds" if trials is None else "trials x seeds")
    for group in plan.groups:
        texts = {axis.key: str(axis.drawn) for axis in plan.grid(group).searched}
        values = [(group.differs | texts).get(key, "") for key in [*keys, *drawn]]
        seeds = span(plan.seeds) if trials is None else f"{trials} x {span(plan.seeds)}"
        wide.add_row(group.algo, group.env, *values, f"{group.steps:,}".replace(",", " "), seeds)
    return wide


def result_table(rows: Sequence[Returns], drawn: Sequence[str] = ()) -> Table:
    """A line for each group: returns over its seeds; of a search, a column for each option that is drawn."""
    labels = labels_of(drawn)
    wide = table(("group", False), *((labels[key], True) for key in drawn), ("runs", True), ("median", True), ("IQM", True))
    for name in ("95 % interval", "minutes"):
        wide.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        middle = row.iqm
        median, point, low, high = numbers(row.median, *middle)
        interval = "" if math.isnan(middle.low) else f"{low} to {high}"
        scores = [median, point, interval] if row.returns else ["", "", ""]
        minutes = "" if math.isnan(row.seconds) else f"{row.seconds / 60:.1f}"
        wide.add_row(row.group.name, *(shortened(row.group.differs.get(key, "")) for key in drawn), str(row.runs), *scores, minutes)
    return wide


def shortened(text: str) -> str:
    """A drawn number with three digits; other values whole."""
    try:
        return text if text.lstrip("-").isdigit() else f"{float(text):.3g}"
    except ValueError:
        return text


def numbers(*values: float) -> list[str]:
    """Returns with as many decimals as the largest of them needs: one from 10 on, two from 1 on, else three."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    decimals = 1 if largest >= 10 else 2 if largest >= 1 else 3
    return [f"{value:.{decimals}f}" for value in values]


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "3.4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def left(running: Running) -> float | None:
    """Seconds that a run still takes at its present speed; None before that can be told."""
    steps = running.curve.step - (running.first_step or 0)
    if running.first_step is None or steps <= 0:
        return None
    return max(0, running.run.group.steps - running.curve.step) * (time.monotonic() - running.began) / steps


class LiveView:
    """A table of the running runs on a terminal; elsewhere a line when a run begins or ends."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = console(error=True)
        self.terminal = self.console.is_terminal and not quiet
        self.quiet = quiet
        self.live = Live(console=self.console, refresh_per_second=2, transient=True) if self.terminal else None
        self.told: set[str] = set()
        self.drawn = 0.0

    def __enter__(self) -> "LiveView":
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live is not None:
            self.live.stop()

    def tell(self, text: str) -> None:
        """A line, above the table where there is one."""
        if not self.quiet:
            self.console.print(text)

    def update(self, driver: Driver) -> None:
        """Draw the table anew, or tell of what has ended."""
        if self.live is not None:
            if time.monotonic() - self.drawn > 0.5:
                self.drawn = time.monotonic()
                self.live.update(Group(running_table(driver), Text(footer(driver), overflow="fold")))
            return
        for name in [*driver.finished[driver.repeated :], *driver.pruned]:
            if name not in self.told:
                self.told.add(name)
                verb = "was pruned" if name in driver.pruned else "is finished"
                self.tell(f"{name} {verb} ({footer(driver)})")


def running_table(driver: Driver) -> Table:
    """The runs under way."""
    wide = table(("run", False), ("step", True), ("of", True), ("return", True), ("left", True))
    for each in list(driver.running.values())[:MOST]:
        value, remaining = each.curve.last_return, left(each)
        shown = "" if value is None else numbers(value)[0]
        step = "stopping" if each.stopping else str(min(each.curve.step, each.run.group.steps)) if each.curve.step else "starting"
        wide.add_row(each.run.name, step, str(each.run.group.steps), shown, "" if remaining is None else duration(remaining))
    if len(driver.running) > MOST:
        wide.add_row(f"and {len(driver.running) - MOST} others", "", "", "", "")
    return wide


def footer(driver: Driver) -> str:
    """ "3 of 12 finished, 2 running, 1 failed"."""
    parts = [f"{driver.done()} of {driver.source.total()} finished"]
    counts = {"running": len(driver.running), "pruned": len(driver.pruned), "failed": len(driver.failed)}
    return ", ".join([*parts, *(f"{count} {what}" for what, count in counts.items() if count)])
