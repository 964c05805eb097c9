"""How many CPU threads a run uses, and how idle ones wait: a function of the configuration alone, never of the machine or its load.

OpenMP's idle threads spin by default, and beside another program a spinning thread keeps the working one off its core. They are told to
sleep (`OMP_WAIT_POLICY=passive`), which only counts if it is set before torch is imported. Waking them costs more than it did, so that a
second thread gains where products are large, in plans with a learned model, and nothing in the updates of small networks.
"""

import os
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbkit.config.schema import Experiment

LARGE = 64_000_000  # multiply-adds of a product of all members from which a second thread gains; an update of SAC has 34 million
PLANNED = 4_000_000  # the same in a plan, whose products follow one another without anything between that one thread has to do alone
WIDTHS = (200, 200)  # of a model that does not say


def wait_passively() -> None:
    """Let idle OpenMP threads sleep rather than spin, unless the user decided; without effect where torch is imported already."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def default_threads(experiment: "Experiment") -> int:
    """2 where plans or updates have large products, or where simulators run side by side; 1 elsewhere, and for networks on a GPU."""
    dynamics, planner = experiment.dynamics, experiment.planner
    if planner is not None and dynamics is not None and dynamics.name == "mujoco":
        return 2  # the physics of the candidates, on the CPU in any case
    if experiment.device != "cpu":
        return 1
    if planner is not None:
        return 1 + (plan_product(experiment) >= PLANNED)
    return 1 + (update_product(experiment) >= LARGE)


def plan_product(experiment: "Experiment") -> int:
    """Multiply-adds of the largest product of a model step in a plan: rows of all candidates, times two widths."""
    particles = option(experiment, "agent", "particles", 0) or option(experiment, "imagination", "particles", 1)
    rows = int(experiment.loop.num_envs * option(experiment, "planner", "candidates", 1) * particles)
    return rows * widest(option(experiment, "dynamics", "hidden", WIDTHS))


def update_product(experiment: "Experiment") -> int:
    """Multiply-adds of the largest product of an agent's update: its batch, times two widths, times two critics."""
    loop = experiment.loop
    rows = getattr(loop, "batch_size", 0) or option(experiment, "agent", "minibatch", loop.num_envs * getattr(loop, "rollout_steps", 1))
    return 2 * int(rows) * widest(option(experiment, "agent", "hidden", ()))


def option(experiment: "Experiment", group: str, name: str, default: Any) -> Any:
    """The value of an option, or the default where the experiment has no such group or the group no such option."""
    return getattr(experiment.group(group), name, default)


def widest(hidden: int | tuple[int, ...]) -> int:
    """The largest product of two consecutive hidden widths; 0 for a single layer, whose inputs are few."""
    if isinstance(hidden, int):
        return hidden * hidden
    return max((one * two for one, two in pairwise(hidden)), default=0)
