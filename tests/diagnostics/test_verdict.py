"""Sentences on models that are no use."""

import re

import pytest

from mbkit.diagnostics.verdict import verdicts


def measured(error: float = 0.1, no_change: float = 1.0, coverage: float = 0.9) -> dict[str, object]:
    return {
        "horizon": {"rmse": [error, 2.0], "no_change": [no_change, 1.0]},
        "calibration": {"nominal": [0.5, 0.9], "empirical": [0.5, coverage]},
    }


def test_verdicts_useful_model_is_silent() -> None:
    assert verdicts(measured()) == []
    assert verdicts({}) == []


@pytest.mark.parametrize(
    ("diagnostics", "sentence"),
    [
        (measured(error=1.0), "no better than no change .root mean squared error 1, of no change 1,"),
        (measured(coverage=0.5), "hold 50.0 % of .* overconfident; more members"),
        (measured(coverage=0.999), "hold 99.9 % of .* underconfident; corrected variances .dynamics.calibrate"),
    ],
)
def test_verdicts_useless_model_is_named_with_an_option(diagnostics: dict[str, object], sentence: str) -> None:
    (verdict,) = verdicts(diagnostics)
    assert re.search(sentence, verdict)
    assert not verdict.endswith(".")


def test_verdicts_at_the_bounds_is_silent() -> None:
    assert verdicts(measured(coverage=0.6)) == []
    assert verdicts(measured(coverage=0.995)) == []
