"""A problem for planners on the box whose optimum is known."""

import torch
from torch import Tensor

from mbkit.planning.base import BoxPlanner
from mbkit.types import EnvSpec, Objective, Plan

SPEC = EnvSpec(4, 2, torch.device("cpu"))
LIKE = torch.empty(())


def quadratic(optimum: Tensor) -> Objective:
    """Objective with its maximum 0 at optimum [M, H, A]."""
    return lambda actions: -(actions - optimum[:, None]).square().sum((2, 3))


def plan_for(planner: BoxPlanner, optimum: Tensor, proposals: Tensor | None = None) -> Plan:
    """The plan of a search from scratch for that objective."""
    m, h, _ = optimum.shape
    return planner(quadratic(optimum), planner.start(LIKE, m, h), proposals)
