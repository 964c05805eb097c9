"""Learners, one file per algorithm; importing the package registers them all."""

from mbkit.agents import sac

__all__ = ["sac"]
