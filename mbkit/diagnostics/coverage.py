"""Which actions a data set holds: a model knows nothing of those that it lacks.

Letters: N rows, A action, Q quantiles.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

BINS = 10  # equal parts of each action dimension's box
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
AT_BOUND = 1 - 1e-5  # absolute value of a scaled action from which on it lies at a bound


def action_coverage(action: Tensor, choices: int = 0) -> dict[str, Any]:
    """How recorded actions are spread over their box, or over the discrete actions.

    Args:
        action: [N, A] in [-1, 1], or int64 [N] below `choices`.
        choices: number of discrete actions; 0 for a box.

    Returns:
        Of a box: `shares` [A][10], shares of the rows in equal parts of it; `empty` [A], share of these parts without a row; `quantiles`
        [A][Q] in [-1, 1] at `levels` [Q]; `at_bounds` [A], share of the rows at a bound. Of discrete actions: `frequencies` [choices], and
        `never`, those that no row has.
    """
    if choices:
        count = torch.bincount(action, minlength=choices)
        return {"frequencies": (count / len(action)).tolist(), "never": (count == 0).nonzero().flatten().tolist()}
    rows, width = action.shape
    part = ((action + 1) * (BINS / 2)).long().clamp(0, BINS - 1) + BINS * torch.arange(width, device=action.device)
    shares = torch.bincount(part.flatten(), minlength=BINS * width).view(width, BINS) / rows
    return {
        "shares": shares.tolist(),
        "empty": (shares == 0).float().mean(1).tolist(),
        "levels": list(QUANTILES),
        "quantiles": np.quantile(action.cpu().numpy(), QUANTILES, axis=0).T.tolist(),
        "at_bounds": (action.abs() >= AT_BOUND).float().mean(0).tolist(),
    }
