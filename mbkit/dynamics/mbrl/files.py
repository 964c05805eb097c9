"""Files of mbrl-lib 0.2, read and written without it and without unpickling anything but arrays.

A results directory holds `model.pth` (weights and elites), `env_stats.pickle` (input normaliser), `replay_buffer.npz` and
`.hydra/config.yaml`, which alone knows the activation, the observation processing and which outputs are differences.
Letters as in `mbkit.types`; I input of the model.
"""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from numpy._core import multiarray, numeric
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from yaml import YAMLError  # type: ignore[import-untyped]

from mbkit.errors import UserError
from mbkit.storage import replacing, write_text

MODEL, STATS, REPLAY, SETTINGS = "model.pth", "env_stats.pickle", "replay_buffer.npz", ".hydra/config.yaml"
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
FOREIGN = (OSError, EOFError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, pickle.UnpicklingError, BadZipFile)
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


@dataclass(frozen=True)
class Settings:
    """Settings of a saved model that its weights do not show; defaults are those of mbrl-lib's own PETS and MBPO configurations."""

    activation: str = "torch.nn.SiLU"
    target_is_delta: bool = True
    no_delta: tuple[int, ...] = ()  # outputs that are the next observation itself
    obs_process: str | None = None  # import path
    learned_rewards: bool = False


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns the exceptions of a missing, truncated or foreign file into one sentence that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; expected a file that mbrl-lib 0.2 saved") from error
    except FOREIGN as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read as a file of mbrl-lib 0.2: {reason}") from error


def read_network(directory: str | Path) -> Network:
    """`model.pth` of a `GaussianMLP`; UserError if it is missing, damaged, or another kind of model."""
    path = Path(directory) / MODEL
    safe: list[Any] = [*DTYPES, np.dtype, *((part, name) for name, part in ARRAY_PARTS.items() if name.endswith("scalar"))]
    with naming(path), torch.serialization.safe_globals(safe):
        saved = torch.load(path, map_location="cpu", weights_only=True)
    if "state_dict" not in saved or "mean_and_logvar.weight" not in saved["state_dict"]:
        raise UserError(f"{path} holds another kind of model; expected a GaussianMLP with the entry 'mean_and_logvar.weight'")
    with naming(path):
        state, elites = saved["state_dict"], saved["elite_models"]
        depth = sum(key.startswith("hidden_layers.") and key.endswith(".weight") for key in state)
        names = [f"hidden_layers.{i}.0" for i in range(depth)] + ["mean_and_logvar"]
        layers = [(state[f"{name}.weight"].float(), state[f"{name}.bias"].float()) for name in names]
        bounds = (state["min_logvar"].flatten().float(), state["max_logvar"].flatten().float()) if "min_logvar" in state else None
        return Network(layers, bounds, None if elites is None else tuple(int(e) for e in elites))


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


def read_stats(directory: str | Path) -> Stats | None:
    """`env_stats.pickle`; None where the model was trained without normalising."""
    path = Path(directory) / STATS
    if not path.exists():
        return None
    with naming(path), path.open("rb") as file:
        saved = ArraysOnly(file).load()
        mean, std = (torch.from_numpy(np.asarray(saved[key], dtype=np.float64).reshape(-1)) for key in ("mean", "std"))
        return Stats(mean, std)


def write_stats(directory: str | Path, stats: Stats) -> None:
    """`env_stats.pickle` as mbrl-lib's `Normalizer.load` reads it: float64 [1, I]."""
    arrays = {name: value.detach().cpu().double().numpy()[None] for name, value in stats._asdict().items()}
    with replacing(Path(directory) / STATS) as file:
        pickle.dump(arrays, file, protocol=4)


def read_settings(directory: str | Path) -> Settings | None:
    """The model's settings in `.hydra/config.yaml`; None where there is no such file."""
    path = Path(directory) / SETTINGS
    if not path.exists():
        return None
    try:
        config = OmegaConf.load(path)
        pick = OmegaConf.select
        activation = pick(config, "dynamics_model.activation_fn_cfg._target_", default="torch.nn.ReLU")
        return Settings(
            activation=str(activation),
            target_is_delta=bool(pick(config, "algorithm.target_is_delta", default=True)),
            no_delta=tuple(int(dim) for dim in pick(config, "overrides.no_delta_list", default=None) or ()),
            obs_process=pick(config, "overrides.obs_process_fn", default=None),
            learned_rewards=bool(pick(config, "algorithm.learned_rewards", default=True)),
        )
    except (OmegaConfBaseException, YAMLError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a configuration of mbrl-lib: {str(error).splitlines()[0]}") from error


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
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, OmegaConf.to_yaml(OmegaConf.create({"dynamics_model": model, "algorithm": algorithm, "overrides": overrides})))


def read_columns(directory: str | Path) -> dict[str, np.ndarray[Any, Any]]:
    """The columns of `replay_buffer.npz`, rows in the order in which they were stored."""
    path = Path(directory) / REPLAY
    with naming(path), np.load(path, allow_pickle=False) as saved:
        missing = sorted(set(COLUMNS) - set(saved.files))
        columns = {name: saved[name] for name in COLUMNS if name in saved.files}
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; expected a buffer of mbrl-lib 0.2 (older ones have one column 'done')")
    if len(lengths := {len(column) for column in columns.values()}) > 1:
        raise UserError(f"{path} has columns of different lengths {sorted(lengths)}; expected one row per transition")
    return columns


def write_columns(directory: str | Path, columns: dict[str, np.ndarray[Any, Any]]) -> None:
    """`replay_buffer.npz` as mbrl-lib's `ReplayBuffer.load` reads it, without trajectories."""
    with replacing(Path(directory) / REPLAY) as file:
        np.savez(file, **columns, trajectory_indices=np.zeros(0))  # type: ignore[arg-type]
