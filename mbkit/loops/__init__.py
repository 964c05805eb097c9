"""Loops and their hooks: what steps the environment, what happens after each step, and evaluation."""

from mbkit.loops.clock import Clock, Every, Hook, Until
from mbkit.loops.evaluate import Evaluation, evaluate_policy
from mbkit.loops.memory import check_memory, refuse_oversized
from mbkit.loops.model import CountersRead, ModelFits, PlanScores
from mbkit.loops.obs_statistics import ObsStatistics
from mbkit.loops.offline import Offline, updates_at_once
from mbkit.loops.online import Online, random_action
from mbkit.loops.return_scale import ReturnScale, scale_to_data
from mbkit.loops.rollouts import ModelRollouts
from mbkit.loops.trajectory_updates import TrajectoryUpdates
from mbkit.loops.updates import Updates

__all__ = [
    "Clock",
    "CountersRead",
    "Evaluation",
    "Every",
    "Hook",
    "ModelFits",
    "ModelRollouts",
    "ObsStatistics",
    "Offline",
    "Online",
    "PlanScores",
    "ReturnScale",
    "TrajectoryUpdates",
    "Until",
    "Updates",
    "check_memory",
    "evaluate_policy",
    "random_action",
    "refuse_oversized",
    "scale_to_data",
    "updates_at_once",
]
