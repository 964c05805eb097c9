"""How good the model is on the episodes that the policy was scored on, which no fit has seen."""

from typing import Any

import torch

from mbkit.buffer import ReplayBuffer, Windows
from mbkit.dynamics import diagnose
from mbkit.types import Dynamics, Trajectory

LONGEST = 30  # steps predicted open loop
WINDOWS = 200  # stretches that the error against horizon is averaged over
ROWS = 5000  # transitions that one-step errors are averaged over


def diagnose_model(model: Any, held_out: ReplayBuffer) -> dict[str, Any]:
    """One-step error, calibration and error against horizon, as far as the model can be asked; what `diagnostics.json` holds."""
    found: dict[str, Any] = {}
    data = type(held_out.all())(*(column[-ROWS:] for column in held_out.all()))
    if hasattr(model, "predict"):
        error, coverage = diagnose.one_step(model, data), diagnose.calibration(model, data)
        mse = sum(e**2 for e in error["rmse"]) / len(error["rmse"])
        found["holdout"] = {"mse": mse, "nll": error["nll"], "per_dim": error["rmse"], "relative": error["relative"], "rows": error["rows"]}
        found["calibration"] = {"nominal": coverage["level"], "empirical": coverage["coverage"], "error": coverage["error"]}
    length = next((n for n in (LONGEST, 15, 5) if len(held_out.windows(n).reward)), None)
    if length is not None and isinstance(model, Dynamics):
        error = diagnose.error_vs_horizon(model, as_trajectory(held_out.windows(length, WINDOWS)))
        found["horizon"] = {"steps": error.pop("horizon"), **error}
    return found


def as_trajectory(windows: Windows) -> Trajectory:
    """Windows [B, L] as a trajectory [L, B]; nothing ends inside a window."""
    obs, action, reward = windows.obs.transpose(0, 1), windows.action.transpose(0, 1), windows.reward.T
    one = torch.ones_like(reward)
    return Trajectory(obs[:-1], action, reward, obs[1:], one, torch.zeros_like(one, dtype=torch.bool), torch.zeros_like(one))
