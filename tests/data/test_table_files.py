"""Tables as text and as Parquet: what is recognised, delimiters, quotes, dates, and a missing package."""

import sys

import numpy as np
import pytest

from mbkit.data import read
from mbkit.data.table_files import CsvTable, is_table
from mbkit.errors import UserError

BOX = {"low": -1, "high": 1}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_text_is_read_with_its_delimiter_quotes_and_blank_lines(tmp_path, delimiter):
    path = tmp_path / "log.txt"
    lines = [["time, s", "y", "u"], ["0", "1", "0.5"], [], ["1", "2e0", " -0.5"], ["2", "3", "0"]]
    path.write_text("\ufeff" + "\r\n".join(delimiter.join(f'"{cell}"' for cell in line) for line in lines) + "\r\n\r\n")
    data = read(path, obs=["time, s", "y"], action="u", time="time, s", **BOX)
    assert data.columns().obs.tolist() == [[0, 1], [1, 2]]
    assert data.columns().action.tolist() == [[0.5], [-0.5]]
    assert read(path, obs="time, s", action="u", **BOX).obs_names == ("time, s",)  # the whole name comes first


def test_dates_are_seconds(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("when,y,u\n2026-01-31T23:59:59.5Z,1,0\n2026-02-01T00:00:00Z,2,0\n2026-02-01T01:00:00Z,3,0\n2026-02-01T01:00:01Z,4,0\n")
    data = read(path, obs="y", action="u", time="when", gap=60, **BOX)
    assert data.lengths.tolist() == [1, 1]
    assert data.source["seconds_per_step"] == pytest.approx(0.75)


def test_parquet_columns_have_their_types(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "log"
    when = np.array(["2026-01-01T00:00:00", "2026-01-01T00:00:02", "2026-01-01T00:00:04"], "datetime64[ms]")
    columns = {
        "when": when,
        "y": np.float32([1, 2, 3]),
        "n": [4, 5, 6],
        "u": [0, 1, 1],
        "end": [False, False, True],
        "who": ["a", "a", "a"],
    }
    parquet.write_table(arrow.table(columns), path)
    data = read(path, obs="y", action="u", choices=2, time="when", terminated="end", episode="who")
    rows = data.columns()
    assert (rows.obs.dtype, rows.action.dtype, rows.action.tolist()) == (np.float32, np.int64, [0, 1, 1])
    assert rows.terminated.tolist() == [False, False, True]
    assert data.source["seconds_per_step"] == 2
    assert read(path, obs="y,n", action="u", choices=2).columns().obs.dtype == np.float64


def test_parquet_without_its_package_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "log.parquet"
    path.write_bytes(b"PAR1" + bytes(100))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r'needs pyarrow: pip install "mbkit\[parquet\]"'):
        read(path, obs="y", action="u", **BOX)


def test_damaged_files_are_refused(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "log.parquet"
    path.write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(UserError, match="expected a Parquet file, found a damaged or cut one"):
        read(path, obs="y", action="u", **BOX)
    path = tmp_path / "log.csv"
    path.write_bytes(b"y,u\n" + b"1,0\n" * 2000 + b"\xff\xfe,0\n1,0\n")
    with pytest.raises(UserError, match="cannot be read as a table of text"):
        read(path, obs="y", action="u", **BOX).columns()


@pytest.mark.parametrize("head", [b"", b"nothing of the kind", b'{"a": 1, "b": 2}', b"<a, b>\n", b"one, two\nthree\n", b"a,b\n\0\0,1\n"])
def test_other_texts_are_no_tables(head):
    assert not is_table(head)


@pytest.mark.parametrize("head", [b"a,b", b"a,b\n1,2\n3", b"a;b\n1,5;2,5\n", "größe,b\n1,2\n".encode(), b"PAR1\0\0"])
def test_tables_are_recognised(head):
    assert is_table(head)


def test_blocks_begin_where_they_are_asked_to(tmp_path, monkeypatch):
    monkeypatch.setattr("mbkit.data.table_files.ROWS", 3)
    path = tmp_path / "log.csv"
    path.write_text("a,b\n" + "".join(f"{n},{-n}\n" for n in range(10)))
    blocks = list(CsvTable(path).blocks(["b"], 2, 9))
    assert [block.rows for block in blocks] == [3, 3, 1]
    assert np.concatenate([block.columns[0] for block in blocks]).astype(int).tolist() == [-n for n in range(2, 9)]
