"""Train, resume, load and evaluate runs."""

from mbkit.loops.interrupt import Interrupted
from mbkit.run.api import evaluate, load, resume, train
from mbkit.run.run import Run

__all__ = ["Interrupted", "Run", "evaluate", "load", "resume", "train"]
