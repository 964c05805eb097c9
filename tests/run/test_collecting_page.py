"""Every command and every Python block of docs/collecting.md, in its order, on fewer steps."""

import re
from pathlib import Path

from pages import run_page

from mbkit.data import read

PAGE = Path(__file__).parents[2] / "docs/collecting.md"
QUICK = ["steps=300", "loop.warmup_steps=100", "checkpoint.every=100", "eval.every=100", "eval.episodes=1", "eval.video=false"]


def quick(arguments: list[str]) -> list[str]:
    """The arguments of a command, with fewer steps."""
    fewer = [re.sub(r"^(\d+)000$", r"\g<1>0", x.replace("@2000", "@100")) for x in arguments]
    return [*fewer, *QUICK, "agent.hidden=[8]"] if arguments[0] == "train" else fewer


def test_page_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    printed = run_page(PAGE, quick)
    assert "rows:         398 in 2 episodes" in printed
    assert "note: there are no rewards" in printed
    assert read("history.h5").obs_names[:3] == ("level[t]", "temperature[t]", "level[t-1]")
    assert read("history.h5").episodes == 2
    assert (read("replay.h5").rows, read("medium.h5").rows) == (300, 100)
    assert re.findall(r"^(random|runs/\S+) \[(\d+), (\d+)\] 0\.0$", capsys.readouterr().out, re.MULTILINE) == [
        ("random", "0", "100"), ("runs/pendulum@100", "100", "200"), ("runs/pendulum", "200", "300"),
    ]  # fmt: skip
