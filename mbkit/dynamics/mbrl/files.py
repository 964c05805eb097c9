"""Files of mbrl-lib 0.2, read and written without it and without unpickling anything but arrays.

A results directory holds `model.pth` (weights and elites), `env_stats.pickle` (input normaliser), `replay_buffer.npz` and
`.hydra/config.yaml`, which alone knows the activation, the observation processing and which outputs are differences.
Letters as in `mbkit.types`; I input of the model.
"""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy._core import multiarray, numeric
from omegaconf import OmegaConf
from torch import Tensor

from mbkit.dynamics.mbrl.settings import SETTINGS, Settings
from mbkit.errors import UserError
from mbkit.paths import exists, make_folder, reason, short
from mbkit.storage import UNREADABLE, load_archive, replacing, write_text

MODEL, STATS, REPLAY = "model.pth", "env_stats.pickle", "replay_buffer.npz"
COLUMNS = ("obs", "action", "reward", "next_obs", "terminated", "truncated")
ARRAY_PARTS = {  # what a pickled array is made of; numpy 1 wrote the first package name, numpy 2 the second
    f"{package}.{module}.{name}": part
    for package in ("numpy.core", "numpy._core")
    for module, name, part in (
        ("multiarray", "_reconstruct", multiarray._reconstruct),
        ("multiarray", "scalar", multiarray.scalar),
        ("numeric", "_frombuffer", numeric._frombuffer),  # type: ignore[attr-defined]
    )
} | {"numpy.ndarray": np.ndarray, "numpy.dtype": np.dtype}
DTYPES = [type(np.dtype(code)) for code in ("int64", "int32")]  # of an elite's number


class Network(NamedTuple):
    """A `GaussianMLP`: every layer's weight [E, in, out] and bias [E, 1, out], the last giving means, then raw log-variances."""

    layers: list[tuple[Tensor, Tensor]]
    bounds: tuple[Tensor, Tensor] | None  # lowest and highest log-variance, both [D]; None: deterministic members
    elites: tuple[int, ...] | None  # None: every member


class Stats(NamedTuple):
    """Input normaliser (x - mean) / std, both float64 [I]."""

    mean: Tensor
    std: Tensor


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns the exceptions of a missing, truncated or foreign file into one sentence that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{short(path)} is missing; expected a file that mbrl-lib 0.2 saved") from error
    except UNREADABLE as error:
        raise UserError(f"{short(path)} cannot be read as a file of mbrl-lib 0.2: {reason(error)[:160]}") from error


def read_network(directory: str | Path) -> Network:
    """`model.pth` of a `GaussianMLP`, its checksums compared.

    Raises:
        UserError: the file is missing, damaged, or another kind of model; or its weights are not finite or do not fit together.
    """
    path = Path(directory) / MODEL
    safe: list[Any] = [*DTYPES, np.dtype, *((part, name) for name, part in ARRAY_PARTS.items() if name.endswith("scalar"))]
    with naming(path), torch.serialization.safe_globals(safe):
        saved = load_archive(path)
        known = isinstance(saved, dict) and "mean_and_logvar.weight" in saved.get("state_dict", {})
    if not known:
        raise UserError(f"{path} holds another kind of model; expected a GaussianMLP with the entry 'mean_and_logvar.weight'")
    with naming(path):
        state, elites = saved["state_dict"], saved["elite_models"]
        depth = sum(key.startswith("hidden_layers.") and key.endswith(".weight") for key in state)
        names = [f"hidden_layers.{i}.0" for i in range(depth)] + ["mean_and_logvar"]
        layers = [(numbers(state, f"{name}.weight"), numbers(state, f"{name}.bias")) for name in names]
        bounds = None
        if "min_logvar" in state:
            bounds = numbers(state, "min_logvar").flatten(), numbers(state, "max_logvar").flatten()
        network = Network(layers, bounds, None if elites is None else tuple(int(e) for e in elites))
        check_shapes(network)
        return network


def numbers(state: dict[str, Any], name: str) -> Tensor:
    """The entry `name` in float32; ValueError unless it is a stored tensor of finite numbers."""
    value = state[name]
    if not isinstance(value, Tensor) or value.nbytes > value.untyped_storage().nbytes():
        raise ValueError(f"its entry {name!r} is no stored tensor")
    value = value.float()
    if not value.isfinite().all():
        raise ValueError(f"its entry {name!r} has numbers that are not finite")
    return value


def check_shapes(network: Network) -> None:
    """ValueError unless each layer takes what the one before gives, for all members, and the elites are some of them."""
    members, width, _ = network.layers[0][0].shape
    for n, (weight, bias) in enumerate(network.layers):
        if weight.shape[:2] != (members, width) or bias.shape != (members, 1, weight.shape[2]):
            came = f"weights {tuple(weight.shape)} and biases {tuple(bias.shape)}"
            raise ValueError(f"its layer {n} has {came}; expected {members} members of {width} inputs")
        width = weight.shape[2]
    if network.bounds is not None and (width % 2 or {bound.shape for bound in network.bounds} != {(width // 2,)}):
        raise ValueError(f"its log-variance bounds do not fit its {width} outputs")
    elites = network.elites
    if elites is not None and (not elites or len(set(elites)) < len(elites) or not set(elites) <= set(range(members))):
        raise ValueError(f"its elites {elites} are not some of its {members} members")


def state_of(network: Network) -> dict[str, Tensor]:
    """The network under the names of `GaussianMLP.state_dict`."""
    names = [f"hidden_layers.{i}.0" for i in range(len(network.layers) - 1)] + ["mean_and_logvar"]
    state: dict[str, Tensor] = {}
    for name, (weight, bias) in zip(names, network.layers, strict=True):
        state |= {f"{name}.weight": weight.detach().cpu(), f"{name}.bias": bias.detach().cpu()}
    if network.bounds is not None:
        state |= {"min_logvar": network.bounds[0].detach().cpu()[None], "max_logvar": network.bounds[1].detach().cpu()[None]}
    return state


def write_network(directory: str | Path, network: Network) -> None:
    """`model.pth` as `GaussianMLP.load` reads it; elites are plain integers, which torch loads without an allow-list."""
    elites = None if network.elites is None else list(network.elites)
    with replacing(Path(directory) / MODEL) as file:
        torch.save({"state_dict": state_of(network), "elite_models": elites}, file)


class ArraysOnly(pickle.Unpickler):
    """Unpickles NumPy arrays and builtin containers; anything else in the file is refused before it is run."""

    def find_class(self, module: str, name: str) -> Any:
        """The part of an array that goes by this name."""
        if f"{module}.{name}" not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, expected NumPy arrays only")
        return ARRAY_PARTS[f"{module}.{name}"]


def read_stats(directory: str | Path, inputs: int) -> Stats | None:
    """`env_stats.pickle` of a model with so many inputs; None where the model was trained without normalising.

    Raises:
        UserError: the file is damaged or foreign, of another width, or holds numbers that cannot normalise.
    """
    path = Path(directory) / STATS
    if not exists(path):
        return None
    with naming(path), path.open("rb") as file:
        saved = ArraysOnly(file).load()
        mean, std = (torch.from_numpy(np.asarray(saved[key], dtype=np.float64).reshape(-1)) for key in ("mean", "std"))
        if mean.shape != (inputs,) or std.shape != (inputs,):
            raise ValueError(f"it normalises {len(mean)} and {len(std)} numbers; expected the model's {inputs} inputs")
        if not (mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
            raise ValueError("its means are not finite, or its standard deviations are not positive")
        return Stats(mean, std)


def write_stats(directory: str | Path, stats: Stats) -> None:
    """`env_stats.pickle` as mbrl-lib's `Normalizer.load` reads it: float64 [1, I]."""
    arrays = {name: value.detach().cpu().double().numpy()[None] for name, value in stats._asdict().items()}
    with replacing(Path(directory) / STATS) as file:
        pickle.dump(arrays, file, protocol=4)


def write_settings(directory: str | Path, settings: Settings, network: Network, normalize: bool) -> None:
    """`.hydra/config.yaml` with all that `mbrl.util.common.create_one_dim_tr_model` reads."""
    first, last = network.layers[0][0], network.layers[-1][0]
    model = {
        "_target_": "mbrl.models.GaussianMLP",
        "_recursive_": False,  # hydra 1.3 would build the activation first; mbrl-lib was written for 1.0, which did not
        "device": "cpu",
        "num_layers": len(network.layers) - 1,
        "in_size": first.shape[1],
        "out_size": last.shape[2] // (1 if network.bounds is None else 2),
        "ensemble_size": first.shape[0],
        "hid_size": first.shape[2],
        "deterministic": network.bounds is None,
        "propagation_method": "random_model",
        "learn_logvar_bounds": False,
        "activation_fn_cfg": {"_target_": settings.activation},
    }
    algorithm = {
        "target_is_delta": settings.target_is_delta,
        "normalize": normalize,
        "normalize_double_precision": True,
        "learned_rewards": settings.learned_rewards,
    }
    overrides = {
        "no_delta_list": list(settings.no_delta),
        "obs_process_fn": settings.obs_process,
        "num_elites": None if network.elites is None else len(network.elites),
    }
    path = Path(directory) / SETTINGS
    make_folder(path.parent)
    write_text(path, OmegaConf.to_yaml(OmegaConf.create({"dynamics_model": model, "algorithm": algorithm, "overrides": overrides})))


def read_columns(directory: str | Path) -> dict[str, np.ndarray[Any, Any]]:
    """The columns of `replay_buffer.npz`, rows in the order in which they were stored."""
    path = Path(directory) / REPLAY
    with naming(path), np.load(path, allow_pickle=False) as saved:
        missing = sorted(set(COLUMNS) - set(saved.files))
        columns = {name: saved[name] for name in COLUMNS if name in saved.files}
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; expected a buffer of mbrl-lib 0.2 (older ones have one column 'done')")
    for name, column in columns.items():
        if column.dtype.kind not in "fiub" or not np.isfinite(column).all():
            raise UserError(f"{path}: its column {name!r} has values that are no finite numbers ({column.dtype})")
    if len(lengths := {len(column) for column in columns.values()}) > 1:
        raise UserError(f"{path} has columns of different lengths {sorted(lengths)}; expected one row per transition")
    return columns


def write_columns(directory: str | Path, columns: dict[str, np.ndarray[Any, Any]]) -> None:
    """`replay_buffer.npz` as mbrl-lib's `ReplayBuffer.load` reads it, without trajectories."""
    with replacing(Path(directory) / REPLAY) as file:
        np.savez(file, **columns, trajectory_indices=np.zeros(0))  # type: ignore[arg-type]
