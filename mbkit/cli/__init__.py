"""The `mbkit` command: a file per group of commands, all registered with one app."""

from mbkit.cli import data, export, listing, reporting, runs, theory
from mbkit.cli.app import app, main

__all__ = ["app", "data", "export", "listing", "main", "reporting", "runs", "theory"]
