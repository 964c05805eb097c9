"""How well measures of uncertainty rank a model's true errors, along open-loop rollouts under recorded actions.

Letters: W windows, L depth of a rollout in steps, P particles, E members, O observation, A action, D prediction.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from mbkit.errors import UserError
from mbkit.replay.buffer import ReplayBuffer
from mbkit.replay.windows import Windows, windows
from mbkit.types import Dynamics, Measure, Prediction, Transition

Floats = NDArray[np.float64]

DEPTHS = (1, 2, 5, 10)  # steps ahead at which penalties are compared with errors
WINDOWS = 2000  # most windows of each depth
LEAST = 20  # fewest windows of a depth that is reported: the worst tenth of them are two
CHUNK = 500  # windows that are rolled out at once
SHARE_ROWS = 200  # most predictions from which the shares of dimensions are computed
WORST = 0.1  # share of the windows, those with the largest errors, that a penalty is to detect
ROUNDING = 1e-6  # relative difference of two float32 numbers that are equal but for rounding
SMALLEST_CHANGE = 1e-4  # least unit of an error, in standard deviations of the observation


class Depth(NamedTuple):
    """Errors and penalties after L steps of W windows."""

    error: Tensor  # [W], see `roll`
    penalty: dict[str, Tensor]  # each measure's penalty [W]
    share: dict[str, Tensor]  # each measure's shares of the predicted dimensions [D], see `dimension_shares`


@torch.no_grad()
def penalty_quality(
    model: Dynamics, held_out: ReplayBuffer, measures: Mapping[str, Measure], depths: Sequence[int] = DEPTHS, particles: int = 1
) -> tuple[dict[str, Any], dict[str, Any]]:
    """How well each measure ranks the errors of the model on recorded episodes.

    From a recorded state the recorded actions are followed for L steps, inside an episode. The error is that of the last step, of the mean
    of the particles; the penalty is the measure of the members' predictions in that step, averaged over the particles. A model that steps
    to its mean (an ensemble's propagation `expectation`) needs a single particle and is what should be measured: a sample, and still the
    mean of ten, adds the model's own noise to its error, so that a penalty that states this noise seems to rank errors.

    Args:
        model: what is rolled out; `step(..., predict=True)` gives every member's prediction.
        held_out: recorded episodes.
        measures: name -> measure; empty: errors alone.
        depths: values of L.
        particles: model paths from the start of each window.

    Returns:
        `rollouts`: `depths` that at least `LEAST` windows allow, `left_out` the others; for each depth the number of `windows`, the
        `median` error and the least error of the worst tenth, `worst`.
        `penalties`: name -> depth -> `spearman`, the rank correlation with the error, NaN where the penalty is constant; `auroc`, of
        telling the worst tenth of errors from the others; `share_by_dimension` [D]; `error_by_tenth` [10], the median error in each tenth
        of the windows ordered by the penalty.

    Raises:
        UserError: a model that returns no prediction.
    """
    scale = change_scale(held_out.all())
    rollouts: dict[str, Any] = {"depths": [], "left_out": [], "windows": [], "median": [], "worst": []}
    penalties: dict[str, Any] = {name: {} for name in measures}
    for depth in depths:
        stretches = windows(held_out, depth, WINDOWS)
        if len(stretches.reward) < LEAST:
            rollouts["left_out"].append(depth)
            continue
        result = at_depth(model, stretches, measures, scale, particles)
        error = ranked(result.error)
        bad = worst(error)
        for key, value in {
            "depths": depth,
            "windows": len(error),
            "median": float(np.median(error)),
            "worst": float(error[bad].min()),
        }.items():
            rollouts[key].append(value)
        for name, penalty in ((name, ranked(u)) for name, u in result.penalty.items()):
            penalties[name][str(depth)] = {
                "spearman": spearman(penalty, error),
                "auroc": auroc(penalty, bad),
                "share_by_dimension": result.share[name].tolist(),
                "error_by_tenth": by_tenth(penalty, error),
            }
    return rollouts, penalties


def change_scale(data: Transition) -> Tensor:
    """Unit of errors in each dimension, [O]: the standard deviation of its change in a step.

    At least a ten thousandth of the observation's; 1 for a dimension that is constant but for rounding.
    """
    change, level = data.next_obs - data.obs, data.next_obs
    spread = level.std(0, correction=0)
    unit = torch.maximum(change.std(0, correction=0), SMALLEST_CHANGE * spread)
    return torch.where(spread <= ROUNDING * level.abs().amax(0), 1.0, unit)


def at_depth(model: Dynamics, stretches: Windows, measures: Mapping[str, Measure], scale: Tensor, particles: int) -> Depth:
    """Errors and penalties at the last step of windows [W, L]."""
    count = len(stretches.reward)
    every = -(-count // SHARE_ROWS)
    parts = [
        roll(model, Windows(*(x[start : start + CHUNK] for x in stretches)), measures, scale, particles, slice(-start % every, None, every))
        for start in range(0, count, CHUNK)
    ]
    error = torch.cat([part[0] for part in parts])
    penalty = {name: torch.cat([part[1][name] for part in parts]) for name in measures}
    some = Prediction(*(torch.cat(columns, 1) for columns in zip(*(part[2] for part in parts), strict=True)))
    return Depth(error, penalty, {name: dimension_shares(measure, some) for name, measure in measures.items()})


def roll(
    model: Dynamics, part: Windows, measures: Mapping[str, Measure], scale: Tensor, particles: int, sampled: slice
) -> tuple[Tensor, dict[str, Tensor], Prediction]:
    """Error [w] and penalties [w] at the last step of w windows, and the predictions of the first particle in the windows `sampled`.

    The error is the Euclidean norm of the particles' mean less the recorded observation, in units of `scale` [O].
    """
    count, depth = part.reward.shape
    action = part.action.repeat((particles,) + (1,) * (part.action.dim() - 1))
    carry = model.init(part.obs[:, 0].repeat(particles, 1))
    for t in range(depth - 1):
        carry = model.step(carry, action[:, t]).state
    step = model.step(carry, action[:, -1], predict=bool(measures))
    error = ((step.obs.view(particles, count, -1).mean(0) - part.obs[:, -1]) / scale).square().sum(-1).sqrt()
    if not measures:
        return error, {}, Prediction(error.new_zeros(1, 0, 1), error.new_zeros(1, 0, 1))
    if step.prediction is None:
        raise UserError(f"penalties compare members' predictions, but {type(model).__name__} returns none; expected an ensemble")
    penalty = {name: measure(step.prediction).double().view(particles, count).mean(0) for name, measure in measures.items()}
    return error, penalty, Prediction(*(x[:, :count][:, sampled] for x in step.prediction))


def dimension_shares(measure: Measure, prediction: Prediction) -> Tensor:
    """Share of each predicted dimension in the mean penalty, [D], of predictions [E, B, D]; NaN where the penalty is zero.

    By leaving out: the share of a dimension is proportional to the mean over rows of u(all dimensions) - u(all but this one). Of measures
    that are sums over dimensions, such as divergences, this is each one's part; of lengths it is, to first order, its square's part.
    """
    p = Prediction(prediction.mean.double(), prediction.var.double())
    every = torch.arange(p.mean.shape[-1], device=p.mean.device)
    whole = measure(p)
    if len(every) == 1:
        contribution = whole.mean()[None]
    else:
        without = [measure(Prediction(p.mean[..., every != d], p.var[..., every != d])) for d in every]
        gap = torch.stack(without).neg().add(whole).clamp(min=0)  # [D, B]
        contribution = torch.where(gap.isfinite().all(0), gap, 0).mean(1)
    return contribution / contribution.sum()


# --- ranks --------------------------------------------------------------------------------------------------------------------------------


def ranked(x: Tensor) -> Floats:
    """A column [W] as float64 to be ranked: what is not a number is infinite, and what is constant but for rounding is constant."""
    values: Floats = x.double().cpu().numpy()
    values = np.where(np.isnan(values), np.inf, values)
    low, high = values.min(), values.max()
    return np.full_like(values, low) if np.isfinite(high) and high - low <= ROUNDING * max(abs(low), abs(high)) else values


def spearman(x: Floats, y: Floats) -> float:
    """Spearman's rank correlation, ties with their mean rank; NaN where x or y is constant."""
    a, b = (ranks - ranks.mean() for ranks in (rankdata(x), rankdata(y)))
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm > 0 else math.nan


def worst(error: Floats, share: float = WORST) -> NDArray[np.bool_]:
    """The windows with the largest errors, a `share` of all, at least one, and those with equal errors: bool [W]."""
    count = max(1, round(share * len(error)))
    limit = float(np.partition(error, -count)[-count])
    large: NDArray[np.bool_] = error >= limit
    return large


def auroc(penalty: Floats, positive: NDArray[np.bool_]) -> float:
    """Probability that a positive window has a larger penalty than another, ties counting one half; NaN where there is only one kind.

    By ranks (Mann and Whitney 1947): (R - n (n + 1) / 2) / (n m), with R the sum of the ranks of the n positive ones, m the others.
    """
    n, m = int(positive.sum()), int((~positive).sum())
    return (float(rankdata(penalty)[positive].sum()) - n * (n + 1) / 2) / (n * m) if n and m else math.nan


def by_tenth(penalty: Floats, error: Floats) -> list[float]:
    """Median error in each of ten equal parts of the windows, ordered by the penalty."""
    return [float(np.median(part)) for part in np.array_split(error[penalty.argsort(kind="stable")], 10)]
