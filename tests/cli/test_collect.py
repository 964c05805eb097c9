"""`mbkit data collect` and the options of tables, from the command line."""

import json
import signal
import sys
import time

import pytest
from jobs import job
from typer.testing import CliRunner

from mbkit.cli import app
from mbkit.data import read
from mbkit.errors import UserError

run = CliRunner()


def answer(*arguments: str) -> str:
    """What a command prints; its UserError where it fails."""
    result = run.invoke(app, [*arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_collect_writes_what_it_says(tmp_path):
    out = tmp_path / "d.h5"
    text = answer("data", "collect", "random", "env_kwargs.g=5", "--env", "Pendulum-v1", "--steps", "250", "--seed", "4", "--out", str(out))
    assert text == f"{out}: 250 rows in 2 episodes\n"
    data = read(out)
    assert (data.rows, data.env, data.env_kwargs, data.source["seed"]) == (250, "Pendulum-v1", {"g": 5}, 4)
    facts = json.loads(answer("data", "inspect", str(out), "--json"))
    assert (facts["neither"], facts["scores"]) == (1, [])


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("random --env Pendulum-v1 --out {}/d.h5", "expected --steps"),
        ("random --env Pendulum-v1 --steps 5 --out {}/absent/d.h5", "cannot be written: there is no directory .*/absent$"),
        ("random --env Pendulum-v1 --steps 5 --out {}", "cannot be written: it is a directory"),
        ("random --steps 5 --out {}/d.h5", "needs --env"),
        ("random --replay --out {}/d.h5", "--replay takes one run"),
        ("a b --replay --out {}/d.h5", "--replay takes one run.* got a b"),
        ("a --replay --noise 0.1 --out {}/d.h5", "of the options only --out; got --noise"),
        ("a env_kwargs.g=1 --replay --out {}/d.h5", r"got env_kwargs\.g"),
        ("a --replay --out {}/d.h5", "a is not a run directory"),
        ("env_kwargs.g=1 --steps 5 --env Pendulum-v1 --out {}/d.h5", r"sources=\[\]"),
    ],
)
def test_collect_of_odd_options_is_refused(tmp_path, line, sentence):
    with pytest.raises(UserError, match=sentence):
        answer("data", "collect", *line.format(tmp_path).split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_collect_that_is_interrupted_leaves_nothing(tmp_path, number):
    command = [sys.executable, "-m", "mbkit", "data", "collect", "random", "--env", "Pendulum-v1", "--steps", "100000000", "--out", "d.h5"]
    code = "import sys, runpy; import mbkit.envs.environment as e; reset = e.Environment.reset; "
    code += "e.Environment.reset = lambda *a, **k: (print('begun', flush=True), reset(*a, **k))[1]; "
    code += f"sys.argv = {command[2:]!r}; runpy.run_module('mbkit', run_name='__main__', alter_sys=True)"
    with job([sys.executable, "-c", code], tmp_path) as process:
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.3)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "d.h5 was not written; the same command starts again" in error
    assert list(tmp_path.iterdir()) == []


def test_convert_takes_the_options_of_tables(tmp_path):
    (tmp_path / "log.csv").write_text("t;y;v;u;end\n" + "".join(f"{0.1 * n:.1f};{n};{-n};{n % 2};{int(n == 9)}\n" for n in range(10)))
    out = tmp_path / "d.h5"
    options = {"obs": "y,v", "action": "u", "choices": 2, "time": "t", "gap": 1, "history": 2, "terminated": "end", "reward": "y"}
    text = answer("data", "convert", str(tmp_path / "log.csv"), str(out), *(f"--{name}={value}" for name, value in options.items()))
    assert f"{out}: 9 rows in 1 episodes" in text
    assert "note: rows left out, since their episode begins less than 1 rows before them: 1" in text
    data = read(out)
    assert data.obs_names == ("y[t]", "v[t]", "y[t-1]", "v[t-1]", "u=0[t-1]", "u=1[t-1]")
    assert data.columns().terminated.nonzero()[0].tolist() == [8]
    with pytest.raises(UserError, match="--obs: expected a column 'z'"):
        answer("data", "convert", str(tmp_path / "log.csv"), str(tmp_path / "e.h5"), "--obs", "z", "--action", "u")
    with pytest.raises(UserError, match="the option obs has no meaning for it"):
        answer("data", "convert", str(out), str(tmp_path / "e.h5"), "--obs", "y")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.h5", "log.csv"]


def test_inspect_of_a_table_shows_what_convert_would_write(tmp_path):
    (tmp_path / "log.csv").write_text("y,u,end\n" + "".join(f"{n},{n % 3},{n // 5}\n" for n in range(10)))
    options = ["--obs=y", "--action=u", "--low=0", "--high=2", "--episode=end", "--history=2"]
    answer("data", "convert", str(tmp_path / "log.csv"), str(tmp_path / "d.h5"), *options)
    table, file = (
        json.loads(answer("data", "inspect", str(tmp_path / name), "--json", *more)) for name, more in (("log.csv", options), ("d.h5", []))
    )
    assert (table["rows"], table["observation_space"]["names"]) == (6, ["y[t]", "y[t-1]", "u[t-1]"])
    assert {key for key in table if table[key] != file[key]} <= {"format", "path"}


def test_inspect_of_a_table_says_where_its_options_are(tmp_path):
    (tmp_path / "log.csv").write_text("y,u\n1,0\n2,0\n")
    with pytest.raises(
        UserError, match=r"is a table: `mbkit data convert` \(or `inspect`\) expects --obs with names of its columns, which are y, u"
    ):
        answer("data", "inspect", str(tmp_path / "log.csv"))
