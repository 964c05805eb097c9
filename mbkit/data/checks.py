"""What must hold of every row of a data set, whatever its format: one pass, chunk by chunk, and a sentence for the first row that fails.

Letters: E episodes, B rows of a chunk, O observation, A action.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mbkit.data.columns import Array, Columns, ends_of, last_rows
from mbkit.errors import UserError

if TYPE_CHECKING:
    from mbkit.data.dataset import Dataset

EDGE = 1e-5  # of the action box: how far an action may lie beyond it, as a share of its width
LARGEST = float(np.finfo(np.float32).max)  # agents learn in float32
Mask = NDArray[np.bool_]


class RowChecks:
    """Checks consecutive chunks of one data set; the first row that fails raises UserError with file, row and episode.

    Args:
        data: the data set that the rows belong to.
        start: number of the first row to come.
    """

    def __init__(self, data: "Dataset", start: int = 0) -> None:
        self.data, self.row = data, start
        self.ends = ends_of(data.lengths)
        self.before: Array | None = None  # [O] successor of the row before, where its episode goes on

    def __call__(self, rows: Columns) -> Columns:
        """The same rows, once they are checked."""
        self.shapes(rows)
        last = last_rows(self.ends, self.row, self.row + len(rows.reward))
        for name in ("obs", "action", "reward", "next_obs"):
            self._finite(name, getattr(rows, name))
        self._inside(rows.action)
        self._flags(rows, last)
        self._linked(rows, last)
        self.row += len(rows.reward)
        self.before = None if last[-1] else rows.next_obs[-1].copy()
        return rows

    def shapes(self, rows: Columns) -> None:
        """UserError unless the columns are as long and as wide as they must be, and discrete actions whole numbers."""
        data, count = self.data, len(rows.reward)
        observation, action = (count, data.obs_dim), (count,) if data.choices else (count, data.action_dim)
        expected = (observation, action, (count,), observation, (count,), (count,), (count,))
        for name, column, shape in zip(Columns._fields, rows, expected, strict=True):
            if column.shape != shape:
                raise UserError(f"{data.name}: {name} from row {self.row}: expected shape {list(shape)}, got {list(column.shape)}")
        if data.choices and rows.action.dtype.kind not in "iu":
            raise UserError(f"{data.name}: action: expected whole numbers, since actions are discrete, got {rows.action.dtype.name}")

    def _finite(self, name: str, values: Array) -> None:
        if values.dtype.kind != "f":
            return
        wrong = ~(np.abs(values) <= LARGEST)  # True for NaN
        if wrong.any():
            row = _first(wrong)
            culprit = values[row].reshape(-1)[_first(wrong[row].reshape(-1))]
            where = f", dimension {_first(wrong[row])}" if values.ndim > 1 else ""
            self._refuse(row, f"{name}{where}", "finite numbers" + " within float32" * bool(np.isfinite(culprit)), culprit)

    def _inside(self, action: Array) -> None:
        """Actions lie in the box, or are one of the choices."""
        data = self.data
        if data.choices:
            first, highest = data.start, data.start + data.choices - 1
            wrong = (action < first) | (action > highest)
            if wrong.any():
                self._refuse(_first(wrong), "action", f"one of {first} to {highest}", action[_first(wrong)])
            return
        low, high = data.box
        edge = EDGE * (high - low)
        wrong = (action < low - edge) | (action > high + edge)
        if wrong.any():
            row = _first(wrong)
            n = _first(wrong[row])
            self._refuse(row, f"action, dimension {n}", f"a number in [{low[n]:g}, {high[n]:g}]", action[row, n])

    def _flags(self, rows: Columns, last: Mask) -> None:
        """Only the last row of an episode ends it."""
        for name in ("terminated", "truncated"):
            wrong = getattr(rows, name) & ~last
            if wrong.any():
                self._refuse(_first(wrong), name, "False before the last row of an episode", True)

    def _linked(self, rows: Columns, last: Mask) -> None:
        """Inside an episode the successor is the observation of the following row."""
        if self.before is not None and not np.array_equal(self.before, rows.obs[0]):
            self._unlinked(-1, self.before, rows.obs[0])
        wrong = (rows.next_obs[:-1] != rows.obs[1:]).any(1) & ~last[:-1]
        if wrong.any():
            row = _first(wrong)
            self._unlinked(row, rows.next_obs[row], rows.obs[row + 1])

    def _unlinked(self, row: int, successor: Array, following: Array) -> None:
        n = _first(successor != following)
        self._refuse(row, f"next_obs, dimension {n}", f"{following[n]!s}, the observation of the following row", successor[n])

    def _refuse(self, row: int, what: str, expected: str, value: Any) -> None:
        raise UserError(f"{self.data.name}: {what} of {self.data.place(self.row + row)}: expected {expected}, got {value!s}")


def _first(mask: Mask) -> int:
    """Index on the first axis of the first True."""
    return int(np.flatnonzero(mask.reshape(len(mask), -1).any(1))[0])
