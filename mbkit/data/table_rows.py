"""Which rows of a table are rows of a data set: where its episodes begin, and which rows have a successor.

Letters: N rows of the table, E episodes of the data set, K rows of history.
"""

from typing import Any, NamedTuple

import numpy as np

from mbkit.data.columns import Array, Integers
from mbkit.data.table_files import TableFile, as_flags, as_seconds
from mbkit.errors import UserError

UNEVEN = 0.1  # share of the usual time between two rows by which another one may differ


class TableRows(NamedTuple):
    """The rows of a data set in its table."""

    total: int  # N
    rows: Integers  # numbers of the rows that are in the data set
    zero: Array  # bool [N] rows whose successor is unknown and stands as zeros
    terminated: Array  # bool [N]
    truncated: Array  # bool [N] the last row with a successor of an episode that was cut
    lengths: Integers  # [E]
    begins: Integers  # [E] number of each episode's first row in the table
    facts: dict[str, Any]  # provenance: counts of what was left out, seconds of a step
    notes: list[str]


def rows_of_episodes(
    table: TableFile, episode: str | None, gap: float | None, time: str | None, terminated: str | None, history: int
) -> TableRows:
    """One pass over the columns that say where episodes begin and end; arguments as in `table.read`, `history` is K.

    Raises:
        UserError: options that contradict one another, time that does not increase, or no row that could be in a data set.
    """
    if gap is not None and (episode is not None or time is None or not gap > 0):
        wrong = "--episode" if episode is not None else "no --time" if time is None else f"{gap:g}"
        raise UserError(f"{table.path}: --gap: expected seconds above 0 between the rows of a column --time and no --episode, got {wrong}")
    begin, seconds, over = _columns(table, episode, time, terminated)
    total = len(begin)
    if seconds is not None:
        _split(table, str(time), begin, seconds, gap, episode)
    if episode is None:
        begin[1:] |= over[:-1]
    following = np.append(~begin[1:], False)[:total]
    age = np.arange(total) - np.maximum.accumulate(np.where(begin, np.arange(total), 0)) if total else np.zeros(0, np.int64)
    successor = following | over
    rows = np.flatnonzero((age >= history - 1) & successor)
    if not len(rows):
        lags = f" and {history - 1} rows before it" * (history > 1)
        raise UserError(f"{table.path}: expected at least one row with a following row in its episode{lags}, got none in {total} rows")
    number = np.cumsum(begin)[rows]
    first = np.flatnonzero(np.diff(number, prepend=0))
    lengths = np.diff(np.append(first, len(rows)))
    last = np.zeros(total, np.bool_)
    last[rows[first + lengths - 1]] = True
    counts = {"without_successor": int((~successor).sum()), "without_history": int((successor & (age < history - 1)).sum())}
    zero = over & ~following
    facts, notes = _told(table, counts, int(zero[rows].sum()), history)
    if seconds is not None:
        _tell_steps(np.diff(seconds)[following[:-1]], facts, notes)
    return TableRows(total, rows, zero, over, last & ~over, lengths, rows[first], facts, notes)


def _columns(table: TableFile, episode: str | None, time: str | None, terminated: str | None) -> tuple[Array, Array | None, Array]:
    """Where an episode begins by its column, bool [N]; the time of each row in seconds, float64 [N]; terminated, bool [N]."""
    names = [name for name in (episode, time, terminated) if name is not None]
    begins, times, flags = [np.zeros(0, np.bool_)], [np.zeros(0)], [np.zeros(0, np.bool_)]
    row, before = 0, None
    for block in table.blocks(names):
        cells = dict(zip(names, block.columns, strict=True))
        begin = np.zeros(block.rows, np.bool_)
        if episode is not None:
            labels = cells[episode]
            begin[1:] = labels[1:] != labels[:-1]
            begin[0] = before is None or labels[0] != before
            before = labels[-1]
        begin[0] |= not row
        begins.append(begin)
        if time is not None:
            times.append(as_seconds(table, time, cells[time], row))
        flags.append(np.zeros(block.rows, np.bool_) if terminated is None else as_flags(table, terminated, cells[terminated], row))
        row += block.rows
    return np.concatenate(begins), None if time is None else np.concatenate(times), np.concatenate(flags)


def _split(table: TableFile, name: str, begin: Array, seconds: Array, gap: float | None, episode: str | None) -> None:
    """Mark in `begin` [N] where the time leaps; UserError where it does not increase inside an episode."""
    wrong = np.flatnonzero(~np.isfinite(seconds))
    if len(wrong):
        raise UserError(f"{table.path}: {name} of row {wrong[0]}: expected finite seconds, got {seconds[wrong[0]]}")
    elapsed = np.diff(seconds)
    if gap is not None:
        begin[1:] |= (elapsed > gap) | (elapsed < 0)  # a recording that starts its clock anew
    wrong = np.flatnonzero((elapsed <= 0) & ~begin[1:])
    if len(wrong):
        advice = "" if episode is not None or gap is not None else "; --gap SECONDS or --episode COLUMN says where one recording ends"
        before, here = seconds[wrong[0]], seconds[wrong[0] + 1]
        raise UserError(f"{table.path}: {name} of row {wrong[0] + 1}: expected more than {before:.10g}, got {here:.10g}{advice}")


def _told(table: TableFile, counts: dict[str, int], zeros: int, history: int) -> tuple[dict[str, Any], list[str]]:
    """Counts of what was left out, and sentences on them."""
    notes = []
    if counts["without_successor"]:
        notes.append(f"rows left out, since no row of their episode follows them: {counts['without_successor']}")
    if counts["without_history"]:
        notes.append(f"rows left out, since their episode begins less than {history - 1} rows before them: {counts['without_history']}")
    if zeros:
        notes.append(f"terminal rows with zeros as successor, which the file does not have, so that no model should learn them: {zeros}")
        counts = {**counts, "zero_successors": zeros}
    return {"left_out": {key: count for key, count in counts.items() if count}}, notes


def _tell_steps(elapsed: Array, facts: dict[str, Any], notes: list[str]) -> None:
    """Add the usual time between two rows of an episode, and how many differ from it."""
    if not len(elapsed):
        return
    usual = float(np.median(elapsed))
    odd = int((np.abs(elapsed - usual) > UNEVEN * usual).sum())
    facts["seconds_per_step"] = usual
    if odd:
        notes.append(f"{odd} of {len(elapsed)} steps last more than {UNEVEN:.0%} longer or shorter than the usual {usual:.6g} s")
