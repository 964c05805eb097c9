"""Published curves, read beside ours and written."""

from pathlib import Path

import numpy as np
import pytest
from run_directories import make_run

from mbkit.errors import UserError
from mbkit.report import write_report
from mbkit.report.collect import group_runs, read_run
from mbkit.report.published import COLUMNS, read_published, write_published
from mbkit.report.tables import board

HEADER = ",".join(COLUMNS)


def published(path: Path, *lines: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_write_published_is_read_again(tmp_path: Path) -> None:
    groups = group_runs([read_run(make_run(tmp_path / str(s), seed=s, env="Hopper-v5", steps=800)) for s in range(2)])
    write_published(tmp_path / "ours.csv", groups)
    ((name, env, runs, file),) = read_published(tmp_path / "ours.csv", ["Hopper-v4"])["Hopper-v4"]
    assert (name, env, file) == ("pets", "Hopper-v5", "ours.csv")
    for series, run in zip(runs, groups[0].runs, strict=True):
        np.testing.assert_array_equal(series.steps, run.series("eval/return").steps)
        np.testing.assert_array_equal(series.values, run.series("eval/return").values)


def test_read_published_orders_steps_and_leaves_out_other_environments(tmp_path: Path) -> None:
    file = published(tmp_path / "x.csv", "A,gym/Hopper-v4,1,return,20,2.5", "A,gym/Hopper-v4,1,return,10,1.5", "A,Ant-v4,1,return,1,1")
    (curve,) = read_published(file, ["Hopper-v5", "Walker2d-v5"])["Hopper-v5"]
    assert (curve.runs[0].steps.tolist(), curve.runs[0].values.tolist()) == ([10, 20], [1.5, 2.5])


def test_read_published_metric_is_named_or_the_likeliest(tmp_path: Path) -> None:
    file = published(tmp_path / "x.csv", "A,H-v1,1,loss,1,7", "A,H-v1,1,Eval/Return,1,8", "A,H-v1,1,other,1,9")
    value = {metric: read_published(f"{file}{metric}", ["H-v1"])["H-v1"][0].runs[0].values[0] for metric in ("", "@loss", "@other")}
    assert value == {"": 8, "@loss": 7, "@other": 9}


def test_read_published_reads_what_a_spreadsheet_saves_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"{HEADER}\nA,H,1,return,1,8\n", encoding="utf-8-sig")
    assert read_published(tmp_path / "x.csv", ["H"])["H"][0].runs[0].values.tolist() == [8]


def test_read_published_metric_behind_a_path_with_an_at_sign(tmp_path: Path) -> None:
    (tmp_path / "me@home").mkdir()
    file = published(tmp_path / "me@home" / "x.csv", "A,H,1,hits@10,1,7", "A,H,1,loss,1,8")
    assert read_published(f"{file}@loss", ["H"])["H"][0].runs[0].values.tolist() == [8]
    plain = published(tmp_path / "x.csv", "A,H,1,hits@10,1,7", "A,H,1,loss,1,8")
    assert read_published(f"{plain}@hits@10", ["H"])["H"][0].runs[0].values.tolist() == [7]


@pytest.mark.parametrize(
    ("lines", "header", "sentence"),
    [
        (["A,H,1,1,1"], HEADER.replace("metric,", ""), "lacks the column metric: expected exp_name.*; came exp_name, env_name"),
        (["A,H,1,return,1,x"], HEADER, "line 2: value must be a number, came 'x'"),
        (["A,H,1,return,1"], HEADER, "line 2: expected 6 values in a row"),
        (["A,Ant-v4,1,return,1,1"], HEADER, "has no curve of H: it has Ant-v4"),
        (["A,H,1,return,nan,1"], HEADER, "line 2: env_step must be a finite number from 0 on, came nan"),
        (["A,H,1,return,1,1", "A,H,1,return,-1,1"], HEADER, "line 3: env_step must be a finite number from 0 on, came -1"),
        (["A,H,1,return,1,nan"], HEADER, "x.csv has no finite value of H$"),
        (["A,H,1,loss,1,1", "A,H,1,time,1,1"], HEADER, "has the metrics loss, time: name one, as in --beside .*@loss"),
    ],
)
def test_read_published_mistakes_are_one_sentence(tmp_path: Path, lines: list[str], header: str, sentence: str) -> None:
    file = published(tmp_path / "x.csv", *lines, header=header)
    with pytest.raises(UserError, match=sentence):
        read_published(file, ["H"])


def test_read_published_without_such_a_file_or_metric(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file; expected a CSV with the columns"):
        read_published(tmp_path / "none.csv", ["H"])
    file = published(tmp_path / "x.csv", "A,H,1,return,1,1")
    with pytest.raises(UserError, match="has no metric 'loss': it has return"):
        read_published(f"{file}@loss", ["H"])
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is no CSV file"):
        read_published(file, ["H"])


def test_write_report_beside_says_versions_and_ranks_at_our_last_step(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", env="Hopper-v5", steps=800, learned=False)
    lines = [f"Theirs,Hopper-v4,{seed},return,{step},{step + seed}" for seed in range(3) for step in (0, 400, 800, 1600)]
    file = published(tmp_path / "theirs.csv", *lines)
    html = write_report([run], tmp_path / "page.html", beside=[file], csv=tmp_path / "ours.csv").read_text()
    assert "Dashed: Theirs, published, interquartile mean over 3 seeds (theirs.csv)." in html
    assert "The published curves are of Hopper-v4, ours of Hopper-v5" in html
    groups = group_runs([read_run(run)])
    first, second = board(groups, read_published(file, ["Hopper-v5"])["Hopper-v5"])
    assert (first.label, first.score.point, first.note) == ("Theirs", 801, "published, Hopper-v4, at step 800")
    assert second.group is groups[0]
    assert (tmp_path / "ours.csv").read_text().startswith(HEADER)
