"""Where a stored run is taken up: on the device it was trained on, on another one, or on the CPU where there is no GPU."""

import logging
from dataclasses import replace
from typing import Any

import torch

from mbkit.config import GROUPS, Experiment, Part
from mbkit.errors import UserError

log = logging.getLogger("mbkit")


def placed(experiment: Experiment, device: str | None = None) -> tuple[Experiment, list[str]]:
    """The experiment on `device`, and notes on what differs.

    `device` None: the device it was trained on, or the CPU where that was a GPU and this machine has none. On a CPU no graph is captured.

    Raises:
        UserError: `device` is neither "cpu" nor "cuda".
    """
    if not (device is None or (isinstance(device, str) and device in ("cpu", "cuda"))):
        raise UserError(f"device={device!r}: expected cpu or cuda")
    target = experiment.device if device is None else device
    notes = []
    if device is None and target == "cuda" and not torch.cuda.is_available():
        target = "cpu"
        notes.append("The run was trained on a GPU and is on the CPU now, since torch finds no CUDA device here; last digits may differ.")
        log.warning(notes[0])
    return (replace(experiment, device="cuda") if target == "cuda" else eager(replace(experiment, device="cpu"))), notes


def eager(experiment: Experiment) -> Experiment:
    """The experiment without CUDA graphs, which a CPU does not have."""
    groups = {name: getattr(experiment, name) for name in ("loop", *GROUPS)}
    return replace(experiment, **{name: _eager(group) for name, group in groups.items()})


def _eager(group: Any) -> Any:
    if isinstance(group, Part):
        return group._replace(config=_eager(group.config))
    return replace(group, mode="eager") if getattr(group, "mode", None) == "cudagraph" else group
