"""Everything on docs/data.md, in the reader's order: its Python runs, its commands succeed."""

from pathlib import Path

from pages import run_page

PAGE = Path(__file__).parents[2] / "docs/data.md"


def test_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(PAGE)
