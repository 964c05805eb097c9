"""Pages of the documentation, executed as a reader would: every Python block and every command, in their order."""

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from typer.testing import CliRunner

from mbkit import cli


def run_page(
    page: Path,
    change: Callable[[list[str]], list[str]] = lambda arguments: arguments,
    scripts: Mapping[str, Callable[[list[str]], object]] = MappingProxyType({}),
) -> str:
    """Execute the page in the working directory; what the commands printed.

    `change` makes a command's arguments smaller, `scripts` are those that the page calls.
    """
    names, counts, printed = {}, {"python": 0, "bash": 0}, ""
    for kind, text in re.findall(r"^```(python|bash)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        counts[kind] += 1
        if kind == "python":
            exec(compile(text, str(page), "exec"), names)
            continue
        for line in text.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line, comments=True)
            if program == "python":
                scripts[arguments[0]](arguments[1:])
                continue
            result = CliRunner().invoke(cli.app, change(arguments))
            assert (program, result.exit_code) == ("mbkit", 0), f"{line}: {result.exception}"
            printed += result.stdout
    assert min(counts.values()) > 0
    return printed
