"""Packages that only some sweeps need, imported when they are."""

from importlib import import_module
from typing import Any

from mbkit.errors import UserError

NAMES = {"ray": "Ray", "optuna": "Optuna", "submitit": "submitit"}
EXTRAS = {"submitit": "slurm"}  # which extra brings a package, where it is called otherwise


def imported(package: str) -> Any:
    """The package; UserError where it is missing."""
    try:
        return import_module(package)
    except ImportError as error:
        raise UserError(f'{NAMES[package]} is not installed; `pip install "mbkit[{EXTRAS.get(package, package)}]"` brings it') from error
