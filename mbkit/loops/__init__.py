"""Who steps the environment, and what happens after each step: the online loop, its hooks, and evaluation."""

from mbkit.loops.diagnose import diagnose_model
from mbkit.loops.evaluate import Evaluation, evaluate_policy
from mbkit.loops.imagine import Imagine
from mbkit.loops.learn import FitModel, Updates
from mbkit.loops.online import Every, Hook, Online
from mbkit.loops.rollouts import Rollouts
from mbkit.loops.room import enough_room
from mbkit.loops.watch import Watch, WatchPlans

__all__ = [
    "Evaluation",
    "Every",
    "FitModel",
    "Hook",
    "Imagine",
    "Online",
    "Rollouts",
    "Updates",
    "Watch",
    "WatchPlans",
    "diagnose_model",
    "enough_room",
    "evaluate_policy",
]
