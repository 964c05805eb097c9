"""Who steps the environment, and what happens after each step: the online loop, its hooks, and evaluation."""

from mbkit.loops.diagnose import diagnose_model
from mbkit.loops.evaluate import Evaluation, evaluate_policy
from mbkit.loops.imagine import Imagine
from mbkit.loops.learn import FitModel, Updates
from mbkit.loops.online import Every, Hook, Online

__all__ = ["Evaluation", "Every", "FitModel", "Hook", "Imagine", "Online", "Updates", "diagnose_model", "evaluate_policy"]
