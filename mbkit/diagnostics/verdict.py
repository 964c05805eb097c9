"""Sentences on a model that is no use: it predicts no better than no change, or its intervals hold far too few or too many outcomes."""

from typing import Any

LEVEL = 0.9  # probability of the intervals that are judged
OVERCONFIDENT = "overconfident; more members (dynamics.members), more data or shorter fits (dynamics.patience) widen the intervals"
UNDERCONFIDENT = "underconfident; corrected variances (dynamics.calibrate=true) or longer fits (dynamics.max_epochs) narrow the intervals"
FEWEST, MOST = 0.6, 0.995  # shares of outcomes inside them between which a model passes


def verdicts(diagnostics: dict[str, Any]) -> list[str]:
    """What is wrong with the final model, each with the option to try; `diagnostics`: the contents of `diagnostics.json`."""
    return [sentence for sentence in (_against_no_change(diagnostics), _intervals(diagnostics)) if sentence]


def _against_no_change(diagnostics: dict[str, Any]) -> str:
    """A sentence where one step ahead the median error is no smaller than that of predicting no change."""
    horizon = diagnostics.get("horizon", {})
    error, no_change = (next(iter(horizon.get(name, [])), None) for name in ("median", "baseline"))
    if error is None or no_change is None or error < no_change:
        return ""
    return (
        f"The model predicts the next observation no better than no change (error {error:.2g}, no change {no_change:.2g}, in standard "
        "deviations): give it more data (steps, loop.warmup_steps) or longer fits (dynamics.max_epochs)"
    )


def _intervals(diagnostics: dict[str, Any]) -> str:
    """A sentence where the 90 % intervals hold less than 60 % or more than 99.5 % of the outcomes."""
    calibration = diagnostics.get("calibration", {})
    coverage = dict(zip(calibration.get("nominal", []), calibration.get("empirical", []), strict=False)).get(LEVEL)
    if coverage is None or FEWEST <= coverage <= MOST:
        return ""
    measured = f"{100 * LEVEL:.0f} % intervals of the model hold {100 * coverage:.1f} % of the outcomes of evaluation episodes"
    return f"The {measured}, so that it is {OVERCONFIDENT if coverage < FEWEST else UNDERCONFIDENT}"
