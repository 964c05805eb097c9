"""Files of data sets, told apart by what they hold, never by their names.

A format is a module with `recognises`, `read` and maybe `write`, and a line in FORMATS.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mbkit.data import d4rl, mbrl_replay, minari, minari_writer, native, npz, run_replay, table
from mbkit.data.dataset import Dataset
from mbkit.errors import UserError
from mbkit.paths import check_file, exists, is_dir, is_file, reason, short
from mbkit.registry import nearest

HEAD = 4096  # bytes that a content test is shown


class Format(NamedTuple):
    """How one kind of file is recognised, read and written."""

    name: str
    recognises: Callable[[Path, bytes], bool]  # path, and its first HEAD bytes (none of a directory); first come, first served
    read: Callable[..., Dataset]  # path, and the options that it names
    write: Callable[..., Path] | None = None  # data set, path, and the options that it names


RUN = Format("run", run_replay.recognises, run_replay.read)
FORMATS = (
    RUN,
    Format("mbkit", native.recognises, native.read, native.write),
    Format("minari", minari.recognises, minari.read, minari_writer.write),
    Format("d4rl", d4rl.recognises, d4rl.read, d4rl.write),
    Format("mbrl-lib", mbrl_replay.recognises, mbrl_replay.read),
    Format("npz", npz.recognises, npz.read, npz.write),
    Format("table", table.recognises, table.read),
)


def read(path: str | Path, **options: Any) -> Dataset:
    """The data set in a file or directory of any format; its rows are read, and checked, when they are asked for.

    Args:
        path: the file or directory; it is only read.
        options: what the file does not say, as its format's reader names it; None counts as not passed.

    Raises:
        UserError: there is no such file, its format is unknown, it is damaged, or an option has no meaning for it.
    """
    path = Path(path)
    chosen = format_of(path)
    return chosen.read(path, **_accepted(chosen.read, 1, options, f"{path} is a data set of format {chosen.name}"))


def format_of(path: Path) -> Format:
    """The format of a file or directory; UserError where none recognises it."""
    if RUN.recognises(path, b""):  # RUN@STEP is no path
        return RUN
    if not exists(path):
        raise UserError(f"there is no file {short(path)}")
    head = b""
    if is_file(path):
        try:
            with open(path, "rb") as file:
                head = file.read(HEAD)
        except OSError as error:
            raise UserError(f"{short(path)} cannot be read ({reason(error)})") from error
    for candidate in FORMATS:
        if candidate.recognises(path, head):
            return candidate
    names = ", ".join(candidate.name for candidate in FORMATS)
    raise UserError(
        f"{path}: expected a data set in one of the formats {names}, got {'something else' if head or is_dir(path) else 'nothing'}"
    )


def write(data: Dataset, out: str | Path, to: str = "mbkit", id: str | None = None) -> Path:
    """Write a data set in one of the formats, whole or not at all -> the file or directory.

    Args:
        data: what to write.
        out: the path to write to; an existing file is replaced.
        to: name of the format.
        id: name of the data set, where the format has one: `namespace/name-v0`.

    Raises:
        UserError: an unknown format, a row that fails a check, or a disk that refuses.
    """
    writers = {known.name: known.write for known in FORMATS if known.write is not None}
    if to not in writers:
        raise UserError(f"cannot write format {to!r}; {nearest(to, writers)}")
    out = Path(out)
    if "id" not in inspect.signature(writers[to]).parameters:
        check_file(out)
    return writers[to](data, out, **_accepted(writers[to], 2, {"id": id}, f"format {to}"))


def _accepted(function: Callable[..., Any], first: int, options: dict[str, Any], what: str) -> dict[str, Any]:
    """The options that were passed; UserError for one that the function, whose options begin at parameter `first`, does not name."""
    passed = {key: value for key, value in options.items() if value is not None}
    known = list(inspect.signature(function).parameters)[first:]
    for key in passed:
        if key not in known:
            raise UserError(f"{what}: the option {key} has no meaning for it; {nearest(key, known) if known else 'it has no options'}")
    return passed
