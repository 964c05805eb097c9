"""The queue of long runs: its commands are valid, what would not end in time is left out, finished runs are tabulated."""

import csv
import importlib
import json
import sys
from pathlib import Path

import pytest

from mbkit.config import compose

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
queue = importlib.import_module("results_queue")


@pytest.mark.parametrize("queued", queue.QUEUE, ids=[queued.row.name for queued in queue.QUEUE])
def test_every_row_is_a_valid_command(queued):
    train, algo, *options = queued.row.command(11)
    assert train == "train"
    assert compose(algo, options).seed == 11
    assert queued.hours > 0


def test_names_of_rows_differ():
    assert len({queued.row.name for queued in queue.QUEUE}) == len(queue.QUEUE)


def test_runs_that_would_not_end_are_left_out_and_finished_ones_are_not_repeated(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(queue, "run", lambda row, seed, *_: begun.append((row.name, seed)))
    folder = queue.directory(tmp_path, queue.QUEUE[0].row, 11)
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("{}")
    most = max(queued.hours for queued in queue.QUEUE)
    left_out = queue.work(tmp_path, [11], most - 0.01)
    assert [f"{name} 11" for name, _ in begun] == [f"{q.row.name} 11" for q in queue.QUEUE[1:] if q.hours < most - 0.01]
    assert len(left_out) == sum(q.hours > most - 0.01 for q in queue.QUEUE)
    assert "11" in queue.listed(tmp_path, [11, 12]).splitlines()[0]


def test_curves_are_rows_of_the_field_s_long_form(tmp_path):
    row = queue.QUEUE[0].row
    folder = queue.directory(tmp_path, row, 12)
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("{}")
    lines = [{"step": 500, "seconds": 1.0, "eval/return": 7.5}, {"step": 600, "critic/q": 3.0}]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert list(queue.evaluations(tmp_path)) == [(row.name, row.env, 12, "return", 500, 7.5)]
    out = tmp_path / "curves.csv"
    with out.open("w", newline="") as file:
        csv.writer(file).writerows(queue.evaluations(tmp_path))
    assert out.read_text().strip() == f"{row.name},{row.env},12,return,500,7.5"
