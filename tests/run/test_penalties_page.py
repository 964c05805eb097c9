"""Everything on docs/penalties.md, in the reader's order, on smaller data and with smaller models."""

from pathlib import Path

from pages import run_page

PAGE = Path(__file__).parents[2] / "docs/penalties.md"
SMALLER = {
    "collect": ["--steps", "300"],
    "fit": ["dynamics.hidden=[8]", "dynamics.members=2", "dynamics.elites=2", "dynamics.max_epochs=1"],
}


def test_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(PAGE, lambda arguments: [*arguments, *SMALLER.get(arguments[1], [])])
    assert {path.name for path in tmp_path.iterdir()} >= {
        "dynamics.report.html",
        "held_out.html",
        "held_out.json",
        "held_out.png",
        "half.pt",
    }
