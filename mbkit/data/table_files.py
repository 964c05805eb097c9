"""Tables of named columns in text files (CSV) and Parquet, read in blocks of rows.

Letters: B rows of a block.
"""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from mbkit.data.columns import Array
from mbkit.errors import UserError

MAGIC = b"PAR1"
DELIMITERS = ",;\t|"
ROWS = 16_384  # of a block: texts take much more memory than their numbers
SECOND = np.timedelta64(1, "s")


class Cells(NamedTuple):
    """Consecutive rows of some columns."""

    rows: int
    columns: list[Array]  # [B] for each column: numbers, times or texts


class TableFile(Protocol):
    """A file of named columns."""

    path: Path
    names: list[str]

    def blocks(self, names: Sequence[str], start: int = 0, stop: int | None = None) -> Iterator[Cells]:
        """Rows start to stop of the columns called `names`."""


class CsvTable:
    """A text file: names in its first line, then a row a line, divided by commas, semicolons, tabs or bars; blank lines do not count."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as file:
            line = file.readline()
            self.delimiter = max(DELIMITERS, key=line.count)
            self.names = [name.strip() for name in next(csv.reader([line], delimiter=self.delimiter), [])]
        if all(map(is_number, self.names)):
            raise UserError(f"{path}: expected the names of its columns in the first line, got {', '.join(self.names)[:60]}")

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with open(self.path, encoding="utf-8-sig", newline="") as file:
                yield file
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"{self.path} cannot be read as a table of text ({reason})") from error

    def blocks(self, names: Sequence[str], start: int = 0, stop: int | None = None) -> Iterator[Cells]:
        """Rows start to stop; the cells are texts. UserError where a row has another number of cells than there are names."""
        indices = [self.names.index(name) for name in names]
        with self._opened() as file:
            reader = csv.reader(file, delimiter=self.delimiter)
            next(reader)
            rows = islice(filter(None, reader), start, stop)
            first = start
            while lines := list(islice(rows, ROWS)):
                for number, line in enumerate(lines):
                    if len(line) != len(self.names):
                        raise UserError(f"{self.path}: row {first + number}: expected {len(self.names)} cells, got {len(line)}")
                yield Cells(len(lines), [np.array([line[i] for line in lines]) for i in indices])
                first += len(lines)


class ParquetTable:
    """A Parquet file, for which pyarrow is needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as file:
            self.names = list(file.schema_arrow.names)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
        except ImportError as error:
            raise UserError(f'{self.path} is a Parquet file, which needs pyarrow: pip install "mbkit[parquet]" ({error})') from error
        try:
            with parquet.ParquetFile(self.path) as file:
                yield file
        except (arrow.ArrowException, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"{self.path} cannot be read: expected a Parquet file, found a damaged or cut one ({reason})") from error

    def blocks(self, names: Sequence[str], start: int = 0, stop: int | None = None) -> Iterator[Cells]:
        """Rows start to stop; the cells have the types of the file, and numbers that are missing are NaN."""
        with self._opened() as file:
            rows, first = file.metadata.num_rows, 0
            stop = rows if stop is None else min(stop, rows)
            if not names:
                yield Cells(max(0, stop - start), [])
                return
            for batch in file.iter_batches(ROWS, columns=list(names)):
                begin, behind = max(start, first), min(stop, first + batch.num_rows)
                if begin < behind:
                    piece = batch.slice(begin - first, behind - begin)
                    yield Cells(behind - begin, [piece.column(name).to_numpy(zero_copy_only=False) for name in names])
                first += batch.num_rows


def opened(path: Path, head: bytes) -> TableFile:
    """The table in a file that begins with `head`; UserError where it cannot be read."""
    return ParquetTable(path) if head[: len(MAGIC)] == MAGIC else CsvTable(path)


def is_table(head: bytes) -> bool:
    """Whether a file that begins with `head` is Parquet, or text whose first two lines have equally many cells, two at least."""
    if head[: len(MAGIC)] == MAGIC:
        return True
    text = head.decode("utf-8-sig", errors="replace").rstrip("�")  # the last letter may be cut
    if "�" in text or "\0" in text or text.lstrip()[:1] in ("{", "[", "<", ""):
        return False
    lines = text.splitlines()
    delimiter = max(DELIMITERS, key=lines[0].count)
    cells = [len(row) for row in csv.reader(lines[:2], delimiter=delimiter)]
    cut = len(lines) == 2 and not text.endswith(("\n", "\r"))  # the second line may go on behind the head
    return cells[0] > 1 and (len(cells) < 2 or cells[1] in (0, cells[0]) or (cut and cells[1] < cells[0] and len(head) >= 1024))


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def as_numbers(table: TableFile, name: str, cells: Array, first: int) -> Array:
    """A column as numbers in its own dtype, texts as float64; empty cells are NaN. `first` is the number of its first row.

    Raises:
        UserError: a cell is no number.
    """
    if cells.dtype.kind in "iufb":
        return cells
    texts = np.where(cells == "", "nan", cells) if cells.dtype.kind == "U" else cells
    try:
        return texts.astype(np.float64)
    except (ValueError, TypeError):
        row = next(row for row, cell in enumerate(texts) if not is_number(str(cell)))
        raise UserError(f"{table.path}: {name} of row {first + row}: expected a number, got {str(cells[row])!r:.60}") from None


def as_seconds(table: TableFile, name: str, cells: Array, first: int) -> Array:
    """A column of times as seconds in float64: numbers, or dates like 2026-01-31T12:00:00.5; UserError where it is neither."""
    if cells.dtype.kind in "UO" and len(cells) and not is_number(str(cells[0])):
        try:
            cells = np.array([str(cell).strip().removesuffix("Z") for cell in cells], "datetime64[ns]")
        except ValueError:
            expected = "seconds, or a date like 2026-01-31T12:00:00"
            raise UserError(f"{table.path}: {name} of row {first} and following ones: expected {expected}, got {cells[0]!s:.60}") from None
    if cells.dtype.kind == "M":
        return (cells - np.datetime64(0, "ns")) / SECOND
    return as_numbers(table, name, cells, first).astype(np.float64)


def as_flags(table: TableFile, name: str, cells: Array, first: int) -> Array:
    """A column of 0 and 1, or of true and false, as booleans; UserError where it holds something else."""
    if cells.dtype.kind in "UO":
        cells = cells.astype(str)
        lower = np.char.lower(np.char.strip(cells))
        cells = np.where(lower == "true", "1", np.where(lower == "false", "0", cells))
    values = as_numbers(table, name, cells, first)
    wrong = np.flatnonzero(~np.isin(values, (0, 1)))
    if len(wrong):
        raise UserError(f"{table.path}: {name} of row {first + wrong[0]}: expected 0 or 1, got {str(cells[wrong[0]])!r:.60}")
    return values.astype(np.bool_)
