"""Commands on data sets, in this process, and what is left of one that is killed."""

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from recorded import columns, dataset
from typer.testing import CliRunner

from mbkit import cli
from mbkit.cli.data import span
from mbkit.data import Dataset, read, write
from mbkit.errors import UserError


def run(*arguments: str):
    """The result of `mbkit data ...`."""
    return CliRunner().invoke(cli.app, ["data", *map(str, arguments)])


@pytest.fixture
def path(tmp_path):
    """A data set of three episodes."""
    return write(dataset([3, 2, 4], env="Some-v0", env_kwargs={"a": 1}, notes=["a remark"]), tmp_path / "data.h5")


def test_inspect_prints_lines_or_one_object(path):
    lines = run("inspect", path).output.splitlines()
    assert lines[:5] == [
        "format:       mbkit",
        "environment:  Some-v0 with {'a': 1}",
        "observations: 2 of float64",
        "actions:      2 in [-1, 1] x [-2, 2] of float64",
        "rows:         9 in 3 episodes",
    ]
    assert lines[-1] == "note: a remark"
    facts = json.loads(run("inspect", path, "--json").output)
    assert (facts["rows"], facts["format"], facts["terminated"]) == (9, "mbkit", 3)
    discrete = write(dataset([3, 2], choices=4), path.with_name("discrete"))
    assert "actions:      4 discrete, 3 to 6 of int64" in run("inspect", discrete).output


def test_inspect_of_bad_rows_counts_them_and_fails(tmp_path):
    rows = columns([3, 2, 4])
    rows.reward[4] = np.nan
    names = {"observations": rows.obs, "actions": rows.action / 2, "rewards": rows.reward, "terminals": rows.terminated}
    with h5py.File(tmp_path / "data.hdf5", "w") as file:
        for name, values in {**names, "timeouts": rows.truncated, "next_observations": rows.next_obs}.items():
            file[name] = values
    result = run("inspect", tmp_path / "data.hdf5")
    assert "not finite:   1 in reward" in result.output
    assert isinstance(result.exception, UserError)
    assert str(result.exception) == f"{tmp_path}/data.hdf5: reward of row 4 (episode 1, step 1): expected finite numbers, got nan"


@pytest.mark.parametrize("to", ["mbkit", "minari", "d4rl", "npz"])
def test_convert_writes_every_format(path, tmp_path, to):
    out = tmp_path / "out"
    result = run("convert", path, out, "--to", to, *(["--id", "toy/some-v0"] if to == "minari" else []))
    written = out / "toy/some-v0" if to == "minari" else out
    assert result.output.splitlines() == [f"{written}: 9 rows in 3 episodes", "note: a remark"]
    assert (read(written).format, read(written).sha256) == (to, read(path).sha256)


def test_convert_takes_some_episodes(path, tmp_path):
    out = tmp_path / "out"
    assert "6 rows in 2 episodes" in run("convert", path, out, "--episodes", "1:3").output
    assert read(out).columns().obs[:, 0].tolist() == [1000, 1001, 2000, 2001, 2002, 2003]
    assert "5 rows in 2 episodes" in run("convert", path, out, "--episodes", ":2").output


def test_convert_takes_what_the_file_does_not_say(tmp_path):
    rows = columns([3, 2, 4])
    np.savez(tmp_path / "data.npz", **rows._asdict())
    result = run("convert", tmp_path / "data.npz", tmp_path / "out", "--low", "-1,-2", "--high", "2", "--env", "Some-v0")
    assert result.exit_code == 0
    data = read(tmp_path / "out")
    assert (data.box[0].tolist(), data.box[1].tolist(), data.env) == ([-1, -2], [2, 2], "Some-v0")
    assert "actions:      2 in [-2, 2] x [-2, 2]" in run("inspect", tmp_path / "data.npz", "--low", "-2", "--high", "2").output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["inspect", "absent"], "there is no file absent"),
        (["inspect", "{path}", "--low", "x"], "--low: expected numbers like -1 or -1,-2, got 'x'"),
        (["inspect", "{path}", "--choices", "3"], "the option choices has no meaning"),
        (["convert", "{path}", "{out}", "--to", "d5rl"], "cannot write format 'd5rl'; did you mean 'd4rl'?"),
        (["convert", "{path}", "{out}", "--id", "a"], "format mbkit: the option id has no meaning"),
        (["convert", "{path}", "{out}", "--to", "minari"], "--id: expected a name like namespace/name-v0"),
        (["convert", "{path}", "{out}", "--episodes", "3"], "--episodes: expected A:B like 0:100, got '3'"),
        (["convert", "{path}", "{out}", "--episodes", "0:4"], "expected episodes A:B with 0 <= A < B <= 3, got 0:4"),
        (["convert", "{path}", "{out}/x/y"], "cannot be written"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(path, tmp_path, arguments, sentence):
    before = sorted(tmp_path.rglob("*"))
    result = run(*(argument.format(path=path, out=tmp_path / "out") for argument in arguments))
    assert isinstance(result.exception, UserError)
    assert sentence in str(result.exception)
    assert "\n" not in str(result.exception)
    assert sorted(tmp_path.rglob("*")) == before


def test_span_may_leave_out_either_number():
    assert (span("3:5"), span(":5"), span("3:"), span(":")) == ((3, 5), (0, 5), (3, None), (0, None))
    for text in ("3", "a:b", "-1:3", "1:2:3", ""):
        with pytest.raises(UserError, match="--episodes"):
            span(text)


SLOWLY = """
import sys, time
from mbkit.data import Dataset, read, write
data = read(sys.argv[1])
chunks = data.chunks
def slowly(rows=2):
    for number, chunk in enumerate(chunks(rows)):
        yield chunk
        if number == 2:
            print("in the middle", flush=True)
            time.sleep(60)
data.chunks = slowly
write(data, sys.argv[2], sys.argv[3], sys.argv[4] or None)
"""


@pytest.mark.parametrize("to", ["mbkit", "minari", "d4rl", "npz"])
def test_convert_that_is_killed_leaves_no_half_file(path, tmp_path, to):
    out = tmp_path / "out"
    name = "toy/some-v0" if to == "minari" else ""
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, path, out, to, name], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in the middle\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not out.exists()
    arguments = ["convert", path, out, "--to", to, *(["--id", name] if name else [])]
    assert run(*arguments).exit_code == 0  # the same command works, whatever was left
    assert read(out / name).rows == 9


LIMITED = """
import resource, signal, sys
from mbkit.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
sys.argv = ["mbkit", "data", "convert", *sys.argv[1:]]
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of a file's size")
@pytest.mark.parametrize("to", ["mbkit", "d4rl", "npz"])
def test_convert_to_a_full_disk_is_one_sentence(tmp_path, to):
    rng = np.random.default_rng(0)
    rows = columns([60_000])._replace(reward=rng.standard_normal(60_000))
    path = write(Dataset.of(rows, action_low=[-1, -2], action_high=[1, 2]), tmp_path / "data.h5")
    command = [sys.executable, "-c", LIMITED, path, tmp_path / "out", "--to", to]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (result.returncode, result.stderr) == (2, f"mbkit: {tmp_path}/out cannot be written (File too large)\n")
    assert list(tmp_path.iterdir()) == [path]


def test_convert_to_minari_on_a_full_disk_is_refused_before(path, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    result = run("convert", path, tmp_path / "out", "--to", "minari", "--id", "toy/some-v0")
    assert "toy/some-v0 cannot be written: it needs about 0.1 MB, and 0.0 MB are free" in str(result.exception)


MEASURED = """
import sys
from mbkit.cli import main
sys.argv = ["mbkit", "data", *sys.argv[1:]]
try:
    main()
finally:  # not ru_maxrss of getrusage: on Linux it begins with the memory of the process that started this one
    print("peak MiB", next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak of a process is read from /proc")
def test_two_million_rows_need_less_than_700_mib(tmp_path):
    rows, rng = 2_000_000, np.random.default_rng(0)
    last = np.arange(1, rows + 1) % 1000 == 0
    with h5py.File(tmp_path / "data.hdf5", "w") as file:
        obs = rng.standard_normal((rows + 1, 11), np.float32)
        file["observations"], file["next_observations"] = obs[:-1], obs[1:]
        file["actions"] = rng.uniform(-1, 1, (rows, 3)).astype(np.float32)
        file["rewards"], file["terminals"], file["timeouts"] = obs[:-1, 0], last & False, last
    lines = ["inspect data.hdf5", "convert data.hdf5 out.h5", "convert out.h5 out --to minari --id to/y-v0", "inspect out/to/y-v0"]
    lines += ["convert out.h5 out.hdf5 --to d4rl", "convert out.hdf5 out.npz --to npz", "inspect out.npz"]
    for line in lines:
        command = [sys.executable, "-c", MEASURED, *line.split()]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        peak = float(result.stdout.split()[-1])
        print(f"{line}: {peak:.0f} MiB")
        assert peak < 700
    assert read(tmp_path / "out.npz").sha256 == read(tmp_path / "out/to/y-v0").sha256 == read(tmp_path / "data.hdf5").sha256
