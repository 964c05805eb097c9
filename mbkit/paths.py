"""Paths and names that a user typed, or that a file holds: looked up, listed, read and checked, every failure one sentence.

pathlib's `is_file`, `is_dir`, `exists` and `glob` raise OSError where a name is longer than the file system allows, and where a directory
may not be searched. Here nothing has the name in the first case, and the second one is a UserError.
"""

import errno
import os
from fnmatch import fnmatchcase
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from mbkit.errors import UserError

ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EBADF, errno.EINVAL, errno.ENAMETOOLONG}  # nothing has, or can have, this name
TEMPORARY = ".tmp"  # behind the name of a file while it is written
PART, WHOLE = 100, 300  # letters of a part of a path, and of a path, that messages show


def short(path: object) -> str:
    """A path or name as messages show it: one line, without the middle of parts with more than 100 letters, or of a path of 300."""
    text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in str(path))
    text = "/".join(_without_middle(part, PART) for part in text.split("/"))
    return _without_middle(text, WHOLE)


def _without_middle(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most // 3) :]}"


def reason(error: Exception) -> str:
    """Why the system refused, in a few words."""
    return str(getattr(error, "strerror", None) or error).partition("\n")[0] or type(error).__name__


# --- looking up ----------------------------------------------------------------------------------------------------------------------


def _mode(path: str | Path) -> int:
    """The file's mode, 0 where nothing has this name or can have it; UserError where the system does not tell."""
    try:
        return Path(path).stat().st_mode
    except ValueError:  # a NUL, or a letter that the file system's encoding lacks
        return 0
    except OSError as error:
        if error.errno in ABSENT:
            return 0
        raise UserError(f"{short(path)} cannot be looked up ({reason(error)})") from error


def exists(path: str | Path) -> bool:
    """Whether there is such a file or directory; UserError where the system does not tell."""
    return _mode(path) != 0


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; UserError where the system does not tell."""
    return S_ISREG(_mode(path))


def is_dir(path: str | Path) -> bool:
    """Whether there is such a directory; UserError where the system does not tell."""
    return S_ISDIR(_mode(path))


def matching(directory: str | Path, pattern: str) -> list[Path]:
    """The entries of a directory whose names match a pattern like `*.yaml`, sorted; none where there is no such directory.

    Raises:
        UserError: the system does not tell.
    """
    if not is_dir(directory):
        return []
    try:
        return [Path(directory, name) for name in sorted(os.listdir(directory)) if fnmatchcase(name, pattern)]
    except OSError as error:
        raise UserError(f"{short(directory)} cannot be listed ({reason(error)})") from error


def resolved(path: str | Path) -> Path:
    """The path without links and relative parts; UserError where links lead in a circle, or no file can have this name."""
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{short(path)} cannot be looked up ({reason(error)})") from error


def read_text(path: str | Path, where: str = "", errors: str = "strict") -> str:
    """The content of a text file in UTF-8; `where` goes before the message, `errors` is that of `open`.

    Raises:
        UserError: the file is absent, cannot be read, or is no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8", errors=errors)
    except (OSError, ValueError) as error:
        raise UserError(f"{where}{short(path)} cannot be read ({reason(error)})") from error


# --- before something is written ------------------------------------------------------------------------------------------------------


def check_file(path: str | Path, makes_folders: bool = False) -> None:
    """UserError where no file can be written here: it is a directory, there is none for it, or no file can have this name.

    `makes_folders`: directories that are absent will be made.
    """
    path = Path(path)
    if is_dir(path):
        raise UserError(f"{short(path)} cannot be written: it is a directory")
    if not makes_folders and not is_dir(path.parent):
        raise UserError(f"{short(path)} cannot be written: there is no directory {short(path.parent)}")
    try:
        check_folder(path.with_name(path.name + TEMPORARY))
    except OSError as error:
        raise UserError(f"{short(path)} cannot be written ({reason(error)})") from error


def check_folder(path: str | Path, below: str = "") -> None:
    """OSError where a part of this path, or the whole with the longest path `below` it, is no name that a directory can have.

    Parts that are absent stay absent, which `mkdir(parents=True)` would make before it comes to a name that is too long.
    """
    path = Path(path)
    _check_name(path.absolute() / below)
    present = next((place for place in (path, *path.parents) if exists(place)), Path())
    for part in path.relative_to(present).parts:
        _check_name(present / part)


def make_folder(path: str | Path) -> None:
    """Make a directory, and those above it, where they are absent; UserError, and none of them, where that cannot be."""
    try:
        check_folder(path)
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "it is a file" if is_file(path) else reason(error)
        raise UserError(f"directory {short(path)} cannot be made ({why})") from error


def _check_name(path: Path) -> None:
    """OSError where no file can have this name, or it is looked for below a file; nothing where it is absent."""
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except ValueError as error:
        raise OSError(errno.EINVAL, "its name holds a NUL" if "\0" in str(path) else reason(error)) from error
