"""Everything on docs/offline.md, in the reader's order: its Python runs, its commands succeed, with fewer updates."""

from pathlib import Path

import pytest
from pages import run_page

PAGE = Path(__file__).parents[2] / "docs/offline.md"
LEARNING = ["agent.hidden=[8]", "loop.batch_size=16", "loop.log_every=10", "threads=1"]
SCORED = ["eval.video=false", "eval.episodes=1", "eval.every=0"]
SMALLER = {  # options behind those of the page, of which the last ones count
    "train": [*LEARNING, "steps=20"],
    "finetune": [*SCORED, "loop.batch_size=16", "loop.log_every=10", "steps=20"],
    "resume": ["steps=30"],
    "collect": ["--steps", "300"],
}


def smaller(arguments: list[str]) -> list[str]:
    """The command as it stands on the page, and what makes it quick."""
    name = arguments[1] if arguments[0] == "data" else arguments[0]
    more = SMALLER.get(name, [])
    if name == "evaluate":
        more = ["--episodes", "1", *(["--updates", "5"] if "--data" in arguments else [])]
    if name == "train" and "env=none" not in arguments:
        more = [*more, *SCORED]
    return [*arguments, *more]


@pytest.mark.slow
def test_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(PAGE, smaller)
