"""Docstrings for autodoc as they are written here: single backticks are code, other marks plain text; comments beside fields are shown."""

import inspect
import re
from typing import Any

from sphinx.application import Sphinx

FIELD = re.compile(r"^    (\w+): (.+?)(?:  # (.+))?$")
ARRAY_LIKE = re.compile(r"[~\w.]*_Buffer \| .*?_NestedSequence\[[^\]]*bytes \| str\]")  # what NumPy's ArrayLike stands for
METHOD = re.compile(r"^    def (\w+)\((?:self(?:, )?)?(.*)\) -> (.+?): \.\.\.(?:  # (.+))?$")


def escaped(line: str) -> str:
    """One line as reStructuredText that shows the same characters."""
    parts = re.split(r"`+([^`]+)`+", line)
    marked = [f"``{part}``" if i % 2 else re.sub(r"([*|\\`]|_(?!\w))", r"\\\1", part) for i, part in enumerate(parts)]
    return re.sub(r"(``[^`]+``)(?=\w)", r"\1\\ ", "".join(marked))  # `name`s: what follows code at once is divided from it


def fields(cls: type) -> list[str]:
    """The fields and protocol methods in the source of a class, each with its comment, as list items."""
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):
        return []
    items = []
    for line in source.splitlines():
        if match := METHOD.match(line):
            name, arguments, returned, comment = match.groups()
            items.append((f"{name}({arguments}) -> {returned}", comment))
        elif line.startswith("    def "):
            break
        elif match := FIELD.match(line):
            name, rest, comment = match.groups()
            items.append((f"{name}: {rest}", comment))
    return [f"* ``{code}``" + (f": {escaped(comment)}" if comment else "") for code, comment in items]


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape the lines in place, before napoleon reads their sections; a class gets its fields."""
    literal = False
    for i, line in enumerate(lines):
        literal = (literal and (not line.strip() or line.startswith("    "))) or (i > 0 and lines[i - 1].rstrip().endswith("::"))
        if not literal:
            lines[i] = escaped(line)
    if what in ("property", "attribute"):
        lines.insert(0, "")  # or napoleon takes what stands before a colon for a type
    if what == "class" and isinstance(obj, type) and (items := fields(obj)):
        lines += ["", *items, ""]


def skip(app: Sphinx, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, which stand in the list of the class."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def sign(app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returned: str | None) -> tuple[str | None, ...]:
    """The signature with the name of NumPy's alias."""
    return ARRAY_LIKE.sub("ArrayLike", signature) if signature else signature, returned


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect all."""
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", sign)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
