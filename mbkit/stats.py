"""Aggregate scores of several runs and tasks, with confidence intervals (Agarwal et al. 2021, arXiv:2108.13264).

Scores are arrays [R, K] of R runs on K tasks, normalised so that tasks can be compared; a vector [R] is one task.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """A point estimate with its confidence interval; its limits are NaN for a single run, which cannot be resampled."""

    point: float
    low: float
    high: float


def _matrix(scores: ArrayLike) -> Array:
    """[R, K] float64; a vector is one task."""
    array = np.asarray(scores, dtype=np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"scores must be runs x tasks and not empty, not an array of shape {np.shape(scores)}")
    return array


def iqm(scores: ArrayLike) -> float:
    """Interquartile mean: the mean of the middle half of all R x K scores (section 4.3)."""
    return float(stats.trim_mean(_matrix(scores), 0.25, axis=None))


def _pooled_iqm(*tasks: Array, axis: int = -1) -> Any:
    return stats.trim_mean(np.concatenate(tasks, axis), 0.25, axis=axis)


def bootstrap(
    scores: ArrayLike, statistic: Callable[..., Any] = _pooled_iqm, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile interval by stratified bootstrap: runs are resampled within each task, tasks stay as they are (section 4.1).

    Args:
        scores: [R, K].
        statistic: function of K arrays of scores, one per task, vectorised over `axis`; by default the interquartile mean of all scores.
        confidence: coverage probability of the interval.
        resamples: number of bootstrap samples.
        seed: the same scores and seed give the same interval.
    """
    tasks = tuple(_matrix(scores).T)
    point = float(statistic(*tasks, axis=-1))
    if len(tasks[0]) < 2:
        return Interval(point, np.nan, np.nan)
    if all(np.ptp(task) == 0 for task in tasks):
        return Interval(point, point, point)
    interval = stats.bootstrap(
        tasks,
        statistic,
        confidence_level=confidence,
        n_resamples=resamples,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(point, float(interval.low), float(interval.high))


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> Array:
    """Share of all runs with a score above each threshold [T] -> [T] (section 4.2)."""
    above = _matrix(scores)[None] > np.asarray(thresholds, dtype=np.float64)[:, None, None]  # [T, R, K]
    share: Array = above.mean((1, 2))
    return share


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> float:
    """P(X > Y) + P(X = Y) / 2 for runs of x [R, K] and y [S, K] on the same task, averaged over tasks (section 4.3)."""
    a, b = _matrix(x), _matrix(y)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"both must be scores on the same tasks, not on {a.shape[1]} and {b.shape[1]}")
    difference = a[:, None] - b[None]  # [R, S, K]
    return float((np.sign(difference) + 1).mean() / 2)
