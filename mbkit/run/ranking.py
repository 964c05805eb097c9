"""How estimates rank runs: their agreement with true returns, and what choosing by them costs.

Letters: R runs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from mbkit.data.run_replay import split
from mbkit.paths import is_file
from mbkit.run.judging import PolicyValue
from mbkit.storage import read_json


class Ranking(NamedTuple):
    """How the estimates of one method agree with the true returns of R runs."""

    method: str
    correlation: float  # Spearman's, of estimated and true; NaN where all are equal
    regret: list[float]  # [R] of taking the best of the k runs with the highest estimates, k = 1, ..., R


def rank_correlation(estimated: Sequence[float], true: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN where one of them is constant."""
    if min(np.ptp(estimated), np.ptp(true)) == 0:
        return math.nan
    return float(stats.spearmanr(estimated, true).statistic)


def regrets(estimated: Sequence[float], true: Sequence[float]) -> list[float]:
    """For k = 1, ..., R: the highest true return of all less the highest among the k runs of the highest estimates."""
    order = sorted(range(len(true)), key=lambda i: -estimated[i])
    return [max(true) - max(true[i] for i in order[:k]) for k in range(1, len(true) + 1)]


def rankings(estimates: Sequence[PolicyValue], true: Mapping[str, float]) -> list[Ranking]:
    """A ranking for every method but the environment's, by the true returns of the runs."""
    methods = dict.fromkeys(e.method for e in estimates if e.method != "environment")
    out = []
    for method in methods:
        values = {e.run: e.value for e in estimates if e.method == method}
        pairs = list(values.values()), [true[run] for run in values]
        out.append(Ranking(method, rank_correlation(*pairs), regrets(*pairs)))
    return out


def true_returns(estimates: Sequence[PolicyValue]) -> tuple[dict[str, float], str]:
    """True returns by run, and what they are: measured ones, or those of all runs' `summary.json`; none where one of them lacks it."""
    measured_ones = {e.run: e.value for e in estimates if e.method == "environment"}
    if measured_ones:
        return measured_ones, "discounted returns in the environment"
    scores = {}
    for run in dict.fromkeys(e.run for e in estimates):
        score = summarised_return(run)
        if score is None:
            return {}, ""
        scores[run] = score
    return scores, "returns in summary.json, which are not discounted, as the estimates are"


def summarised_return(run: str) -> float | None:
    """The score of a finished run; None for another checkpoint than its last, and where it was not scored."""
    directory, checkpoint = split(run)
    path = directory / "summary.json"
    summary = read_json(path) if checkpoint == "last" and is_file(path) else None
    score = summary.get("eval_return_mean") if isinstance(summary, dict) else None
    return float(score) if isinstance(score, int | float) else None
