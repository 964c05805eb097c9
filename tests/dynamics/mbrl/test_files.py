"""mbrl-lib's files, read safely and written whole; the oracle is the real mbrl-lib. Letters as in `mbkit.types`."""

import pickle
import zipfile

import numpy as np
import pytest
import torch
from mbrl_peer import KNOWN, SPEC, models, peer, reward

from mbkit import registry
from mbkit.dynamics.mbrl import MbrlConfig, MbrlDynamics, files, load
from mbkit.dynamics.mbrl.dynamics import library, network_model
from mbkit.dynamics.mbrl.settings import Settings, named_process, read_settings
from mbkit.errors import UserError
from mbkit.types import EnvSpec, TaskKnowledge


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def saved(tmp_path, **options):
    model = peer(**options)
    model.save(tmp_path)
    return model


@pytest.mark.parametrize("options", [{"elites": [2, 0]}, {"deterministic": True}, {"learned_rewards": True}])
def test_load_takes_what_mbrl_lib_saved(tmp_path, options):
    model = saved(tmp_path, **options)
    task = TaskKnowledge(None if options.get("learned_rewards") else reward)
    loaded = load(tmp_path, SPEC, task=task)
    by_name = registry.dynamics["mbrl"].target(SPEC, MbrlConfig(load=str(tmp_path)), task)
    obs, action = torch.randn(6, 3), torch.rand(6, 2)
    torch.testing.assert_close(loaded.predict(obs, action), MbrlDynamics(model, SPEC, task=task).predict(obs, action), rtol=0, atol=0)
    torch.testing.assert_close(by_name.predict(obs, action), loaded.predict(obs, action), rtol=0, atol=0)
    assert loaded.model.model.elite_models == options.get("elites")
    torch.testing.assert_close(loaded.model.input_normalizer.std, model.input_normalizer.std, rtol=0, atol=0)


def test_write_network_and_write_stats_round_trip_through_mbrl_lib(tmp_path):
    model = saved(tmp_path, elites=[3, 1])
    again = tmp_path / "again"
    again.mkdir()
    files.write_network(again, files.read_network(tmp_path))
    files.write_stats(again, files.read_stats(tmp_path, 5))
    fresh = peer(4)
    fresh.load(again)  # mbrl-lib's own reader
    assert fresh.model.elite_models == [3, 1]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(fresh.state_dict()[name], value, rtol=0, atol=0)
    torch.testing.assert_close(fresh.input_normalizer.mean, model.input_normalizer.mean, rtol=0, atol=0)


class Evil:
    """Unpickling this would run a command."""

    def __reduce__(self):
        return print, ("unpickled",)


def test_read_stats_and_read_network_refuse_other_pickles_unrun(tmp_path, capsys):
    (tmp_path / files.STATS).write_bytes(pickle.dumps({"mean": Evil(), "std": np.ones(3)}))
    with pytest.raises(UserError, match=r"env_stats.pickle .* asks for builtins.print"):
        files.read_stats(tmp_path, 5)
    torch.save({"state_dict": Evil(), "elite_models": None}, tmp_path / files.MODEL)
    with pytest.raises(UserError, match=r"model.pth cannot be read"):
        files.read_network(tmp_path)
    assert capsys.readouterr().out == ""


def change_entry(path, suffix, compress=False):
    """The archive with one byte of an entry's data changed after its checksum was computed, or with that entry compressed."""
    with zipfile.ZipFile(path) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    if compress:
        with zipfile.ZipFile(path, "w") as archive:
            for entry, data in entries:
                kind = zipfile.ZIP_DEFLATED if entry.filename.endswith(suffix) else zipfile.ZIP_STORED
                archive.writestr(entry.filename, data, compress_type=kind)
        return
    whole, data = bytearray(path.read_bytes()), next(data for entry, data in entries if entry.filename.endswith(suffix))
    place = whole.find(data)
    whole[place + len(data) // 2] ^= 1
    path.write_bytes(whole)


@pytest.mark.parametrize(("compress", "reason"), [(False, "the checksum of its entry .*data/1 does not hold"), (True, "is compressed")])
def test_read_network_compares_checksums(tmp_path, compress, reason):
    saved(tmp_path)
    change_entry(tmp_path / files.MODEL, "data/1", compress)
    with pytest.raises(UserError, match=rf"model.pth cannot be read as a file of mbrl-lib 0.2: .*{reason}"):
        files.read_network(tmp_path)


def test_read_network_refuses_files_without_checksums(tmp_path):
    model = saved(tmp_path)
    content = {"state_dict": model.model.state_dict(), "elite_models": None}
    torch.save(content, tmp_path / files.MODEL, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match="not a zip file"):
        files.read_network(tmp_path)


def crafted(state, elites):
    """What a model.pth may hold that loads without an error, and is none."""
    first, last = "hidden_layers.0.0.weight", "mean_and_logvar.bias"
    return {
        "NaN": (
            state | {first: torch.full_like(state[first], torch.nan)},
            None,
            "'hidden_layers.0.0.weight' has numbers that are not finite",
        ),
        "infinite": (state | {last: torch.full_like(state[last], torch.inf)}, None, "not finite"),
        "beyond float32": (state | {last: torch.full_like(state[last], 1e300, dtype=torch.float64)}, None, "not finite"),
        "bounds": (state | {"max_logvar": state["max_logvar"] * torch.nan}, None, "'max_logvar' has numbers that are not finite"),
        "expanded": (state | {first: torch.zeros(1).expand(4, 10**6, 10**6)}, None, "no stored tensor"),
        "list": (state | {first: [1.0]}, None, "no stored tensor"),
        "other width": (state | {first: state[first][:, :, :-1]}, None, "its layer 0 has"),
        "other members": (state | {last: state[last][:1]}, None, "its layer 2 has"),
        "other bounds": (
            state | {"min_logvar": state["min_logvar"][:, :1], "max_logvar": state["max_logvar"][:, :1]},
            None,
            "bounds do not fit",
        ),
        "no such elite": (state, [0, 99], "elites .* are not some of its 4 members"),
        "negative elite": (state, [-1], "elites"),
        "elite twice": (state, [1, 1], "elites"),
        "no elites": (state, [], "elites"),
        "no layer": ({k: v for k, v in state.items() if k != "hidden_layers.0.0.bias"}, None, "hidden_layers.0.0.bias"),
    }[elites]


KINDS = ["NaN", "infinite", "beyond float32", "bounds", "expanded", "list", "other width", "other members", "other bounds"]
KINDS += ["no such elite", "negative elite", "elite twice", "no elites", "no layer"]


@pytest.mark.parametrize("kind", KINDS)
def test_read_network_refuses_crafted_content(tmp_path, kind):
    state, elites, reason = crafted(dict(peer().model.state_dict()), kind)
    torch.save({"state_dict": state, "elite_models": elites}, tmp_path / files.MODEL)
    with pytest.raises(UserError, match=rf"model.pth cannot be read as a file of mbrl-lib 0.2: .*{reason}"):
        files.read_network(tmp_path)


@pytest.mark.parametrize("content", [7, [1], None, {}, {"state_dict": 7}, {"state_dict": {}}, {"state_dict": None}])
def test_read_network_refuses_other_content(tmp_path, content):
    torch.save(content, tmp_path / files.MODEL)
    with pytest.raises(UserError, match=r"model.pth (holds another kind of model|cannot be read)"):
        files.read_network(tmp_path)


@pytest.mark.parametrize(
    ("mean", "std", "reason"),
    [
        (np.full(5, np.nan), np.ones(5), "not finite"),
        (np.zeros(5), np.full(5, np.inf), "not finite"),
        (np.zeros(5), np.array([1, 1, 0, 1, 1.0]), "not positive"),
        (np.zeros(5), -np.ones(5), "not positive"),
        (np.zeros(1), np.ones(1), "normalises 1 and 1 numbers; expected the model's 5 inputs"),
        (np.zeros(5), np.ones(4), "normalises 5 and 4"),
        (np.array(["a"] * 5), np.ones(5), "could not convert"),
        (np.array([None] * 5), np.ones(5), "not finite"),
    ],
)
def test_read_stats_refuses_what_cannot_normalise(tmp_path, mean, std, reason):
    (tmp_path / files.STATS).write_bytes(pickle.dumps({"mean": mean, "std": std}))
    with pytest.raises(UserError, match=rf"env_stats.pickle cannot be read as a file of mbrl-lib 0.2: .*{reason}"):
        files.read_stats(tmp_path, 5)


def test_read_stats_refuses_an_array_that_nobody_has_the_memory_for(tmp_path):
    code = b"\x80\x04cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L%dL\ntC\x01btR." % 10**17
    (tmp_path / files.STATS).write_bytes(code)
    with pytest.raises(UserError, match=r"env_stats.pickle cannot be read"):
        files.read_stats(tmp_path, 5)


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_load_names_missing_truncated_and_foreign_files(tmp_path, content):
    saved(tmp_path)
    whole = (tmp_path / files.MODEL).read_bytes()
    (tmp_path / files.MODEL).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(UserError, match=r"model.pth cannot be read"):
        load(tmp_path, SPEC, task=KNOWN)
    (tmp_path / files.MODEL).unlink()
    with pytest.raises(UserError, match=r"model.pth is missing"):
        load(tmp_path, SPEC, task=KNOWN)


def test_load_takes_the_observation_processing_that_the_configuration_names(tmp_path):
    spec = EnvSpec(18, 6, SPEC.device)
    process = named_process("mbrl.env.pets_halfcheetah.HalfCheetahEnv.preprocess_fn")
    settings = Settings(no_delta=(0,), obs_process="mbrl.env.pets_halfcheetah.HalfCheetahEnv.preprocess_fn")
    model = network_model(spec, MbrlConfig(members=2, hidden=8), (24, 18), settings, process, normalize=True)
    model.save(tmp_path)
    files.write_settings(tmp_path, settings, files.read_network(tmp_path), normalize=True)
    assert read_settings(tmp_path) == settings
    common = library("util.common")
    theirs = common.create_one_dim_tr_model(common.load_hydra_cfg(tmp_path), (18,), (6,), tmp_path)
    mine = load(tmp_path, spec, task=KNOWN)
    obs, action = torch.randn(5, 18), torch.rand(5, 6)
    torch.testing.assert_close(mine.predict(obs, action), MbrlDynamics(theirs, spec, task=KNOWN).predict(obs, action), rtol=0, atol=0)
    assert theirs.no_delta_list == [0]


def test_read_network_takes_elites_of_mbrl_libs_trainer(tmp_path):
    network = models.GaussianMLP(5, 3, "cpu", 2, 4, 8)
    network.set_elite(np.argsort([3.0, 1.0, 2.0, 0.0])[:2])  # numpy integers, as ModelTrainer leaves them
    network.save(tmp_path)
    assert files.read_network(tmp_path).elites == (3, 1)


def test_read_columns_refuses_other_and_damaged_files(tmp_path):
    np.savez(tmp_path / "replay_buffer.npz", obs=np.zeros((2, 3)), done=np.zeros(2))
    with pytest.raises(UserError, match=r"lacks action.*one column 'done'"):
        files.read_columns(tmp_path)
    columns = {name: np.zeros((2, 3)) for name in ("obs", "next_obs", "action")}
    flat = {name: np.zeros(2) for name in ("reward", "terminated")}
    np.savez(tmp_path / "replay_buffer.npz", **columns, **flat, truncated=np.zeros(5))
    with pytest.raises(UserError, match=r"different lengths \[2, 5\]"):
        files.read_columns(tmp_path)
    columns["obs"] = np.array([None, None])
    np.savez(tmp_path / "replay_buffer.npz", **columns, **flat, truncated=np.zeros(2))
    with pytest.raises(UserError, match=r"cannot be read"):
        files.read_columns(tmp_path)
    for value in (np.nan, np.inf):
        columns["obs"] = np.full((2, 3), value)
        np.savez(tmp_path / "replay_buffer.npz", **columns, **flat, truncated=np.zeros(2))
        with pytest.raises(UserError, match=r"its column 'obs' has values that are no finite numbers"):
            files.read_columns(tmp_path)
    columns["obs"] = np.full((2, 3), "text")
    np.savez(tmp_path / "replay_buffer.npz", **columns, **flat, truncated=np.zeros(2))
    with pytest.raises(UserError, match=r"no finite numbers \(<U4\)"):
        files.read_columns(tmp_path)
    (tmp_path / "replay_buffer.npz").write_bytes(b"PK truncated")
    with pytest.raises(UserError, match=r"cannot be read"):
        files.read_columns(tmp_path)


@pytest.mark.parametrize("name", [files.MODEL, files.STATS, files.REPLAY, files.SETTINGS])
def test_writers_leave_the_former_file_where_writing_fails(tmp_path, monkeypatch, name):
    saved(tmp_path)
    network, stats = files.read_network(tmp_path), files.read_stats(tmp_path, 5)
    columns = {column: np.zeros((2, 1)) for column in files.COLUMNS}

    writers = {
        files.MODEL: lambda: files.write_network(tmp_path, network),
        files.STATS: lambda: files.write_stats(tmp_path, stats),
        files.REPLAY: lambda: files.write_columns(tmp_path, columns),
        files.SETTINGS: lambda: files.write_settings(tmp_path, Settings(), network, normalize=True),
    }
    for write in writers.values():
        write()
    before = (tmp_path / name).read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        writers[name]()
    assert (tmp_path / name).read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([files.MODEL, files.STATS, files.REPLAY, ".hydra"])
