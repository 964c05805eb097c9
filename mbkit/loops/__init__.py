"""Who steps the environment, and what happens after each step: the online loop, its hooks, and evaluation."""

from mbkit.loops.evaluate import Evaluation, evaluate_policy
from mbkit.loops.memory import enough_room
from mbkit.loops.model import Watch, WatchPlans
from mbkit.loops.online import Every, Hook, Online
from mbkit.loops.rollouts import Imagine
from mbkit.loops.trajectory_updates import Rollouts
from mbkit.loops.updates import FitModel, Updates

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
    "enough_room",
    "evaluate_policy",
]
