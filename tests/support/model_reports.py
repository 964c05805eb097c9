"""Contents of a report on a model, made up."""

import math
from typing import Any

import numpy as np

DEPTHS = [1, 2, 5, 10]


def model_facts(rho: dict[str, float] | None = None, dims: int = 3, actions: int = 2, **more: Any) -> dict[str, Any]:
    """As `report_on` returns them: each penalty with its rank correlation at depth 5, the same at other depths but for a little."""
    rho = {"disagreement": 0.71, "max_aleatoric": 0.18} if rho is None else rho
    levels, share = np.linspace(0.1, 0.9, 9), np.arange(1.0, dims + 1) / np.arange(1, dims + 1).sum()
    penalties = {
        name: {
            str(depth): {
                "spearman": value - 0.01 * (depth - 5),
                "auroc": 0.5 + value / 2,
                "share_by_dimension": share.tolist(),
                "error_by_tenth": (0.5 + value * np.arange(10) / 10).tolist() if math.isfinite(value) else [0.5] * 10,
            }
            for depth in DEPTHS
        }
        for name, value in rho.items()
    }
    shares = np.full((actions, 10), 0.1)
    shares[-1] = [0.5, 0.5, *([0.0] * 8)]
    steps = np.arange(1, 6)
    horizon = {"steps": steps, "median": 0.1 * steps, "low": 0.05 * steps, "high": 0.2 * steps, "baseline": 0.6 + 0 * steps}
    horizon |= {"rmse": 0.12 * steps, "no_change": 0.7 + 0 * steps}
    facts: dict[str, Any] = {
        "model": {"path": "runs/a/dynamics.pt", "sha256": "0" * 64, "members": 7, "elites": 5, "probabilistic": True},
        "data": {"path": "walks.h5", "sha256": "12ab" * 16, "rows": 12345, "episodes": 40, "in_sample": False},
        "one_step": {"per_dim": [0.1] * dims, "relative": [0.2] * dims},
        "calibration": {"nominal": levels.tolist(), "empirical": levels.tolist()},
        "horizon": {name: values.tolist() for name, values in horizon.items()},
        "return_gap": {"mean": [0.1, -0.37]},
        "rollouts": {
            "depths": DEPTHS,
            "left_out": [],
            "windows": [2000, 1900, 1500, 900],
            "median": [0.1, 0.2, 0.4, 0.9],
            "worst": [1.0] * 4,
        },
        "penalties": penalties,
        "coverage": {"names": [f"joint {n}" for n in range(actions)], "shares": shares.tolist(), "empty": [0.0] * (actions - 1) + [0.8]},
        "dimensions": [f"obs {n}" for n in range(dims)],
        "notes": ["One note."],
        "verdict": "disagreement ranks errors at depth 5 with rho 0.71; max_aleatoric 0.18: prefer disagreement",
    }
    return {**facts, **more}
