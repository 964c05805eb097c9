"""Tables, the form in which a plant's logs usually lie: one row a step, with the outputs, the input applied at that row, perhaps a reward.

A row's successor is the following row of its episode. Episodes are told apart by a column, by gaps in time, or not at all. Where a single
row of outputs is no state, `history` K makes one: the last K outputs and the K - 1 inputs between them, the newest first.

Letters: N rows of the table, B rows of a chunk, O observation, A action, P outputs, K rows of history.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mbkit.data.about import action_facts
from mbkit.data.columns import Array, Columns, ends_of, episodes_of
from mbkit.data.dataset import Dataset
from mbkit.data.table_files import TableFile, as_numbers, is_table, opened
from mbkit.data.table_rewards import NO_REWARDS, TableReward, reward_of
from mbkit.data.table_rows import TableRows, rows_of_episodes
from mbkit.errors import UserError
from mbkit.registry import nearest

HEAD = 8  # bytes that tell Parquet from text
Names = str | Sequence[str] | None  # of columns, in a list or divided by commas


class Measurements(NamedTuple):
    """Consecutive rows of the table."""

    output: Array  # [B, P]
    action: Array  # [B, A]
    reward: Array  # [B]

    def behind(self, row: int) -> "Measurements":
        """The rows from `row` on."""
        return Measurements(*(column[row:] for column in self))


def recognises(path: Path, head: bytes) -> bool:
    """Whether this is a Parquet file, or text that begins with rows of equally many cells."""
    return is_table(head)


def read(
    path: Path,
    obs: Names = None,
    action: Names = None,
    reward: str | None = None,
    episode: str | None = None,
    gap: float | None = None,
    time: str | None = None,
    history: int = 1,
    low: Any = None,
    high: Any = None,
    choices: int | None = None,
    terminated: str | None = None,
    env: str | None = None,
) -> Dataset:
    """The data set in a table.

    Args:
        path: the file, CSV or Parquet.
        obs: names of the columns of outputs, in a list or divided by commas.
        action: names of the columns of inputs, of which a row holds the one applied from that row on.
        reward: name of the column of the reward for a row's step; or the import path `pkg.mod:fn` of a function of obs [B, O], action
            [B, A] in [-1, 1] (discrete: int64 [B]) and next_obs [B, O]; "none" or None: there are no rewards.
        episode: name of a column whose value changes where an episode begins.
        gap: seconds between two rows above which an episode begins; it needs `time`.
        time: name of the column of seconds or dates.
        history: K; an episode's first K - 1 rows are left out. Discrete inputs of the past are one-hot.
        low: lower bounds of the inputs, one or one for each; these and `high`, or `choices`, are needed.
        high: their upper bounds.
        choices: number of discrete inputs, 0 to `choices` - 1.
        terminated: name of a column of 0 and 1: whether the step ended the episode for good.
        env: id of an environment of the same observations and actions.

    Raises:
        UserError: a column that does not exist, a cell that is no number, nothing known of the inputs, or no row with a successor.
    """
    with open(path, "rb") as file:
        table = opened(path, file.read(HEAD))
    outputs, inputs = _roles(table, obs, action, {"episode": episode, "time": time, "terminated": terminated})
    bounds = _bounds(path, inputs, low, high, choices)
    if history < 1:
        raise UserError(f"--history {history}: expected at least 1")
    part = rows_of_episodes(table, episode, gap, time, terminated, history)
    lags = Lags(outputs, inputs, choices or 0, history)
    pays = reward_of(table, reward, lags.obs_dim, len(inputs), choices)
    reader = TableReader(table, part, lags, pays)
    roles = {"obs": outputs, "action": inputs, "reward": reward, "episode": episode, "time": time, "terminated": terminated}
    source = {"format": "table", "columns": {role: name for role, name in roles.items() if name}, "history": history, **part.facts}
    facts = {**bounds, "env": env, "obs_names": lags.names, "action_names": tuple(inputs), "has_reward": pays is not None}
    data = Dataset(reader.stream, part.lengths, lags.obs_dim, path, "table", **facts, source=source, rows_before=part.begins)
    data.notes += [*part.notes, *([NO_REWARDS] if pays is None else pays.notes(int(part.zero.sum())))]
    reader.data = data
    return data


def _roles(table: TableFile, obs: Names, action: Names, others: Mapping[str, str | None]) -> tuple[list[str], list[str]]:
    """The columns of outputs and inputs; UserError where one of them, or of the other options' columns, is missing or has two roles."""
    outputs, inputs = (_columns(table, option, names) for option, names in (("obs", obs), ("action", action)))
    for option, name in others.items():
        if name is not None:
            _check_column(table, option, name)
    if both := set(outputs) & set(inputs):
        raise UserError(f"{table.path}: {min(both)} is named by --obs and by --action; expected different columns")
    return outputs, inputs


def _bounds(path: Path, inputs: Sequence[str], low: Any, high: Any, choices: int | None) -> dict[str, Any]:
    """What is known of the inputs' values; UserError where nothing is, or where there are several discrete ones."""
    bounds = action_facts(path, len(inputs), low, high, choices)
    if bounds is None:
        advice = "name them with --low and --high, or with --choices if they are discrete"
        raise UserError(f"{path}: expected bounds of {', '.join(inputs)}, which a table does not have; {advice}")
    if choices is not None and len(inputs) > 1:
        raise UserError(f"{path}: expected one column of discrete inputs, got {', '.join(inputs)}")
    return bounds


def _columns(table: TableFile, option: str, names: Names) -> list[str]:
    """The columns that an option names; UserError where it names none, or one twice."""
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",")] if names not in table.names else [names]
    if not names:
        columns = ", ".join(table.names)[:300]
        expected = f"`mbkit data convert` (or `inspect`) expects --{option} with names of its columns"
        raise UserError(f"{table.path} is a table: {expected}, which are {columns}")
    for name in names:
        _check_column(table, option, name)
        if list(names).count(name) > 1:
            raise UserError(f"{table.path}: --{option} names {name} twice; expected different columns")
    return list(names)


def _check_column(table: TableFile, option: str, name: str) -> None:
    """UserError unless the table has exactly one column of this name."""
    count = table.names.count(name)
    if count != 1:
        what = nearest(name, table.names) if not count else f"it has {count} columns of this name"
        raise UserError(f"{table.path}: --{option}: expected a column {name!r}; {what}")


@dataclass(frozen=True)
class Lags:
    """What an observation consists of: the last K outputs and the K - 1 inputs between them, the newest first.

    Args:
        outputs: names of the P columns of outputs.
        inputs: names of the columns of inputs.
        choices: number of discrete inputs, 0 where they are continuous.
        history: K.
    """

    outputs: list[str]
    inputs: list[str]
    choices: int
    history: int

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the observation's dimensions, which say how many rows ago."""
        if self.history == 1:
            return tuple(self.outputs)
        past = [f"{self.inputs[0]}={n}" for n in range(self.choices)] or self.inputs
        names = [f"{name}[t{f'-{k}' * bool(k)}]" for k in range(self.history) for name in self.outputs]
        return (*names, *(f"{name}[t-{k}]" for k in range(1, self.history) for name in past))

    @property
    def obs_dim(self) -> int:
        """O."""
        return len(self.names)

    def observations(self, block: Measurements, rows: Any) -> Array:
        """Of these rows [B] of a block that begins K - 1 rows before them or earlier, [B, O]."""
        past = one_hot(block.action, self.choices) if self.choices and self.history > 1 else block.action
        lagged = [block.output[rows - k] for k in range(self.history)] + [past[rows - k] for k in range(1, self.history)]
        return np.concatenate(lagged, 1)


class TableReader:
    """Rows of a data set from a table, block by block.

    Args:
        table: the file.
        part: which of its rows are rows of the data set.
        lags: what an observation consists of.
        reward: where the reward comes from; None: it is 0.
    """

    data: Dataset

    def __init__(self, table: TableFile, part: TableRows, lags: Lags, reward: TableReward | None) -> None:
        self.table, self.part, self.lags, self.reward = table, part, lags, reward

    def stream(self, start: int, stop: int) -> Iterator[Columns]:
        """Rows start to stop of the data set."""
        rows = self.part.rows[start:stop]
        before = self.lags.history - 1
        first, behind = int(rows[0]) - before, min(int(rows[-1]) + 2, self.part.total)
        done, waiting = 0, None  # rows of the data set so far; rows of the table from `first` on that are needed still
        for fresh in self._blocks(first, behind):
            block = fresh if waiting is None else Measurements(*map(np.concatenate, zip(waiting, fresh, strict=True)))
            read = first + len(block.reward)  # row of the table behind the last one
            ready = len(rows) if read == behind else int(np.searchsorted(rows, read - 1))
            if ready > done:
                yield self._rows(block, rows[done:ready], first, start + done)
                done = ready
            needed = min(int(rows[done]) - before, read) if done < len(rows) else read
            first, waiting = max(first, needed), block.behind(max(0, needed - first))

    def _blocks(self, first: int, behind: int) -> Iterator[Measurements]:
        """Rows of the table as numbers."""
        outputs, inputs = self.lags.outputs, self.lags.inputs
        column = [] if self.reward is None or self.reward.function is not None else [self.reward.name]
        names = [*outputs, *inputs, *column]
        for block in self.table.blocks(names, first, behind):
            numbers = [as_numbers(self.table, name, cells, first) for name, cells in zip(names, block.columns, strict=True)]
            y, u = (np.stack(x, 1) for x in (numbers[: len(outputs)], numbers[len(outputs) : len(outputs) + len(inputs)]))
            reward = numbers[-1] if column else np.zeros(block.rows)
            yield Measurements(_floating(y), self._inputs(u, first), _floating(reward))
            first += block.rows

    def _inputs(self, inputs: Array, first: int) -> Array:
        """Inputs [B, A] as floating numbers, and if they are discrete whole ones, 0 where the table has none."""
        if not self.lags.choices:
            return _floating(inputs)
        values = np.where(np.isnan(inputs.astype(np.float64)), -1, inputs)
        wrong = np.flatnonzero((values != np.round(values)).any(1))
        if len(wrong):
            culprit = f"{self.lags.inputs[0]} of row {first + wrong[0]}"
            raise UserError(f"{self.table.path}: {culprit}: expected a whole number, since it is discrete, got {values[wrong[0], 0]!s}")
        return values.astype(np.int64)

    def _rows(self, block: Measurements, rows: Any, first: int, number: int) -> Columns:
        """These rows [B] of the table, which are rows `number` and following of the data set; the block begins at row `first`."""
        at, zero = rows - first, self.part.zero[rows]
        obs = self.lags.observations(block, at)
        next_obs = self.lags.observations(block, np.minimum(at + 1, len(block.reward) - 1))
        next_obs[zero] = 0
        action = block.action[at, 0] if self.lags.choices else block.action[at]
        reward = block.reward[at]
        if self.reward is not None and self.reward.function is not None:
            following = np.where(zero[:, None], obs, next_obs)
            reward = self.reward.computed(obs, self.data.scaled(action), following)
        ended = self.part.terminated[rows], self.part.truncated[rows]
        return Columns(obs, action, reward, next_obs, *ended, episodes_of(ends_of(self.part.lengths), number, number + len(rows)))


def one_hot(inputs: Array, choices: int) -> Array:
    """Discrete inputs [B, 1] as [B, choices], NaN where they are none of the choices."""
    return np.where((inputs >= 0) & (inputs < choices), inputs == np.arange(choices), np.nan)


def _floating(values: Array) -> Array:
    """Floating numbers as they are, whole ones as float64 (of 16 bits at most: float32)."""
    return values.astype(np.result_type(values.dtype, np.float32), copy=False)
