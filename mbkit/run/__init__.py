"""Train, resume, load, evaluate."""

from mbkit.run.run import Interrupted, Run, evaluate, load, resume, train

__all__ = ["Interrupted", "Run", "evaluate", "load", "resume", "train"]
