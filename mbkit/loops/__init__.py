"""Who steps the environment: the online loop, and evaluation."""

from mbkit.loops.diagnose import diagnose_model
from mbkit.loops.evaluate import Evaluation, evaluate_policy
from mbkit.loops.online import Every, Hook, Online

__all__ = ["Evaluation", "Every", "Hook", "Online", "diagnose_model", "evaluate_policy"]
