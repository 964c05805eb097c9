"""The `mbkit` command."""

from mbkit.cli.app import LISTED, app, main

__all__ = ["LISTED", "app", "main"]
