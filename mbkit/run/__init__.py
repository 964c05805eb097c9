"""Train, resume, load and evaluate runs."""

from mbkit.loops.interrupt import Interrupted
from mbkit.run.api import evaluate, evaluation_options, load, resume, train
from mbkit.run.run import Run

__all__ = ["Interrupted", "Run", "evaluate", "evaluation_options", "load", "resume", "train"]
