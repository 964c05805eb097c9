"""Everything on docs/data.md, in the reader's order: its Python runs, its commands succeed."""

import re
import shlex
from pathlib import Path

from typer.testing import CliRunner

from mbkit import cli

PAGE = Path(__file__).parents[2] / "docs/data.md"


def test_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, counts = {}, {"python": 0, "bash": 0}
    for kind, text in re.findall(r"^```(python|bash)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        counts[kind] += 1
        if kind == "python":
            exec(compile(text, str(PAGE), "exec"), names)
            continue
        for line in text.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line, comments=True)
            result = CliRunner().invoke(cli.app, arguments)
            assert (program, result.exit_code) == ("mbkit", 0), f"{line}: {result.exception}"
    assert min(counts.values()) > 0
