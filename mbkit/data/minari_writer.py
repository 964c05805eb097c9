"""Minari's data sets, written by Minari's own code into a temporary folder, which is renamed once it is complete.

Letters: T steps of an episode, E episodes.
"""

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
from gymnasium import spaces

from mbkit.data import about
from mbkit.data.dataset import Dataset
from mbkit.data.minari import METADATA, SPACES
from mbkit.data.minari_files import MAIN
from mbkit.data.nested import Space, space_of, unflattened
from mbkit.errors import UserError
from mbkit.paths import check_file, exists, is_dir, reason, short
from mbkit.storage import read_json, sync_directory, write_json

OVERHEAD = 20_000  # bytes of an episode in Minari's layout beside its rows
ROOT_VARIABLE = "MINARI_DATASETS_PATH"


def write(data: Dataset, path: Path, id: str | None = None) -> Path:
    """Write the data set as Minari's, whole or not at all -> its own folder: `path` where that ends in `id`, else `path`/`id`.

    Args:
        data: what to write.
        path: where; MINARI_DATASETS_PATH has no say.
        id: `namespace/name-v0`; by default that of the Minari data set which the data come from.

    Raises:
        UserError: Minari is not installed, an id that is none of its, the folder exists, or a row fails a check.
    """
    minari, parse = _package()
    known = data.source.get("minari")
    name = str(id or (known.get("dataset_id") if isinstance(known, dict) else ""))
    try:
        parse(name)
    except (ValueError, TypeError) as error:
        raise UserError(f"--id: expected a name like namespace/name-v0, the namespace of 2 characters or more, got {name!r}") from error
    parts = Path(name).parts
    folder = path if path.parts[-len(parts) :] == parts else path / name
    if exists(folder):
        raise UserError(f"{short(folder)} exists; expected the path of a new folder")
    check_file(folder, makes_folders=True)
    _check_space(folder, data)
    with _renamed_to(folder, name) as root, _datasets_in(root), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari warns of each entry that is left empty
        spaces_of = dict(zip(SPACES, _spaces(data), strict=True))
        minari.create_dataset_from_buffers(
            name, buffer=_buffers(data, *spaces_of.values()), data_format="hdf5", jpeg_encoding=False, **spaces_of
        )
        _complete(root / name / "data", data, name)
    return folder


def _package() -> tuple[Any, Any]:
    """Minari, and its function that takes an id apart."""
    try:
        import minari
        from minari.dataset.minari_dataset import parse_dataset_id
        from PIL import Image as Image  # Minari's HDF5 storage imports it, and does not depend on it
    except ImportError as error:
        raise UserError(f"writing Minari's data sets needs mbkit[minari]: {error}") from error
    return minari, parse_dataset_id


def _check_space(folder: Path, data: Dataset) -> None:
    """UserError where the disk is too full for what Minari will write: HDF5 crashes where it finds out by itself."""
    beside = next(parent for parent in folder.absolute().parents if is_dir(parent))
    needed = data.rows * sum(column.nbytes for column in next(data.raw(1))) + data.episodes * OVERHEAD
    free = shutil.disk_usage(beside).free
    if needed > free:
        raise UserError(f"{folder} cannot be written: it needs about {needed / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free")


@contextmanager
def _renamed_to(folder: Path, name: str) -> Iterator[Path]:
    """A temporary root beside the first folder to be made, whose data set `name` becomes `folder` afterwards; deleted after an error."""
    beside = next(parent for parent in folder.absolute().parents if is_dir(parent))
    try:
        root = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=beside))
        try:
            yield root
            folder.parent.mkdir(parents=True, exist_ok=True)
            namespaces = [entry.relative_to(root) for entry in root.rglob("namespace_metadata.json")]
            base = folder.absolute().parents[len(Path(name).parts) - 1]
            for entry in namespaces:
                if not exists(base / entry):
                    os.replace(root / entry, base / entry)
            os.replace(root / name, folder)
            sync_directory(folder.parent)
        finally:
            shutil.rmtree(root, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{short(folder)} cannot be written ({reason(error)})") from error


@contextmanager
def _datasets_in(root: Path) -> Iterator[None]:
    """Minari's root folder is `root` inside."""
    before = os.environ.get(ROOT_VARIABLE)
    os.environ[ROOT_VARIABLE] = str(root)
    try:
        yield
    finally:
        if before is None:
            del os.environ[ROOT_VARIABLE]
        else:
            os.environ[ROOT_VARIABLE] = before


def _spaces(data: Dataset) -> tuple[Space, Space]:
    """Spaces of observations and actions: those the data came with, where Minari's; else boxes of the recorded types, or Discrete."""
    known = data.source.get("minari")
    if isinstance(known, dict):
        observation, action = (space_of(known.get(key), Path(data.name), key) for key in SPACES)
        return observation, action
    first = next(data.raw(1))
    observation = spaces.Box(-np.inf, np.inf, (data.obs_dim,), first.obs.dtype.type)
    if first.obs.dtype.kind in "iub":
        limits = np.iinfo(first.obs.dtype) if first.obs.dtype.kind != "b" else np.iinfo(np.int8)
        observation = spaces.Box(limits.min, limits.max, (data.obs_dim,), first.obs.dtype.type)
    if data.choices:
        return observation, spaces.Discrete(data.choices, start=data.start)
    low, high = data.box
    kind = first.action.dtype.type if first.action.dtype.kind == "f" else np.float64  # a Box of whole numbers would mean discrete actions
    return observation, spaces.Box(low.astype(kind), high.astype(kind), low.shape, kind)


def _buffers(data: Dataset, observation: Space, action: Space) -> Iterator[Any]:
    """One of Minari's EpisodeBuffers after the other."""
    from minari.data_collector import EpisodeBuffer

    seeds = [seed if _storable(seed) else None for seed in data.listed("seeds")]
    for number, rows in enumerate(data.whole_episodes()):
        obs = np.concatenate([rows.obs, rows.next_obs[-1:]])
        yield EpisodeBuffer(
            id=number,
            seed=seeds[number],
            observations=unflattened(observation, obs),
            actions=rows.action.reshape(len(rows.action), *(action.shape or ())),
            rewards=rows.reward,  # type: ignore[arg-type]
            terminations=rows.terminated,  # type: ignore[arg-type]
            truncations=rows.truncated,  # type: ignore[arg-type]
            infos=None,
        )


def _storable(value: Any) -> bool:
    """Whether HDF5 has a type for this whole number."""
    return type(value) is int and -(2**63) <= value < 2**64


def _complete(folder: Path, data: Dataset, name: str) -> None:
    """Add what Minari's function has no argument for, or would look up in an environment: ids, specification, scores, what mbkit knows."""
    known = data.source.get("minari")
    origin = known if isinstance(known, dict) else {}
    specification = {} if origin or data.env is None else _specification(data.env, data.env_kwargs)
    metadata = {**origin, **specification, **read_json(folder / METADATA)}
    metadata["mbkit"] = {"about": json.loads(about.to_json(data)), "episodes": data.episodes, "dataset_id": name}
    write_json(folder / METADATA, metadata)
    with h5py.File(folder / MAIN, "r+") as file:
        for number, episode in enumerate(data.listed("ids")):
            if _storable(episode) and episode != number:
                file[f"episode_{number}"].attrs["id"] = episode


def _specification(env: str, env_kwargs: dict[str, Any]) -> dict[str, str]:
    """The entry env_spec of an environment that Gymnasium knows here; {} of any other."""
    try:
        registered = gymnasium.spec(env)
    except gymnasium.error.Error:
        return {}
    entries = json.loads(registered.to_json())
    kwargs = dict(env_kwargs)
    if "max_episode_steps" in kwargs:
        entries["max_episode_steps"] = kwargs.pop("max_episode_steps")
    entries["kwargs"] = {**entries["kwargs"], **kwargs}
    return {"env_spec": json.dumps(entries)}
