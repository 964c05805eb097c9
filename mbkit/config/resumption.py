"""The options that `resume` takes, checked before anything is loaded."""

from collections.abc import Sequence
from typing import Any

from mbkit.config.reading import parse_overrides
from mbkit.errors import UserError

TAKEN = ("steps", "threads")


def parse_resumption(arguments: Sequence[str]) -> dict[str, Any]:
    """["steps=5000"] -> {"steps": 5000}; UserError for an option that would make it another experiment."""
    changes = parse_overrides(arguments)
    unknown = [key for key in changes if key not in TAKEN]
    if unknown:
        raise UserError(f"resume takes steps=M and threads=N only, since anything else would be another experiment; came {unknown[0]!r}")
    return changes
