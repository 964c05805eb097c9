"""A data set: recorded transitions in native units and their own dtype, read chunk by chunk from wherever they lie.

Letters: N rows, E episodes, B rows of a chunk, O observation, A action.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mbkit.data.checks import RowChecks
from mbkit.data.columns import CHUNK as CHUNK
from mbkit.data.columns import Array as Array
from mbkit.data.columns import Columns as Columns
from mbkit.data.columns import Fingerprint, Integers, ends_of, episodes_of, joined, last_rows, part, regrouped
from mbkit.envs.spaces import MOST_ACTIONS
from mbkit.errors import UserError
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.types import EnvSpec

PER_EPISODE = ("ids", "seeds")  # lists in `source` with one value for each episode
Stream = Callable[[int, int], Iterator[Columns]]  # rows start to stop in pieces of any size, best below CHUNK; nothing is checked yet


@dataclass(eq=False)
class Dataset:
    """Recorded transitions and what is known of them. Nothing is read before it is asked for.

    Args:
        stream: where the rows come from.
        lengths: [E] number of rows of each episode, at least 1.
        obs_dim: O.
        path: the file, or None.
        format: name of the file's format.
        env: id of the environment, or None.
        env_kwargs: arguments of its constructor.
        obs_names: names of the observation's dimensions, or ().
        action_names: names of the action's dimensions, or ().
        action_low: [A] lower bounds of the action box, float64; None where actions are discrete.
        action_high: [A] its upper bounds.
        choices: number of discrete actions; 0 for boxes.
        start: the smallest discrete action.
        has_reward: False for a log without rewards, whose reward column is 0.
        source: provenance that JSON can hold: ids, seeds, serialised spaces, what was left out.
        notes: sentences for the user on what was left out or is missing.
        rows_before: [E] number of the row in the file at which each episode begins, for messages; None: no row was left out.

    Raises:
        UserError: no episode, an empty one, or neither an action box nor a number of discrete actions.
    """

    stream: Stream
    lengths: Integers
    obs_dim: int
    path: Path | None = None
    format: str = "memory"
    env: str | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    obs_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    action_low: Array | None = None
    action_high: Array | None = None
    choices: int = 0
    start: int = 0
    has_reward: bool = True
    source: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rows_before: Integers | None = None

    def __post_init__(self) -> None:
        self.lengths = np.asarray(self.lengths, np.int64)
        if not len(self.lengths):
            raise UserError(f"{self.name}: expected at least one episode, got none")
        if (self.lengths < 1).any():
            raise UserError(f"{self.name}: episode {int(np.flatnonzero(self.lengths < 1)[0])}: expected at least one row, got none")
        if not 0 <= self.choices <= MOST_ACTIONS or abs(self.start) > MOST_ACTIONS**2:
            raise UserError(f"{self.name}: expected at most {MOST_ACTIONS} discrete actions, got {self.choices} from {self.start}")
        if self.choices:
            self.action_low = self.action_high = None
        else:
            self._check_box()
        for what, names, count in (("obs", self.obs_names, self.obs_dim), ("action", self.action_names, self.action_dim)):
            if len(names) not in (0, count):
                raise UserError(f"{self.name}: {what}_names: expected {count} names or none, got {len(names)}")

    def _check_box(self) -> None:
        if self.action_low is None or self.action_high is None:
            raise UserError(f"{self.name}: expected the bounds of the actions, or their number where they are discrete; got neither")
        low, high = (np.array(bound, np.float64).reshape(-1) for bound in (self.action_low, self.action_high))
        if low.shape != high.shape or not len(low) or not (np.isfinite(low) & np.isfinite(high) & (low <= high)).all():
            raise UserError(f"{self.name}: expected finite bounds of the actions, got {low.tolist()} and {high.tolist()}")
        self.action_low, self.action_high = low, high

    @classmethod
    def of(cls, columns: Columns, **about: Any) -> "Dataset":
        """A data set in memory; `about` are arguments of Dataset, at least `action_low` and `action_high`, or `choices`.

        Raises:
            UserError: columns of unequal lengths or wrong shapes, or episodes that are not numbered 0, 1, 2, ...
        """
        name = str(about.get("path") or "the data set")
        columns = Columns(*map(np.asarray, columns))
        counts = {len(column) if column.ndim else -1 for column in columns}
        if len(counts) > 1 or columns.obs.ndim != 2 or columns.next_obs.shape != columns.obs.shape:
            shapes = ", ".join(f"{key} {list(column.shape)}" for key, column in columns._asdict().items())
            raise UserError(f"{name}: expected columns of equal lengths and observations [N, O], got {shapes}")
        begins = np.diff(columns.episode, prepend=-1)
        if not np.isin(begins, (0, 1)).all() or (len(begins) and begins[0] != 1):
            raise UserError(f"{name}: expected episodes numbered 0, 1, 2, ... in order, got {columns.episode[:8].tolist()}...")
        flags = {name: getattr(columns, name).astype(np.bool_) for name in ("terminated", "truncated")}
        columns = columns._replace(episode=columns.episode.astype(np.int64), **flags)
        lengths = np.bincount(columns.episode)

        def stream(start: int, stop: int) -> Iterator[Columns]:
            yield part(columns, start, stop)

        return cls(stream, lengths, columns.obs.shape[1], **about)

    @property
    def name(self) -> str:
        """What messages call the data set."""
        return "the data set" if self.path is None else str(self.path)

    @property
    def rows(self) -> int:
        """N."""
        return int(self.lengths.sum())

    @property
    def episodes(self) -> int:
        """E."""
        return len(self.lengths)

    @property
    def action_dim(self) -> int:
        """A; 1 where actions are discrete."""
        return 1 if self.action_low is None else len(self.action_low)

    @property
    def box(self) -> tuple[Array, Array]:
        """Lower and upper bounds [A] of continuous actions."""
        if self.action_low is None or self.action_high is None:
            raise ValueError("discrete actions have no box")
        return self.action_low, self.action_high

    def place(self, row: int) -> str:
        """What messages call a row: its number in the file and in its episode, all counted from 0."""
        episode = int(np.searchsorted(ends_of(self.lengths), row, side="right"))
        begin = int(self.lengths[:episode].sum())
        first = begin if self.rows_before is None else int(self.rows_before[episode])
        return f"row {first + row - begin} (episode {episode}, step {row - begin})"

    def raw(self, rows: int = CHUNK) -> Iterator[Columns]:
        """The rows as `chunks` yields them, not checked."""
        count = 0
        for chunk in regrouped(self.stream(0, self.rows), rows):
            count += len(chunk.reward)
            yield chunk
        if count != self.rows:
            raise UserError(f"{self.name}: expected {self.rows} rows, got {count}: it has changed since it was opened")

    def chunks(self, rows: int = CHUNK) -> Iterator[Columns]:
        """All rows in order, checked, as chunks of `rows` rows, which need not hold whole episodes.

        Raises:
            UserError: a row that fails one of the checks of `checks`, or a file that cannot be read.
        """
        return map(RowChecks(self), self.raw(rows))

    def whole_episodes(self) -> Iterator[Columns]:
        """The rows of one episode after the other, checked."""
        parts: list[Columns] = []
        for chunk in self.chunks():
            edges = [0, *(np.flatnonzero(np.diff(chunk.episode)) + 1).tolist(), len(chunk.reward)]
            for begin, behind in pairwise(edges):
                piece = part(chunk, begin, behind)
                if parts and piece.episode[0] != parts[0].episode[0]:
                    yield joined(parts)
                    parts = []
                parts.append(piece)
        yield joined(parts)

    def columns(self) -> Columns:
        """All rows in memory."""
        whole: Columns | None = None
        filled = 0
        for chunk in self.chunks():
            if whole is None:
                whole = Columns(*(np.empty((self.rows, *column.shape[1:]), column.dtype) for column in chunk))
            for target, column in zip(whole, chunk, strict=True):
                target[filled : filled + len(column)] = column
            filled += len(chunk.reward)
        if whole is None:
            raise ValueError("a data set has at least one row")
        return whole

    @cached_property
    def sha256(self) -> str:
        """Over the bytes of the seven columns, each with its name, dtype and shape: the same in whatever format they lie."""
        fingerprint = Fingerprint()
        for chunk in self.chunks():
            fingerprint.add(chunk)
        return fingerprint.hexdigest()

    def spec(self, device: torch.device | str = "cpu") -> EnvSpec:
        """Dimensions for agents and models."""
        return EnvSpec(self.obs_dim, self.choices or self.action_dim, torch.device(device), bool(self.choices))

    def scaled(self, action: Array) -> Array:
        """Native actions -> float32 [B, A] in [-1, 1], or int64 [B] from 0: the inverse of the map in `mbkit.envs`."""
        if self.choices:
            return np.asarray(action, np.int64) - self.start
        low, high = self.box
        half = np.where(high > low, (high - low) / 2, 1.0)
        return ((action.astype(np.float64) - (low + high) / 2) / half).clip(-1, 1).astype(np.float32)

    def buffer(self, spec: EnvSpec) -> ReplayBuffer:
        """All rows as a replay buffer in float32, actions scaled, each row linked to the following one of its episode.

        Raises:
            UserError: other dimensions than the data's, more than the memory of the device holds, or a row that fails a check.
        """
        expected, asked = (x._replace(device=None) for x in (self.spec(), spec))  # type: ignore[arg-type]
        if expected != asked:
            raise UserError(f"{self.name} has {_spoken(expected)}; expected {_spoken(asked)}")
        replay = self._empty(spec)
        ends, row = ends_of(self.lengths), 0
        for chunk in self.chunks():
            ended = last_rows(ends, row, row + len(chunk.reward))
            row += len(chunk.reward)
            obs, action, reward, next_obs = chunk.obs, self.scaled(chunk.action), chunk.reward, chunk.next_obs
            fields = (_float32(obs), action, _float32(reward), _float32(next_obs), np.ascontiguousarray(chunk.terminated), ended)
            replay.extend(Experience(*map(torch.from_numpy, fields)), column=0)
        return replay

    def _empty(self, spec: EnvSpec) -> ReplayBuffer:
        try:
            return ReplayBuffer(self.rows, spec)
        except UserError as error:
            size = self.rows * (4 * (2 * self.obs_dim + self.action_dim + 3) + 24)
            advice = "`mbkit data convert` with --episodes A:B makes a smaller data set"
            raise UserError(f"{self.name}: its {self.rows} rows need {size} bytes, more than {spec.device} has; {advice}") from error

    def listed(self, key: str) -> list[Any]:
        """A list in `source` with one value for each episode; None for each where there is no such list."""
        values = self.source.get(key)
        return values if isinstance(values, list) and len(values) == self.episodes else [None] * self.episodes

    def between(self, first: int, stop: int) -> "Dataset":
        """Episodes `first` to `stop` - 1 as a data set, numbered from 0; UserError where there are none."""
        if not 0 <= first < stop <= self.episodes:
            raise UserError(f"{self.name}: expected episodes A:B with 0 <= A < B <= {self.episodes}, got {first}:{stop}")
        begin = int(self.lengths[:first].sum())

        def stream(start: int, stop: int) -> Iterator[Columns]:
            for rows in self.stream(begin + start, begin + stop):
                yield rows._replace(episode=rows.episode - first)

        listed = {key: self.listed(key)[first:stop] for key in PER_EPISODE if key in self.source}
        before = self.rows_before if self.rows_before is not None else ends_of(self.lengths) - self.lengths
        source = {**self.source, **listed, "episodes": [first, stop]}
        return replace(self, stream=stream, lengths=self.lengths[first:stop], rows_before=before[first:stop], source=source)


def rows_of(ends: Integers, start: int, stop: int) -> Iterator[tuple[int, int, Integers, Any]]:
    """Consecutive pieces of rows start to stop: first row, row behind the last, episode of each, whether it ends there."""
    for first in range(start, stop, CHUNK):
        behind = min(first + CHUNK, stop)
        yield first, behind, episodes_of(ends, first, behind), last_rows(ends, first, behind)


def _float32(column: Array) -> Array:
    return np.ascontiguousarray(column, np.float32)


def _spoken(spec: EnvSpec) -> str:
    """Dimensions in words."""
    actions = f"{spec.action_dim} discrete actions" if spec.discrete else f"{spec.action_dim} continuous action dimensions"
    return f"{spec.obs_dim} observation dimensions and {actions}"
