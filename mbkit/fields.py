"""Ranges of options, written where a field of a configuration is defined."""

from dataclasses import field
from typing import Any


def at_least(default: Any, low: float) -> Any:
    """A field whose value must be >= low."""
    return field(default=default, metadata={"low": low})


def at_most(default: Any, high: float) -> Any:
    """A field whose value must be <= high."""
    return field(default=default, metadata={"high": high})


def between(default: Any, low: float, high: float) -> Any:
    """A field whose value must lie in [low, high]."""
    return field(default=default, metadata={"low": low, "high": high})


def fraction(default: Any) -> Any:
    """A field whose value must lie in [0, 1): a discount."""
    return field(default=default, metadata={"low": 0, "below": 1})


def positive(default: Any) -> Any:
    """A field whose value must be > 0."""
    return field(default=default, metadata={"above": 0})
