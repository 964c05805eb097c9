"""Diagnostics of a dynamics model on held-out episodes."""

from mbkit.diagnostics.summary import diagnose_model, headline

__all__ = ["diagnose_model", "headline"]
