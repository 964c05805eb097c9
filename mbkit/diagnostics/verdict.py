"""Sentences on a model that is no use, since it predicts no better than no change or its intervals hold far too few or too many outcomes.

And one on which of its penalties rank its errors.
"""

import math
from collections.abc import Mapping
from typing import Any

LEVEL = 0.9  # probability of the intervals that are judged
OVERCONFIDENT = "overconfident; more members (dynamics.members), more data or shorter fits (dynamics.patience) widen the intervals"
UNDERCONFIDENT = "underconfident; corrected variances (dynamics.calibrate=true) or longer fits (dynamics.max_epochs) narrow the intervals"
FEWEST, MOST = 0.6, 0.995  # shares of outcomes inside them between which a model passes
RANKS = 0.2  # rank correlation with the error below which a penalty ranks nothing
DETECTS = 0.7  # AUROC of the worst tenth of errors from which on it is told
CLOSE = 0.02  # difference of rank correlations below which two penalties are equally good
JUDGED = 5  # steps ahead at which penalties are judged, the default rollout length of learners that are penalised


def verdicts(diagnostics: dict[str, Any], rows: str = "of evaluation episodes") -> list[str]:
    """What is wrong with the model, each with the option to try; `diagnostics`: the contents of `diagnostics.json`, on these `rows`."""
    return [sentence for sentence in (_against_no_change(diagnostics), _intervals(diagnostics, rows)) if sentence]


def _against_no_change(diagnostics: dict[str, Any]) -> str:
    """A sentence where one step ahead the root mean squared error is no smaller than that of predicting no change."""
    horizon = diagnostics.get("horizon", {})
    error, no_change = (next(iter(horizon.get(name, [])), None) for name in ("rmse", "no_change"))
    if error is None or no_change is None or error < no_change:
        return ""
    return (
        f"The model predicts the next observation no better than no change (root mean squared error {error:.2g}, of no change "
        f"{no_change:.2g}, in standard deviations): give it more data (steps, loop.warmup_steps) or longer fits (dynamics.max_epochs)"
    )


def _intervals(diagnostics: dict[str, Any], rows: str) -> str:
    """A sentence where the 90 % intervals hold less than 60 % or more than 99.5 % of the outcomes."""
    calibration = diagnostics.get("calibration", {})
    coverage = dict(zip(calibration.get("nominal", []), calibration.get("empirical", []), strict=False)).get(LEVEL)
    if coverage is None or FEWEST <= coverage <= MOST:
        return ""
    measured = f"{100 * LEVEL:.0f} % intervals of the model hold {100 * coverage:.1f} % of the outcomes {rows}"
    return f"The {measured}, so that it is {OVERCONFIDENT if coverage < FEWEST else UNDERCONFIDENT}"


def judged_depth(depths: list[int]) -> int:
    """The depth at which penalties are judged: the largest of these up to `JUDGED`, or the smallest."""
    return max((depth for depth in depths if depth <= JUDGED), default=min(depths))


def penalty_verdict(penalties: Mapping[str, Any], depths: list[int]) -> str:
    """Which penalty ranks the errors best, in one line; `penalties` and `depths` as `penalty_quality` returns them."""
    if not penalties:
        return "no penalty: a single deterministic member states no uncertainty; only error and calibration are measured"
    depth = judged_depth(depths)
    rho, (first, *rest) = correlations(penalties, depth), by_correlation(penalties, depth)
    if not rho[first] >= RANKS:
        return none_ranks(
            penalties, depths, depth, "all are constant" if math.isnan(rho[first]) else f"largest: {first}, {_rho(rho[first])}"
        )
    close = [first, *(name for name in rest if rho[first] - rho[name] < CLOSE)]
    others = "".join(f", {name} {_rho(rho[name])}" for name in rest).removeprefix(", ")
    return f"{first} ranks errors at depth {depth} with rho {_rho(rho[first])}{'; ' * bool(others)}{others}: prefer {' or '.join(close)}"


def none_ranks(penalties: Mapping[str, Any], depths: list[int], depth: int, best: str) -> str:
    """The verdict where no penalty ranks errors at the judged depth: what can be said of other depths, and of the largest errors."""
    elsewhere = {d: name for d in depths if d != depth and correlations(penalties, d)[name := by_correlation(penalties, d)[0]] >= RANKS}
    others = ", ".join(f"{name} at depth {d} ({_rho(correlations(penalties, d)[name])})" for d, name in elsewhere.items())
    area = {name: by_depth[str(depth)]["auroc"] for name, by_depth in penalties.items()}
    detects = max(area, key=lambda name: -math.inf if math.isnan(area[name]) else area[name])
    told = f"; errors are ranked by {others}" * bool(others)
    told += f"; {detects} detects the worst tenth (AUROC {area[detects]:.2f})" if area[detects] >= DETECTS else ""
    return f"no penalty ranks errors at depth {depth} ({best}), none can be trusted there{told}"


def correlations(penalties: Mapping[str, Any], depth: int) -> dict[str, float]:
    """Rank correlation of each penalty with the error at a depth, in hundredths."""
    return {name: round(by_depth[str(depth)]["spearman"], 2) for name, by_depth in penalties.items()}


def by_correlation(penalties: Mapping[str, Any], depth: int) -> list[str]:
    """Names of the penalties, that with the largest rank correlation at a depth first, equal ones by name, constant ones last."""
    rho = correlations(penalties, depth)
    return sorted(rho, key=lambda name: (math.isnan(rho[name]), -rho[name], name))


def _rho(value: float) -> str:
    return "constant" if math.isnan(value) else f"{value:.2f}"
