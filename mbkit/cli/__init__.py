"""The `mbkit` command: a file per group of commands, all registered with one app."""

from mbkit.cli import collect, data, dynamics, export, judging, listing, publishing, reporting, runs, sweeping, theory, watching
from mbkit.cli.app import app, main

__all__ = [
    "app",
    "collect",
    "data",
    "dynamics",
    "export",
    "judging",
    "listing",
    "main",
    "publishing",
    "reporting",
    "runs",
    "sweeping",
    "theory",
    "watching",
]
