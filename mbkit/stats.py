"""Aggregate scores of several runs and tasks, with confidence intervals (Agarwal et al. 2021, arXiv:2108.13264).

Scores are arrays [R, K] of R runs on K tasks, normalised so that tasks can be compared; a vector [R] is one task. Where tasks have
different numbers of runs, scores are a list of K vectors, `Tasks`.

Letters: R runs, K tasks, T thresholds, N points of a curve, S bootstrap samples.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
Tasks = Sequence[ArrayLike]  # K vectors of scores, of one or more runs each
RESAMPLES = 2000  # bootstrap samples
TRIMMED = 0.25  # share of scores that the interquartile mean leaves out at either end


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


class Band(NamedTuple):
    """A point estimate [N] with its pointwise confidence interval; the limits are NaN where no run can be resampled."""

    point: Array
    low: Array
    high: Array


def bootstrap_curve(scores: ArrayLike, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Band:
    """Interquartile mean over runs of each column of [R, N] with its percentile interval: `bootstrap` of N columns at once."""
    table = _matrix(scores)
    point = _trimmed(table, 0)
    if len(table) < 2:
        return Band(point, np.full_like(point, np.nan), np.full_like(point, np.nan))
    drawn = _drawn(np.random.default_rng(seed), len(table), resamples)
    return Band(point, *_limits(np.stack([_trimmed(column[drawn], 1) for column in table.T], 1), confidence))


def pooled_iqm(tasks: Tasks, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Interquartile mean of all scores of K tasks with its stratified bootstrap interval; tasks may have different numbers of runs."""
    vectors, generator = _vectors(tasks), np.random.default_rng(seed)
    point = float(_trimmed(np.concatenate(vectors), 0))
    if max(map(len, vectors)) < 2:
        return Interval(point, np.nan, np.nan)
    samples = np.concatenate([vector[_drawn(generator, len(vector), resamples)] for vector in vectors], 1)  # [S, sum of R]
    low, high = _limits(_trimmed(samples, 1), confidence)
    return Interval(point, float(low), float(high))


def profile_band(tasks: Tasks, thresholds: ArrayLike, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Band:
    """Performance profile [T] with its pointwise interval: the share of runs above each threshold, averaged over tasks."""
    vectors, levels, generator = _vectors(tasks), np.asarray(thresholds, dtype=np.float64), np.random.default_rng(seed)
    above = [(vector[:, None] > levels).astype(np.float64) for vector in vectors]  # K of [R, T]
    point: Array = np.mean([table.mean(0) for table in above], 0)
    if max(map(len, vectors)) < 2:
        return Band(point, np.full_like(point, np.nan), np.full_like(point, np.nan))
    samples = np.mean([table[_drawn(generator, len(table), resamples)].mean(1) for table in above], 0)  # [S, T]
    return Band(point, *_limits(samples, confidence))


def improvement_interval(x: Tasks, y: Tasks, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Probability of improvement of x over y with its stratified bootstrap interval; tasks may have different numbers of runs.

    Raises:
        ValueError: x and y are scores on different numbers of tasks.
    """
    ours, theirs, generator = _vectors(x), _vectors(y), np.random.default_rng(seed)
    if len(ours) != len(theirs):
        raise ValueError(f"both must be scores on the same tasks, not on {len(ours)} and {len(theirs)}")
    pairs = [(np.sign(a[:, None] - b[None]) + 1) / 2 for a, b in zip(ours, theirs, strict=True)]  # K of [R, R']
    point = float(np.mean([table.mean() for table in pairs]))
    if max(map(len, [*ours, *theirs])) < 2:
        return Interval(point, np.nan, np.nan)
    samples = []
    for table in pairs:
        rows, columns = (_drawn(generator, count, resamples) for count in table.shape)
        samples.append(table[rows[:, :, None], columns[:, None, :]].mean((1, 2)))
    low, high = _limits(np.mean(samples, 0), confidence)
    return Interval(point, float(low), float(high))


def _vectors(tasks: Tasks) -> list[Array]:
    """K vectors [R], each with at least one score."""
    vectors = [np.asarray(task, dtype=np.float64) for task in tasks]
    if not vectors or any(vector.ndim != 1 or not vector.size for vector in vectors):
        raise ValueError(f"scores must be a vector of at least one run for each task, not {[np.shape(task) for task in tasks]}")
    return vectors


def _drawn(generator: np.random.Generator, count: int, resamples: int) -> NDArray[np.int64]:
    """Indices of bootstrap samples, [S, count]."""
    return generator.integers(0, count, (resamples, count))


def _trimmed(values: Array, axis: int) -> Array:
    """Interquartile mean along an axis."""
    ordered = np.sort(values, axis)
    count = values.shape[axis]
    cut = int(TRIMMED * count)
    middle: Array = np.take(ordered, np.arange(cut, count - cut), axis).mean(axis)
    return middle


def _limits(samples: Array, confidence: float) -> tuple[Array, Array]:
    """Percentile limits of statistics [S, ...] of bootstrap samples."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, (tail, 1 - tail), axis=0)
    return low, high
