"""The contracts of parts, for tests of mbkit and of plug-ins: agents, models, planners, environments and data sets.

Usage, in the tests of a package that registers an agent::

    from mbkit.testing import check_agent

    def test_contract():
        check_agent(lambda spec: MyAgent(spec, MyConfig(), gamma=0.99))

Every check raises AssertionError with one sentence: what broke, what was expected and what came.
"""

from mbkit.testing.agents import check_agent, experience
from mbkit.testing.common import tensors
from mbkit.testing.datasets import check_dataset
from mbkit.testing.dynamics import check_dynamics
from mbkit.testing.environments import check_env
from mbkit.testing.planners import check_planner
from mbkit.testing.rows import SPEC, random_batch, random_recorded, random_trajectory

__all__ = [
    "SPEC",
    "check_agent",
    "check_dataset",
    "check_dynamics",
    "check_env",
    "check_planner",
    "experience",
    "random_batch",
    "random_recorded",
    "random_trajectory",
    "tensors",
]
