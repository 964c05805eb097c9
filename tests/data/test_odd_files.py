"""Files whose JSON says something odd: read as far as it makes sense, or refused in one sentence, never a crash."""

import json
import shutil

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from odd_values import mutations, refusal_of
from recorded import dataset

from mbkit.data import read, write
from mbkit.data.summary import summary

FACTS = {"source": {"ids": [4, 5, 6], "seeds": [1, None, 2]}, "env": "Pendulum-v1", "obs_names": ("x", "y"), "notes": ["said"]}
TREE = {"env": "Pendulum-v1", "env_kwargs": {"g": 1}, "obs_names": ["x", "y"], "action_names": [], "has_reward": True, "notes": ["said"]}
TREE |= {"action_low": [-1, -2], "action_high": [1, 2], "choices": 0, "start": 0, "source": {"ids": [4, 5, 6], "seeds": [1, None, 2]}}


def as_json(tree) -> bytes:
    """JSON, with tensors as lists."""
    return json.dumps(tree, default=lambda value: value.tolist()).encode()


def everything(path) -> None:
    """What reading, summing up and converting does with a file."""
    data = read(path)
    summary(data)
    data.buffer(data.spec())
    part = data.between(0, data.episodes - 1 or 1)
    write(part, path.with_name("again"))
    shutil.rmtree(path.with_name("other"), ignore_errors=True)
    write(part, path.with_name("other"), to="minari", id="toy/again-v0")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=mutations(TREE))
@pytest.mark.parametrize("to", ["mbkit", "d4rl", "npz"])
def test_read_of_odd_facts_is_refused_or_works(tmp_path, to, tree):
    path = write(dataset([2, 3, 1], **FACTS), tmp_path / "data", to=to)
    content = as_json(tree) if to == "mbkit" else as_json({"about": json.dumps(tree, default=lambda x: x.tolist()), "unmarked": []})
    values = np.frombuffer(content, np.uint8)
    if to == "npz":
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in archive} | {"mbkit": values}
        with open(path, "wb") as file:
            np.savez(file, **arrays)
    else:
        with h5py.File(path, "r+") as file:
            name = "about" if to == "mbkit" else "metadata/mbkit"
            del file[name]
            file[name] = values
    refusal_of(lambda: everything(path))


METADATA = {"total_episodes": 3, "data_format": "hdf5", "dataset_id": "toy/some-v0", "env_spec": '{"id": "Pendulum-v1"}'}
SPACES = {
    "observation_space": {"type": "Box", "dtype": "float64", "shape": [2], "low": [-9e9, -9e9], "high": [9e9, 9e9]},
    "action_space": {"type": "Box", "dtype": "float64", "shape": [2], "low": [-1.0, -2.0], "high": [1.0, 2.0]},
}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=mutations({**METADATA, **SPACES, "mbkit": {"about": TREE, "episodes": 3, "dataset_id": "toy/some-v0"}}))
def test_read_of_odd_metadata_is_refused_or_works(tmp_path, tree):
    path = tmp_path / "data"
    if not path.exists():
        shutil.move(write(dataset([2, 3, 1], **FACTS), tmp_path / "first", to="minari", id="toy/some-v0"), path)
    spaces = {key: json.dumps(tree[key], default=lambda value: value.tolist()) for key in SPACES if key in tree}
    (path / "data/metadata.json").write_bytes(as_json({**tree, **spaces}))
    refusal_of(lambda: everything(path))
