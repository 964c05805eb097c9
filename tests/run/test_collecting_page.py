"""Every command and every Python block of docs/collecting.md, in its order, on fewer steps."""

import re
import shlex
from pathlib import Path

from typer.testing import CliRunner

from mbkit import cli
from mbkit.data import read

PAGE = Path(__file__).parents[2] / "docs/collecting.md"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
QUICK = ["steps=300", "loop.warmup_steps=100", "checkpoint.every=100", "eval.every=100", "eval.episodes=1", "eval.video=false"]


def quick(line: str) -> list[str]:
    """The arguments of a command, with fewer steps."""
    line = line.replace("@2000", "@100")
    program, *arguments = shlex.split(re.sub(r"--steps (\d+)000", r"--steps \g<1>0", line))
    assert program == "mbkit"
    return [*arguments, *QUICK, "agent.hidden=[8]"] if arguments[0] == "train" else arguments


def test_page_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    printed = ""
    for kind, text in BLOCK.findall(PAGE.read_text()):
        if kind == "python":
            exec(compile(text, str(PAGE), "exec"), {})
            continue
        for line in text.splitlines():
            result = CliRunner().invoke(cli.app, quick(line), standalone_mode=False)
            assert result.exception is None, f"{line}: {result.exception}"
            printed += result.stdout
    assert "rows:         398 in 2 episodes" in printed
    assert "note: there are no rewards" in printed
    assert read("history.h5").obs_names[:3] == ("level[t]", "temperature[t]", "level[t-1]")
    assert read("history.h5").episodes == 2
    assert (read("replay.h5").rows, read("medium.h5").rows) == (300, 100)
    assert re.findall(r"^(random|runs/\S+) \[(\d+), (\d+)\] 0\.0$", capsys.readouterr().out, re.MULTILINE) == [
        ("random", "0", "100"), ("runs/pendulum@100", "100", "200"), ("runs/pendulum", "200", "300"),
    ]  # fmt: skip
