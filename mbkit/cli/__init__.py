"""The `mbkit` command: a file per group of commands, all registered with one app."""

from mbkit.cli import listing, reporting, runs, theory
from mbkit.cli.app import app, main

__all__ = ["app", "listing", "main", "reporting", "runs", "theory"]
