"""Wiring only, no mathematics: each recipe turns an `Experiment` into the `Parts` that a run steps."""

from mbkit.recipes import pets, random
from mbkit.recipes.parts import Parts

__all__ = ["Parts", "pets", "random"]
