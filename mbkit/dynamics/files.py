"""`dynamics.pt`: a trained ensemble on disk, readable without pickle, and refused where it does not fit."""

from __future__ import annotations

import os
import pickle
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mbkit.types import UserError

if TYPE_CHECKING:
    from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig

FORMAT = "mbkit.dynamics/1"
STRUCTURE = ("members", "elites", "hidden", "probabilistic", "delta", "scale_targets")  # settings that the weights depend on
UNREADABLE = (OSError, EOFError, RuntimeError, LookupError, TypeError, ValueError, pickle.UnpicklingError)


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
        UserError: missing, truncated or foreign file.
    """
    if not path.is_file():
        raise UserError(f"dynamics file {str(path)!r} does not exist")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise UserError(
            f"{str(path)!r} is truncated or no dynamics file of mbkit: expected {FORMAT}, got {type(error).__name__}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format", "no format") if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{str(path)!r} is not a dynamics file of mbkit: expected {FORMAT}, got {found}")
    return content


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
    own.update({k: v for k, v in content["state"].items() if k in own})
    model.optimizer.state.clear()
    own["_extra_state"] = {"optimizer": model.optimizer.state_dict(), "fitted": content["fitted"]}
    model.load_state_dict(own)
    meta: dict[str, Any] = content["meta"]
    return meta


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
