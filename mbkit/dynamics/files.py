"""`dynamics.pt`: a trained ensemble on disk, readable without pickle, and refused where it does not fit."""

from __future__ import annotations

import os
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mbkit.errors import UserError
from mbkit.storage import read_tensors

if TYPE_CHECKING:
    from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig

FORMAT = "mbkit.dynamics/1"
STRUCTURE = ("members", "elites", "hidden", "probabilistic", "delta", "scale_targets")  # settings that the weights depend on
PARTS = {"fits": dict, "cfg": dict, "state": dict, "fitted": dict, "meta": dict}


def save(model: Ensemble, path: Path, meta: dict[str, Any]) -> None:
    """Write under a temporary name, then rename: an interrupted write leaves the former file."""
    state = {k: v.detach().cpu() for k, v in model.state_dict().items() if isinstance(v, Tensor)}  # without the optimizer
    content = {"format": FORMAT, "fits": fits(model), "cfg": asdict(model.cfg), "state": state, "fitted": model.fitted, "meta": meta}
    partial = path.with_name(path.name + ".partial")
    try:
        torch.save(content, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch reports a missing directory as RuntimeError
        raise UserError(f"the dynamics file {str(path)!r} cannot be written: {error}") from error


def read(path: Path) -> dict[str, Any]:
    """The content of a `dynamics.pt`: `fits`, `cfg`, `state`, `fitted` (hold-out metrics, fingerprint, rows) and `meta`.

    Raises:
        UserError: missing, damaged or foreign file.
    """
    if path.is_dir():
        raise UserError(f"dynamics file {str(path)!r} is a directory: expected FILE, e.g. {path / 'dynamics.pt'}")
    if not path.is_file():
        raise UserError(f"dynamics file {str(path)!r} does not exist")
    return read_tensors(path, FORMAT, PARTS)


def config(path: str | Path, cfg: EnsembleConfig) -> EnsembleConfig:
    """`cfg` with the settings that the file's weights depend on (widths, members, ...) taken from the file."""
    stored = read(Path(path))["cfg"]
    known = {f.name for f in fields(cfg)}
    taken: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items() if k in STRUCTURE and k in known}
    return replace(cfg, **taken)


def load(model: Ensemble, path: Path) -> dict[str, Any]:
    """Fill `model` in place and return the file's `meta`; the optimizer starts afresh. See `Ensemble.load` for the errors."""
    content = read(path)
    ours, theirs = fits(model), content["fits"]
    for key, expected in ours.items():
        if theirs.get(key) != expected:
            raise UserError(f"dynamics file {str(path)!r} does not fit: {key} must be {expected}, the file has {theirs.get(key)}")
    own = model.state_dict()
    _check(model, content["state"], own, path)
    own.update({k: v for k, v in content["state"].items() if k in own})
    model.optimizer.state.clear()
    own["_extra_state"] = {"optimizer": model.optimizer.state_dict(), "fitted": content["fitted"]}
    model.load_state_dict(own)
    meta: dict[str, Any] = content["meta"]
    return meta


def _check(model: Ensemble, state: dict[str, Any], own: dict[str, Any], path: Path) -> None:
    """Raise UserError unless `state` has a finite tensor of the right shape for each of the model's own, and elites that exist."""
    for key, mine in own.items():
        if isinstance(mine, Tensor) and not (isinstance(state.get(key), Tensor) and state[key].shape == mine.shape):
            came = tuple(state[key].shape) if isinstance(state.get(key), Tensor) else "none"
            raise UserError(
                f"dynamics file {str(path)!r} does not fit: {key} must be a tensor of shape {tuple(mine.shape)}, the file has {came}"
            )
        if isinstance(mine, Tensor) and not state[key].isfinite().all():
            raise UserError(f"dynamics file {str(path)!r} holds a model that diverged: {key} has numbers that are not finite")
    elites, members, wanted = state["elites"].tolist(), range(model.cfg.members), model.cfg.elites
    if len(set(elites) & set(members)) < wanted:
        expected = f"{wanted} different members of 0..{members[-1]}"
        raise UserError(f"dynamics file {str(path)!r} does not fit: elites must be {expected}, the file has {elites}")


def fits(model: Ensemble) -> dict[str, Any]:
    """What a file and a model must agree on, in words the user knows."""
    spec, cfg = model.spec, model.cfg
    return {
        "observation dimensions": spec.obs_dim,
        "action dimensions": spec.action_dim,
        "discrete actions": spec.discrete,
        "model input dimensions": model.input_dim,
        "observation processing": _probe(model),
        "absolute dimensions": [d for d in range(spec.obs_dim) if d in model.absolute],
        "reward": "learned" if model.reward is None else "known",
        "termination": "learned" if model.learns_termination else "known",
        **{f"dynamics.{name}": list(v) if isinstance(v := getattr(cfg, name), tuple) else v for name in STRUCTURE},
    }


def _probe(model: Ensemble) -> list[float]:
    """What the networks see of one fixed observation, rounded: tells two ways of processing apart."""
    obs = torch.linspace(-0.7, 0.9, model.spec.obs_dim, device=model.spec.device)[None]
    seen = obs if model.preprocess is None else model.preprocess(obs)
    return [round(v, 3) for v in seen[0].tolist()]
