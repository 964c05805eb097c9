"""Train, resume, load and evaluate runs, and collect data sets with them."""

from mbkit.loops.interrupt import Interrupted
from mbkit.run.api import evaluate, evaluation_options, load, resume, train
from mbkit.run.collecting import collect
from mbkit.run.run import Run

__all__ = ["Interrupted", "Run", "collect", "evaluate", "evaluation_options", "load", "resume", "train"]
