"""Tables of a plant's logs: which rows become rows of a data set, what an observation consists of, and what is refused."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbkit.data import read, write
from mbkit.data.table_rewards import NO_REWARDS
from mbkit.errors import UserError

LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=6)
BOX = {"low": -1, "high": 1}


def log(lengths, seed=0, discrete=False):
    """A log of episodes with so many rows: time, two outputs, an input, a reward, whether it terminated, and a label."""
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    label = np.repeat([f"run {i}" for i in range(len(lengths))], lengths)
    last = np.append(label[1:] != label[:-1], True)
    return {
        "t": np.arange(n) * 0.5 + 100.0 * np.repeat(np.arange(len(lengths)), lengths),
        "y1": rng.normal(size=n),
        "y2": rng.normal(size=n),
        "u": rng.integers(0, 3, n) if discrete else rng.uniform(-1, 1, n),
        "r": rng.normal(size=n),
        "end": (last & (rng.random(n) < 0.5)).astype(int),
        "label": label,
    }


def written(path, columns, delimiter=","):
    """The table as a file: Parquet by the name's end, else text."""
    if path.suffix == ".parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table(columns), path)
        return path
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    return path


def expected(columns, lengths, history, discrete):
    """Rows of the data set by brute force, episode by episode: (obs, action, reward, next_obs, terminated, truncated) each."""
    y, u = np.stack([columns["y1"], columns["y2"]], 1), columns["u"]
    episodes, begin = [], 0
    for length in lengths:

        def obs(i):
            past = [[float(u[i - k] == n) for n in range(3)] if discrete else [u[i - k]] for k in range(1, history)]
            return np.concatenate([*(y[i - k] for k in range(history)), *past])

        rows = []
        for i in range(begin + history - 1, begin + length):
            over, following = bool(columns["end"][i]), i + 1 < begin + length
            if following or over:
                next_obs = obs(i + 1) if following else np.zeros_like(obs(i))
                rows.append((obs(i), u[i], columns["r"][i], next_obs, over))
        if rows:
            episodes.append([(*row, row is rows[-1] and not row[-1]) for row in rows])
        begin += length
    return episodes


@settings(max_examples=40)
@given(
    lengths=LENGTHS,
    history=st.integers(1, 3),
    discrete=st.booleans(),
    kind=st.sampled_from(["csv", "parquet"]),
    told_by=st.sampled_from(["episode", "gap"]),
    chunk=st.integers(1, 9),
)
def test_read_is_what_brute_force_gives(tmp_path_factory, lengths, history, discrete, kind, told_by, chunk):
    columns = log(lengths, discrete=discrete)
    path = written(tmp_path_factory.mktemp("table") / f"log.{kind}", columns)
    options = {"episode": "label"} if told_by == "episode" else {"gap": 1.0}
    options |= {"choices": 3} if discrete else BOX
    options |= {"obs": "y1,y2", "action": "u", "reward": "r", "time": "t", "terminated": "end", "history": history}
    episodes = expected(columns, lengths, history, discrete)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mbkit.data.table_files.ROWS", chunk)
        if not episodes:
            with pytest.raises(UserError, match="at least one row with a following row"):
                read(path, **options)
            return
        data = read(path, **options)
        rows = data.columns()
        again = read(write(data, path.with_suffix(".h5")))
    assert data.lengths.tolist() == [len(episode) for episode in episodes]
    wanted = [np.array(column) for column in zip(*(row for episode in episodes for row in episode), strict=True)]
    for got, want in zip(rows[:-1], wanted, strict=True):
        assert np.array_equal(got.reshape(want.shape), want)
    assert again.sha256 == data.sha256
    assert again.obs_names == data.obs_names
    assert len(data.obs_names) == data.obs_dim
    assert (
        data.source["left_out"].get("without_successor", 0) + data.source["left_out"].get("without_history", 0) == sum(lengths) - data.rows
    )


def test_read_names_lags_newest_first(tmp_path):
    path = written(tmp_path / "log.csv", log([5]))
    assert read(path, obs="y1", action="u", **BOX).obs_names == ("y1",)
    assert read(path, obs="y1,y2", action=["u"], history=2, **BOX).obs_names == ("y1[t]", "y2[t]", "y1[t-1]", "y2[t-1]", "u[t-1]")
    path = written(tmp_path / "choices.csv", log([5], discrete=True))
    assert read(path, obs="y1", action="u", choices=3, history=2).obs_names == ("y1[t]", "y1[t-1]", "u=0[t-1]", "u=1[t-1]", "u=2[t-1]")


def test_read_without_rewards_says_so(tmp_path):
    path = written(tmp_path / "log.csv", log([5, 4]))
    for reward in (None, "none"):
        data = read(path, obs="y1", action="u", reward=reward, **BOX)
        assert not data.has_reward
        assert NO_REWARDS in data.notes
        assert not data.columns().reward.any()
    assert read(path, obs="y1", action="u", reward="r", **BOX).has_reward


def test_read_with_a_reward_function_gives_it_scaled_actions(tmp_path, monkeypatch):
    (tmp_path / "plant_reward.py").write_text("def cost(obs, action, next_obs):\n    return next_obs[:, 0] - 10 * action[:, 0] ** 2\n")
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "log.csv", log([6]))
    data = read(path, obs="y1", action="u", reward="plant_reward:cost", low=-2, high=2)
    rows = data.columns()
    np.testing.assert_allclose(rows.reward, rows.next_obs[:, 0] - 10 * (rows.action[:, 0] / 2) ** 2, rtol=1e-6)
    data = read(path, obs="y1", action="u", reward="plant_reward:cost", terminated="end", low=-2, high=2)
    wanted = "called with the observation itself in place of the successor"
    assert any(wanted in note for note in data.notes) == bool(data.source["left_out"].get("zero_successors"))


def test_read_uses_the_row_behind_a_terminal_one_in_its_episode(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("y,u,end,run\n0,0,0,a\n1,0,1,a\n2,,0,a\n5,0,0,b\n6,0,1,b\n")
    rows = read(path, obs="y", action="u", terminated="end", episode="run", **BOX).columns()
    assert rows.next_obs[:, 0].tolist() == [1, 2, 6, 0]
    assert rows.terminated.tolist() == [False, True, False, True]
    rows = read(path, obs="y", action="u", terminated="end", **BOX).between(0, 1).columns()
    assert rows.next_obs[:, 0].tolist() == [1, 0]  # without a column of episodes a terminal row ends its own


def test_read_tells_of_uneven_steps(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("t,y,u\n0,0,0\n0.1,1,0\n0.2,2,0\n0.5,3,0\n")
    data = read(path, obs="y", action="u", time="t", **BOX)
    assert data.source["seconds_per_step"] == pytest.approx(0.1)
    assert "1 of 3 steps last more than 10% longer or shorter than the usual 0.1 s" in data.notes


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "is a table: `mbkit data convert` .* expects --obs .* which are t, y1, y2, u, r, end, label"),
        ({"obs": "y1"}, "expects --action"),
        ({"obs": "y11", "action": "u", **BOX}, r"--obs: expected a column 'y11'; did you mean 'y1'\?"),
        ({"obs": "y1", "action": "u", "episode": "lable", **BOX}, r"--episode: expected a column 'lable'; did you mean 'label'\?"),
        ({"obs": "y1,y1", "action": "u", **BOX}, "--obs names y1 twice"),
        ({"obs": "y1,u", "action": "u", **BOX}, "u is named by --obs and by --action"),
        ({"obs": "y1", "action": "u"}, "expected bounds of u, .* --low and --high, or with --choices"),
        ({"obs": "y1", "action": "u", "low": -1}, "expected both bounds"),
        ({"obs": "y1", "action": "u", "low": [-1, -1], "high": 1}, "low: expected 1 or 1 numbers"),
        ({"obs": "y1", "action": "u", "choices": 2, **BOX}, "got both"),
        ({"obs": "y1", "action": "u,r", "choices": 2}, "one column of discrete inputs, got u, r"),
        ({"obs": "y1", "action": "u", "gap": 1.0, **BOX}, "--gap: .* got no --time"),
        ({"obs": "y1", "action": "u", "gap": 0.0, "time": "t", **BOX}, "--gap: .* got 0"),
        ({"obs": "y1", "action": "u", "gap": 1.0, "time": "t", "episode": "label", **BOX}, "--gap: .* got --episode"),
        ({"obs": "y1", "action": "u", "history": 0, **BOX}, "--history 0: expected at least 1"),
        ({"obs": "y1", "action": "u", "history": 9, **BOX}, "and 8 rows before it, got none in 7 rows"),
        ({"obs": "y1", "action": "u", "reward": "reward", **BOX}, "--reward: expected a column, pkg.mod:fn or none, got 'reward'"),
        ({"obs": "y1", "action": "u", "reward": "absent_module:fn", **BOX}, "module 'absent_module' .* can't be imported"),
        ({"obs": "y1", "action": "u", "terminated": "r", **BOX}, "r of row 0: expected 0 or 1"),
        ({"obs": "label", "action": "u", **BOX}, "label of row 0: expected a number, got 'run 0'"),
        ({"obs": "y1", "action": "u", "time": "label", **BOX}, "label of row 0 .* expected seconds, or a date"),
        (
            {"obs": "y1", "action": "u", "low": -0.01, "high": 0.01},
            r"action, dimension 0 of row \d \(episode 0, step \d\): expected a number",
        ),
        ({"obs": "y1", "action": "y2", "choices": 3}, "y2 of row 0: expected a whole number"),
        ({"obs": "y1", "action": "u", "windows": 3, **BOX}, "the option windows has no meaning"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_read_of_odd_options_is_refused(tmp_path, kind, options, sentence):
    path = written(tmp_path / f"log.{kind}", log([4, 3]))
    with pytest.raises(UserError, match=sentence) as refusal:
        read(path, **options).columns()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("t,y,u\n0,0,0\n0.1,,0\n0.2,1,0\n", r"obs, dimension 0 of row 1 .* finite numbers, got nan"),
        ("t,y,u\n0,0,0\n0.1,1,inf\n0.2,1,0\n", r"action, dimension 0 of row 1 .* finite numbers, got inf"),
        ("t,y,u\n0,0,0\n0.1,x,0\n0.2,1,0\n", "y of row 1: expected a number, got 'x'"),
        ("t,y,u\n0,0,0\n0.1,1\n0.2,1,0\n", "row 1: expected 3 cells, got 2"),
        ("t,y,u\n0,0,0\n0.1,1,0\n0.1,1,0\n", "t of row 2: expected more than 0.1, got 0.1; --gap"),
        ("t,y,u\n0,0,0\nnan,1,0\n0.1,1,0\n", "t of row 1: expected finite seconds"),
        ("t,y,u\n", "at least one row with a following row in its episode, got none in 0 rows"),
        ("t,y,u\n1,2,3\n", "got none in 1 rows"),
        ("0,1,2\n1,2,3\n", "expected the names of its columns in the first line, got 0, 1, 2"),
        ("t,y,y,u\n0,0,0,0\n1,0,0,0\n", "it has 2 columns of this name"),
    ],
)
def test_read_of_odd_tables_is_refused(tmp_path, text, sentence):
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=sentence):
        read(path, obs="y", action="u", time="t", **BOX).columns()


def test_read_of_a_missing_number_of_parquet_is_refused(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "log.parquet"
    parquet.write_table(arrow.table({"y": [0, None, 2], "u": [0.0, 0.5, 0.5]}), path)
    with pytest.raises(UserError, match=r"obs, dimension 0 of row 1 .* finite numbers, got nan"):
        read(path, obs="y", action="u", **BOX).columns()
