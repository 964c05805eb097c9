"""Notes on runs: what several runs say stands on the page once."""

import json

from run_directories import make_run

from mbkit.report.collect import read_run
from mbkit.report.remarks import remarks


def noting(path, seed, *notes):
    """A run whose summary has these notes."""
    make_run(path, seed=seed)
    summary = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(json.dumps({**summary, "notes": list(notes)}))
    return read_run(path)


def test_remarks_of_all_runs_stand_once_without_names(tmp_path):
    runs = [noting(tmp_path / f"run{seed}", seed, "The reward is learned.", "no video: no renderer.") for seed in range(3)]
    assert remarks(runs) == ["The reward is learned.", "No video: no renderer."]


def test_remarks_of_some_runs_name_them(tmp_path):
    runs = [noting(tmp_path / "a", 0, "One.", "One"), noting(tmp_path / "b", 1), noting(tmp_path / "c", 2, "One.")]
    assert remarks(runs) == ["pets, seed 0 (a); pets, seed 2 (c): One."]
