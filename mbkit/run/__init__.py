"""Train, resume, fine-tune, load and evaluate runs, and collect data sets with them."""

from mbkit.loops.interrupt import Interrupted
from mbkit.run.api import load, resume, train
from mbkit.run.collecting import collect
from mbkit.run.finetuning import finetune
from mbkit.run.run import Run
from mbkit.run.scoring import evaluate, evaluation_options

__all__ = ["Interrupted", "Run", "collect", "evaluate", "evaluation_options", "finetune", "load", "resume", "train"]
