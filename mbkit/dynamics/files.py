"""`dynamics.pt`: a trained ensemble on disk, readable without pickle, and refused where it does not fit."""

import hashlib
import re
from dataclasses import asdict, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from mbkit.config.imports import without_path
from mbkit.dynamics.calibration import identity
from mbkit.dynamics.network import EnsembleConfig, EnsembleNetwork
from mbkit.errors import UserError
from mbkit.networks.normalizer import InputNormalizer
from mbkit.paths import is_dir, is_file, short
from mbkit.storage import read_tensors, write_tensors
from mbkit.types import State, Transition

FORMAT = "mbkit.dynamics/1"
STRUCTURE = ("members", "elites", "hidden", "probabilistic", "delta", "scale_targets")  # settings that the weights depend on
PARTS = {"fits": dict, "cfg": dict, "state": dict, "fitted": dict, "meta": dict}


def save(network: EnsembleNetwork, path: Path, fitted: State, meta: State) -> None:
    """Write the network with facts of its fit and the user's own, whole or not at all; UserError where the disk refuses."""
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    content = {"fits": fits(network), "cfg": asdict(network.cfg), "state": state, "fitted": fitted, "meta": meta}
    write_tensors(path, FORMAT, content)


def read(path: Path) -> State:
    """The content of a `dynamics.pt`: `fits`, `cfg`, `state`, `fitted` (hold-out metrics, fingerprint, rows) and `meta`.

    Raises:
        UserError: missing, damaged or foreign file.
    """
    if is_dir(path):
        raise UserError(f"dynamics file '{short(path)}' is a directory: expected FILE, e.g. {short(path / 'dynamics.pt')}")
    if not is_file(path):
        raise UserError(f"dynamics file '{short(path)}' does not exist")
    return read_tensors(path, FORMAT, PARTS)


def config(path: str | Path, cfg: EnsembleConfig) -> EnsembleConfig:
    """`cfg` with the settings that the file's weights depend on (widths, members, ...) taken from the file.

    So is the termination, unless `cfg` names one; UserError where it was a Python object that no import path leads to.
    """
    stored = read(Path(path))["cfg"]
    known = {f.name for f in fields(cfg)}
    structure: State = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items() if k in STRUCTURE and k in known}
    for name, value in structure.items():
        if not alike(value, getattr(cfg, name)):
            raise UserError(f"dynamics file {str(path)!r} does not fit: dynamics.{name}={value!r} is no value of this option")
    if cfg.termination == "auto" and isinstance(name := stored.get("termination"), str):
        if without_path(name):
            raise UserError(
                f"dynamics file {str(path)!r} is of a model whose termination is the Python object {name}; "
                "expected it again, or dynamics.termination=pkg.mod:fn or never"
            )
        structure["termination"] = name
    return replace(cfg, **structure)


def check_task(path: str | Path, env: str) -> None:
    """UserError where the file's model is of another task than `env`; versions of a task count as the same."""
    stored = read(Path(path))["meta"].get("env")
    if isinstance(stored, str) and "none" not in (stored, env) and family(stored) != family(env):
        raise UserError(f"dynamics file {str(path)!r} does not fit: it is a model of {stored}, and this run is on {env}")


def family(env: str) -> str:
    """The name of a task without its version, and without the namespace and the module that it is registered by."""
    return re.sub(r"-v\d+$", "", env.rpartition(":")[2].rpartition("/")[2])


def learned_whole_reward(path: str | Path) -> bool:
    """Whether the file's model learned all of the reward, also what is known of it."""
    return bool(read(Path(path))["fits"].get("reward") == "learned")


def alike(value: object, default: object) -> bool:
    """Whether a value has its option's type, and every number is at least 1."""
    if isinstance(default, tuple):
        return isinstance(value, tuple) and len(value) > 0 and all(alike(number, 1) for number in value)
    return type(value) is type(default) and (not isinstance(value, int) or isinstance(value, bool) or value >= 1)


def load(network: EnsembleNetwork, path: Path) -> tuple[State, State]:
    """Fill the network in place and return the file's `fitted` and `meta`. See `Ensemble.load` for the errors."""
    content, state = read(path), network.state_dict()
    if network.task.reward is not None and content["fits"].get("reward") in ("learned", "learned in part"):
        content = without_reward(content, network.spec.obs_dim)
    stored = {**defaults(network), **content["state"]}
    for key, expected in fits(network).items():
        if content["fits"].get(key) != expected:
            raise UserError(f"dynamics file {str(path)!r} does not fit: {key} must be {expected}, the file has {content['fits'].get(key)}")
    check(stored, state, network.cfg, path)
    network.load_state_dict({name: stored[name] for name in state})
    return dict(content["fitted"]), content["meta"]


def without_reward(content: State, obs_dim: int) -> State:
    """The file's content as if its model had not learned the reward, the last of its D = `obs_dim` + 1 outputs: for those who know it.

    A network's output is [mean D | raw log-variance D, if probabilistic | termination logit, if learned].
    """
    d, state = obs_dim + 1, dict(content["state"])
    blocks = 1 + bool(content["fits"].get("dynamics.probabilistic"))
    layers = [int(name.rpartition(".")[2]) for name in state if re.fullmatch(r"net\.weight\.\d+", str(name))]
    last = {f"net.{kind}.{max(layers, default=0)}" for kind in ("weight", "bias")}
    for name, value in state.items():
        if name in last and isinstance(value, Tensor):
            means_and_variances = [value[..., k * d : k * d + obs_dim] for k in range(blocks)]
            state[name] = torch.cat([*means_and_variances, value[..., blocks * d :]], -1)
        elif name in ("targets.mean", "targets.std", "log_factor", "levels", "logvar_bounds") and isinstance(value, Tensor):
            state[name] = value[..., :obs_dim]
    return {**content, "fits": {**content["fits"], "reward": "known"}, "state": state}


def defaults(network: EnsembleNetwork) -> State:
    """What files lack that were written before inputs were bounded and variances calibrated."""
    fresh = InputNormalizer(network.input_dim)
    correction = {"log_factor": torch.zeros(network.output_dim), "levels": identity(network.output_dim)}
    return {"inputs.low": fresh.low, "inputs.high": fresh.high, **correction}


def check(stored: State, state: State, cfg: EnsembleConfig, path: Path) -> None:
    """Raise UserError unless `stored` has a finite tensor of the right shape for each in the network's `state`, and elites that exist."""
    for name, expected in state.items():
        tensor, shape = stored.get(name), tuple(expected.shape)
        if not (isinstance(tensor, Tensor) and tensor.shape == shape):
            came = tuple(tensor.shape) if isinstance(tensor, Tensor) else "none"
            raise UserError(f"dynamics file {str(path)!r} does not fit: {name} must be a tensor of shape {shape}, the file has {came}")
        if not tensor.isfinite().all():
            raise UserError(f"dynamics file {str(path)!r} holds a model that diverged: {name} has numbers that are not finite")
    check_elites(stored["elites"], cfg, f"dynamics file {str(path)!r}")
    for name, expected in state.items():
        if stored[name].dtype != expected.dtype:
            came = stored[name].dtype
            raise UserError(f"dynamics file {str(path)!r} does not fit: {name} must be {expected.dtype}, the file has {came}")


def check_elites(stored: Tensor, cfg: EnsembleConfig, where: str) -> None:
    """UserError where the elites are not so many different members."""
    elites, members = stored.tolist(), range(cfg.members)
    if len(set(elites) & set(members)) < cfg.elites:
        expected = f"{cfg.elites} different members of 0..{members[-1]}"
        raise UserError(f"{where} does not fit: elites must be {expected}, the file has {elites}")


def fits(network: EnsembleNetwork) -> State:
    """Properties in which a file and a model must agree, by names that a user knows."""
    spec, cfg, task = network.spec, network.cfg, network.task
    return {
        "observation dimensions": spec.obs_dim,
        "action dimensions": spec.action_dim,
        "discrete actions": list(spec.parts) or spec.discrete,
        "model input dimensions": network.input_dim,
        "observation processing": probe(network),
        "absolute dimensions": [d for d in range(spec.obs_dim) if d in task.absolute],
        "reward": "known" if task.reward is not None else "learned" if task.reward_part is None else "learned in part",
        "termination": "learned" if network.learns_termination else "known",
        **{f"dynamics.{name}": list(v) if isinstance(v := getattr(cfg, name), tuple) else v for name in STRUCTURE},
    }


def probe(network: EnsembleNetwork) -> list[float]:
    """The model inputs of one fixed observation, rounded: they differ between two ways of processing."""
    obs = torch.linspace(-0.7, 0.9, network.spec.obs_dim, device=network.spec.device)[None]
    return [round(value, 3) for value in network.encode_obs(obs)[0].tolist()]


def fingerprint(data: Transition) -> str:
    """sha256 of the rows, by which two ensembles can be compared for the same data."""
    digest = hashlib.sha256()
    for value in data[:5]:
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
