"""Ranges of options, and the conditions under which they count, written where a field of a configuration is defined.

A condition is one or several comparisons with other options, all of which must hold: `when="gate=m2ac"` with an option of the same group,
`when="loop.fit=true, holdout!=0"` with one of another. `dynamics=mujoco` compares the name of a part, `actions=continuous` the kind of
actions of the environment, `algo=pets` the algorithm, `env!=none` the environment. The right side may be another option of the same group.
"""

from dataclasses import field
from typing import Any


def option(default: Any, when: str = "") -> Any:
    """A field without a range that counts only under a condition."""
    return _ranged(default, when)


def at_least(default: Any, low: float, when: str = "") -> Any:
    """A field whose value must be >= low."""
    return _ranged(default, when, low=low)


def at_most(default: Any, high: float, when: str = "") -> Any:
    """A field whose value must be <= high."""
    return _ranged(default, when, high=high)


def between(default: Any, low: float, high: float, when: str = "") -> Any:
    """A field whose value must lie in [low, high]."""
    return _ranged(default, when, low=low, high=high)


def positive(default: Any, when: str = "") -> Any:
    """A field whose value must be > 0."""
    return _ranged(default, when, above=0)


def _ranged(default: Any, when: str, **limits: float) -> Any:
    return field(default=default, metadata={**limits, **({"when": when} if when else {})})
