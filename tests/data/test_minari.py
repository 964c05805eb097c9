"""Minari's data sets: read without Minari, written so that Minari reads them, exact both ways."""

import copy
import json
import os
import shutil
import subprocess
import sys

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from minari.data_collector import EpisodeBuffer
from minari.serialization import serialize_space
from recorded import LENGTHS, columns, dataset, observations, same

from mbkit.data import Dataset, read, write
from mbkit.envs.spaces import ObservationMap
from mbkit.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")  # of entries that are left empty
BOXES = {"observation_space": spaces.Box(-np.inf, np.inf, (2,), np.float64), "action_space": spaces.Box(-2, 2, (1,), np.float32)}


def by_hand(path, lengths, **changes):
    """A data set of Minari's in its HDF5 layout, written with h5py alone; `changes`: entries of metadata.json."""
    (path / "data").mkdir(parents=True)
    with h5py.File(path / "data/main_data.hdf5", "w") as file:
        for i, length in enumerate(lengths):
            group = file.create_group(f"episode_{i}")
            group.attrs["id"] = i
            group["observations"] = observations(i, length)
            group["actions"] = np.arange(length, dtype=np.float32)[:, None] / 10 + i % 2
            group["rewards"] = np.arange(length) * 1.5 + i
            group["terminations"] = np.arange(length) == (length - 1 if i % 2 else -1)
            group["truncations"] = np.arange(length) == (length - 1 if i % 3 == 0 else -1)
    facts = {"total_episodes": len(lengths), "total_steps": sum(lengths), "data_format": "hdf5", "minari_version": "0.5.4"}
    facts |= {key: serialize_space(space) for key, space in BOXES.items()} | {"dataset_id": "toy/hand-v0"}
    (path / "data/metadata.json").write_text(json.dumps(facts | changes))
    return path


def buffers(lengths, observe=observations, **facts):
    """Episodes as Minari takes them."""
    return [
        EpisodeBuffer(
            id=i,
            seed=None if i == 1 else 50 + i,
            observations=observe(i, length),
            actions=np.full((length, 1), i % 2, np.float32),
            rewards=np.arange(length) + 0.25,
            terminations=np.arange(length) == length - 1,
            truncations=np.zeros(length, bool),
            **facts,
        )
        for i, length in enumerate(lengths)
    ]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Where Minari keeps its data sets in a test."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    return tmp_path / "root"


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(1, 5), min_size=3, max_size=14), chunk=st.integers(1, 7))
def test_read_puts_observation_k_of_episode_i_in_its_place(tmp_path_factory, lengths, chunk):
    path = by_hand(tmp_path_factory.mktemp("minari") / "hand", lengths)  # more than 10: episode_10 sorts before episode_2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mbkit.data.minari.CHUNK", chunk)
        data = read(path)
        rows = data.columns()
    expected = minari.MinariDataset(path / "data")
    for i, length in enumerate(lengths):
        mine = rows.episode == i
        assert np.array_equal(rows.obs[mine], observations(i, length)[:-1])
        assert np.array_equal(rows.next_obs[mine], observations(i, length)[1:])
        names = {"actions": rows.action, "rewards": rows.reward, "terminations": rows.terminated, "truncations": rows.truncated}
        for name, column in names.items():
            assert np.array_equal(column[mine], getattr(expected[i], name))
            assert column.dtype == getattr(expected[i], name).dtype


def test_read_does_not_shift_later_episodes_by_a_row(root):
    """d3rlpy's loader reads [5 100 101] for episode 1 of these: it slices T + 1 observations with the numbers of T actions."""
    minari.create_dataset_from_buffers(
        "toy/shift-v0", buffers([5, 3, 4], lambda i, n: 100.0 * i + np.arange(n + 1.0)[:, None] * [1, 0]), **BOXES
    )
    rows = read(root / "toy/shift-v0").columns()
    assert [rows.obs[rows.episode == i, 0].tolist() for i in range(3)] == [[0, 1, 2, 3, 4], [100, 101, 102], [200, 201, 202, 203]]
    assert rows.next_obs[rows.episode == 1, 0].tolist() == [101, 102, 103]


@settings(max_examples=15)
@given(lengths=LENGTHS, choices=st.sampled_from([0, 4]), dtype=st.sampled_from([np.float32, np.float64, np.int16]))
def test_write_is_read_by_minari_and_comes_back_exactly(tmp_path_factory, lengths, choices, dtype):
    path = tmp_path_factory.mktemp("minari")
    facts = {"ids": [3 * i + 1 for i in range(len(lengths))], "seeds": [None, *range(1, len(lengths))], "more": {"x": 1.5}}
    data = dataset(lengths, choices, dtype, source=facts, env="Some-v0", env_kwargs={"a": [1]}, obs_names=("x", "y"), notes=["said"])
    folder = write(data, path, to="minari", id="toy/some-v3")
    assert folder == path / "toy/some-v3"
    theirs = minari.MinariDataset(folder / "data")
    rows = columns(lengths, choices, dtype)
    for i, episode in enumerate(theirs):
        mine = rows.episode == i
        assert np.array_equal(episode.observations, np.concatenate([rows.obs[mine], rows.next_obs[mine][-1:]]))
        assert episode.observations.dtype == dtype
        assert np.array_equal(episode.actions, rows.action[mine])
        assert np.array_equal(episode.rewards, rows.reward[mine])
        assert np.array_equal(episode.terminations, rows.terminated[mine])
        assert np.array_equal(episode.truncations, rows.truncated[mine])
    assert [x["id"] for x in theirs.storage.get_episode_metadata(range(len(lengths)))] == facts["ids"]
    again = read(folder)
    assert same(again.columns(), rows)
    assert again.sha256 == data.sha256
    for name in ("source", "env", "env_kwargs", "obs_names", "notes", "choices", "start"):
        assert getattr(again, name) == getattr(data, name)
    assert choices or np.array_equal(again.box, data.box)


def test_minari_to_mbkit_and_back_is_exact(root, tmp_path):
    minari.create_dataset_from_buffers(
        "pendulum/some-v0", buffers([3, 2, 4]), env="Pendulum-v1", author="A. Uthor", description="words", ref_min_score=-1.0, **BOXES
    )
    first = read(root / "pendulum/some-v0")
    native = read(write(first, tmp_path / "data.h5"))
    again = read(write(native, tmp_path / "copy", to="minari"))
    assert again.path == tmp_path / "copy/pendulum/some-v0"
    assert first.sha256 == native.sha256 == again.sha256
    assert first.source == native.source == again.source
    assert first.env == native.env == again.env == "Pendulum-v1"
    assert first.source["seeds"] == [50, None, 52]
    before, after = (json.loads((path / "data/metadata.json").read_text()) for path in (first.path, again.path))
    del after["mbkit"]
    for facts in (before, after):
        del facts["dataset_size"], facts["jpeg_encoding"]  # of images
    assert before == after
    theirs = minari.MinariDataset(again.path / "data")
    assert theirs.env_spec.id == "Pendulum-v1"
    assert [facts.get("seed") for facts in theirs.storage.get_episode_metadata(range(3))] == [50, None, 52]


NESTED = spaces.Dict(
    {
        "position": spaces.Box(-np.inf, np.inf, (2,), np.float64),
        "gear": spaces.Discrete(3),
        "rest": spaces.Tuple([spaces.Box(-9, 9, (1,), np.float32), spaces.MultiBinary(2)]),
    }
)


def nested_observations(i, length):
    """Observations of NESTED, stacked."""
    steps = np.arange(length + 1)
    rest = (np.float32(steps % 9)[:, None], np.stack([steps % 2, steps % 3 == 0], 1).astype(np.int8))
    return {"position": observations(i, length), "gear": steps % 3, "rest": rest}


@pytest.mark.parametrize("kind", ["hdf5", "arrow", "parquet"])
def test_read_of_nested_observations_is_as_environments_flatten_them(root, tmp_path, kind):
    facts = {"observation_space": NESTED, "action_space": BOXES["action_space"], "data_format": kind}
    minari.create_dataset_from_buffers("toy/nested-v0", buffers([4, 2, 3], nested_observations), **facts)
    data = read(root / "toy/nested-v0")
    to_vector, rows = ObservationMap(NESTED, "test"), data.columns()
    for i, length in enumerate([4, 2, 3]):
        whole = nested_observations(i, length)
        for k in range(length):
            one = {"position": whole["position"][k], "gear": whole["gear"][k], "rest": tuple(part[k] for part in whole["rest"])}
            assert np.array_equal(rows.obs[rows.episode == i][k], to_vector(one))
    again = read(write(data, tmp_path / "copy", to="minari"))
    assert again.sha256 == data.sha256
    theirs = minari.MinariDataset(again.path / "data")
    assert theirs.observation_space == NESTED
    assert np.array_equal(theirs[2].observations["gear"], nested_observations(2, 3)["gear"])
    assert np.array_equal(theirs[2].observations["rest"][0], nested_observations(2, 3)["rest"][0])


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_read_of_every_layout_is_the_same(root, kind):
    minari.create_dataset_from_buffers("toy/groups-v0", buffers([3, 1, 4, *[2] * 9]), **BOXES)
    minari.create_dataset_from_buffers("toy/folders-v0", buffers([3, 1, 4, *[2] * 9]), data_format=kind, **BOXES)
    one, other = read(root / "toy/groups-v0"), read(root / "toy/folders-v0")
    assert one.sha256 == other.sha256
    assert one.source["seeds"] == other.source["seeds"]
    assert other.between(1, 3).columns().obs[:, 0].tolist() == [1000, 2000, 2001, 2002, 2003]


def test_read_without_pyarrow_names_the_extra(root, monkeypatch):
    minari.create_dataset_from_buffers("toy/folders-v0", buffers([3, 1]), data_format="arrow", **BOXES)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"needs pyarrow, of mbkit\[parquet\]"):
        read(root / "toy/folders-v0")


def test_write_without_minari_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(UserError, match=r"needs mbkit\[minari\]"):
        write(dataset([2, 2]), tmp_path / "out", to="minari", id="toy/some-v0")


def test_read_needs_no_minari(tmp_path):
    path = by_hand(tmp_path / "hand", [3, 2])
    code = f"import sys; from mbkit.data import read; read({str(path)!r}).columns(); "
    code += "print([name for name in ('minari', 'jax', 'PIL') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_read_of_discrete_observations_and_actions(root):
    facts = {"observation_space": spaces.Discrete(5, start=1), "action_space": spaces.Discrete(3, start=-1)}
    episodes = buffers([2, 3], lambda i, n: np.arange(n + 1) + i + 1)
    episodes = [EpisodeBuffer(**{**vars(x), "actions": np.arange(len(x.rewards)) - 1}) for x in episodes]
    minari.create_dataset_from_buffers("toy/table-v0", episodes, **facts)
    data = read(root / "toy/table-v0")
    rows = data.columns()
    assert rows.obs.argmax(1).tolist() == [0, 1, 1, 2, 3]
    assert rows.action.tolist() == [-1, 0, -1, 0, 1]
    assert (data.choices, data.start, data.obs_dim) == (3, -1, 5)
    assert data.scaled(rows.action).tolist() == [0, 1, 0, 1, 2]


def test_read_says_what_is_left_out(root):
    minari.create_dataset_from_buffers("toy/infos-v0", buffers([3, 2], infos={"power": np.zeros(4)}, options={"level": 2}), **BOXES)
    assert read(root / "toy/infos-v0").notes == ["left out, since no column of a data set holds them: infos, options"]


def test_read_takes_the_environments_arguments(root):
    spec = copy.deepcopy(gymnasium.spec("Pendulum-v1"))
    spec.kwargs = {"g": 5.0}
    spec.max_episode_steps = 50
    minari.create_dataset_from_buffers("toy/heavy-v0", buffers([3, 2]), env=spec, **BOXES)
    data = read(root / "toy/heavy-v0")
    assert (data.env, data.env_kwargs) == ("Pendulum-v1", {"g": 5.0, "max_episode_steps": 50})


def test_read_of_the_inner_folder_is_the_same(tmp_path):
    path = by_hand(tmp_path / "hand", [3, 2])
    assert read(path / "data").sha256 == read(path).sha256


def edit(path, change):
    """Apply `change` to the HDF5 file."""
    with h5py.File(path / "data/main_data.hdf5", "r+") as file:
        change(file)


def replaced(name, values):
    """A change that stores other values in episode 1."""

    def change(file):
        del file["episode_1"][name]
        file["episode_1"][name] = values

    return change


def emptied(file):
    """A change that makes a group of the actions of episode 1."""
    del file["episode_1/actions"]
    file["episode_1"].create_group("actions")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            replaced("observations", observations(1, 1)),
            r"episode 1: expected T \+ 1 observations and T of all .* got 2 observations, 2",
        ),
        (
            replaced("rewards", np.zeros(3)),
            r"episode 1: expected T \+ 1 .* got 3 observations, 2 .*3 rewards",
        ),
        (replaced("actions", np.zeros((1, 1))), r"episode 1: expected T \+ 1"),
        (replaced("actions", np.zeros((2, 2))), "episode 1: expected observations and actions of their spaces"),
        (replaced("observations", np.zeros((3, 3))), r"observation 0 of episode 1: expected shape \(2,\), got \(3,\)"),
        (replaced("observations", np.array([[0, 0], [np.nan, 0], [1, 1]])), r"row 4 \(episode 1, step 1\): expected finite numbers"),
        (replaced("actions", np.full((2, 1), 2.1)), r"row 3 \(episode 1, step 0\): expected a number in \[-2, 2\], got 2.1"),
        (replaced("actions", np.array([b"a", b"b"])), "actions: expected numbers"),
        (lambda f: f["episode_1"].__delitem__("rewards"), "expected a column 'episode_1/rewards'"),
        (lambda f: f["episode_1"].__setitem__("more", h5py.ExternalLink("other.h5", "x")), "'episode_1/more' to be .*, got a link"),
        (
            emptied,
            "expected a column 'episode_1/actions', got none",
        ),
    ],
)
def test_read_of_edited_files_is_refused(tmp_path, change, sentence):
    path = by_hand(tmp_path / "hand", [3, 2, 2])
    edit(path, change)
    with pytest.raises(UserError, match=sentence):
        read(path).columns()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"total_episodes": 0}, "at least one episode, got 0"),
        ({"total_episodes": "3"}, "at least one episode"),
        ({"data_format": "csv"}, "expected data_format hdf5, arrow or parquet"),
        ({"observation_space": "{}"}, "observation_space: expected a serialised space"),
        ({"observation_space": serialize_space(spaces.Text(3))}, "observation_space: expected a serialised space"),
        ({"observation_space": serialize_space(spaces.Box(0, 255, (64, 64, 3), np.uint8))}, "got an image"),
        ({"action_space": serialize_space(spaces.MultiDiscrete([2, 3]))}, "expected one discrete action a step"),
        ({"action_space": serialize_space(spaces.Box(-np.inf, 1, (1,)))}, "expected finite bounds"),
    ],
)
def test_read_of_odd_metadata_is_refused(tmp_path, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        read(by_hand(tmp_path / "hand", [3, 2, 2], **changes))


def test_read_of_incomplete_folders_is_refused(tmp_path):
    path = by_hand(tmp_path / "hand", [3, 2])
    file = path / "data/main_data.hdf5"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(UserError, match="damaged, cut or foreign"):
        read(path)
    file.unlink()
    with pytest.raises(UserError, match=r"main_data.hdf5 cannot be read"):
        read(path)
    (path / "data/metadata.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read(path)
    shutil.rmtree(path / "data")
    with pytest.raises(UserError, match="expected a data set in one of the formats"):
        read(path)


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_read_of_damaged_folders_is_refused(root, kind):
    minari.create_dataset_from_buffers("toy/folders-v0", buffers([3, 1, 2]), data_format=kind, **BOXES)
    path = root / "toy/folders-v0"
    part = path / f"data/1/part-0.{kind}"
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=f"expected {kind}, found a damaged or foreign file"):
        read(path)
    part.unlink()
    with pytest.raises(UserError, match=f"expected part-0.{kind}"):
        read(path)
    facts = path / "data/0/metadata.json"
    facts.write_text(json.dumps({"id": 0, "total_steps": 4}))  # as if it had T observations
    with pytest.raises(UserError, match=r"episode 0: expected T \+ 1 observations and T of all others, got 4 observations, 4 actions"):
        read(path)


def test_write_ends_in_the_id_or_appends_it(root, tmp_path):
    data = dataset([2, 3])
    assert write(data, tmp_path / "a/toy/some-v0", to="minari", id="toy/some-v0") == tmp_path / "a/toy/some-v0"
    assert write(data, tmp_path / "b", to="minari", id="some-v0") == tmp_path / "b/some-v0"
    assert write(data, tmp_path / "a", to="minari", id="toy/other-v0") == tmp_path / "a/toy/other-v0"
    assert not root.exists()
    assert os.environ["MINARI_DATASETS_PATH"] == str(root)
    assert not list(tmp_path.rglob("*.tmp"))
    os.environ["MINARI_DATASETS_PATH"] = str(tmp_path / "a")
    assert set(minari.list_local_datasets()) == {"toy/some-v0", "toy/other-v0"}


def test_write_refuses_what_it_cannot_do_and_leaves_nothing(root, tmp_path):
    out = tmp_path / "out"
    for name in (None, "no id", "name", "a/b-v0"):
        with pytest.raises(UserError, match="--id: expected a name like namespace/name-v0"):
            write(dataset([2, 3]), out, to="minari", id=name)
    rows = columns([2, 3])
    rows.reward[4] = np.nan
    with pytest.raises(UserError, match=r"reward of row 4 \(episode 1, step 2\)"):
        write(Dataset.of(rows, action_low=[-1, -2], action_high=[1, 2]), out, to="minari", id="toy/some-v0")
    assert list(tmp_path.iterdir()) == []
    folder = write(dataset([2, 3]), out, to="minari", id="toy/some-v0")
    with pytest.raises(UserError, match="some-v0 exists; expected the path of a new folder"):
        write(dataset([2, 3]), out, to="minari", id="toy/some-v0")
    assert read(folder).rows == 5
