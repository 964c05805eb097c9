"""The options that `resume` takes, checked before anything is loaded."""

from collections.abc import Mapping, Sequence
from typing import Any

from mbkit.config.imports import SHORT, without_repeated
from mbkit.config.reading import parse_overrides
from mbkit.config.schema import Experiment
from mbkit.errors import UserError

TAKEN = ("steps", "threads", "device", "data")


def parse_resumption(
    arguments: Sequence[str], experiment: Experiment | None = None, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """["steps=5000"] -> {"steps": 5000}; UserError for an option that would make it another experiment.

    Import paths of the `experiment` may be repeated, by which they are typed. Without one, options of groups pass, since they may do so.
    """
    changes = parse_overrides(arguments, options=options)
    if experiment is not None:
        changes = without_repeated(experiment, changes)
    passing = () if experiment is not None else ("env", *SHORT)
    unknown = [key for key, value in changes.items() if key not in (*TAKEN, *passing) and (experiment or not isinstance(value, Mapping))]
    if unknown:
        raise UserError(
            f"resume takes steps=M, threads=N, device= and data= only, since anything else would be another experiment; came {unknown[0]!r}"
        )
    return changes
