"""Pages that are executed: the tour with its commands, and the Python of how-tos and of the pages for those who come from elsewhere."""

import re
from pathlib import Path

import pytest
import torch
from pages import run_page

DOCS = Path(__file__).parent.parent / "docs"
TOUR = DOCS / "tour.md"
PYTHON = [*sorted((DOCS / "coming_from").glob("*.md")), DOCS / "howto/index.md", DOCS / "howto/reproduce.md"]
PYTHON = [page for page in PYTHON if "```python" in page.read_text()]
QUICK = {  # options behind those of the tour, of which the last ones count
    "train": ["steps=40", "threads=1", "eval.episodes=1", "eval.every=0", "eval.video=false"],
    "resume": ["steps=60"],
}
SMALLER = {
    "dyna": ["loop.warmup_steps=20", "loop.fit_every=20", "dynamics.hidden=[16]", "dynamics.max_epochs=2"],
    "pets": ["planner.candidates=12", "agent.horizon=3", "env_kwargs.max_episode_steps=30"],
    "mve": ["agent.hidden=[8]", "loop.warmup_steps=20", "loop.batch_size=16"],
    "mopo": ["agent.hidden=[8]", "imagination.horizon=2", "imagination.starts=20"],
}


def quick(arguments: list[str]) -> list[str]:
    """A command of the tour, and what makes it quick."""
    if arguments[0] == "evaluate":
        return [*arguments, *(["--updates", "5"] if "--data" in arguments else ["--episodes", "1"])]
    return [*arguments, *QUICK.get(arguments[0], []), *SMALLER.get(arguments[1], [])]


def test_tour_runs_with_fewer_steps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = run_page(TOUR, quick)
    assert "imagination" in printed  # the options of Dyna
    for file in ("comparison.html", "policy.pt2", "replay.h5", "runs/first/dynamics.pt", "runs/first/report.html"):
        assert (tmp_path / file).is_file()


@pytest.mark.slow
def test_tour_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = run_page(TOUR)
    scores = [float(score) for score in re.findall(r"^return (-?[\d.]+) ±", printed, re.MULTILINE)]
    assert len(scores) > 5
    assert max(scores) > -250  # of Pendulum-v1, where random actions have -1250


@pytest.mark.parametrize("page", PYTHON, ids=[page.stem for page in PYTHON])
def test_pages_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict = {"__name__": page.stem}
    for text in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(text, str(page), "exec"), names)
