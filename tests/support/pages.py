"""Pages of the documentation, executed as a reader would: every Python block and every command, in their order."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from mbkit import cli


def run_page(page: Path, change: Callable[[list[str]], list[str]] = lambda arguments: arguments) -> str:
    """Execute the page in the working directory; `change` makes a command's arguments smaller. What the commands printed."""
    names, counts, printed = {}, {"python": 0, "bash": 0}, ""
    for kind, text in re.findall(r"^```(python|bash)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        counts[kind] += 1
        if kind == "python":
            exec(compile(text, str(page), "exec"), names)
            continue
        for line in text.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line, comments=True)
            result = CliRunner().invoke(cli.app, change(arguments))
            assert (program, result.exit_code) == ("mbkit", 0), f"{line}: {result.exception}"
            printed += result.stdout
    assert min(counts.values()) > 0
    return printed
