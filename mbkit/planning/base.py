"""What planners share besides equations: where a search starts, and how its plan is shifted in time."""

import torch
from torch import Tensor

from mbkit.errors import UserError
from mbkit.types import EnvSpec, Plan


def advance(x: Tensor, steps: int, tail: Tensor) -> Tensor:
    """The tensor without the first `steps` of dimension 1, with `steps` copies of tail [M, 1, ...] behind it."""
    steps = min(steps, x.shape[1])
    return torch.cat([x[:, steps:], tail.expand(-1, steps, *x.shape[2:])], 1)


def check_elites(name: str, elites: int, candidates: int) -> None:
    """UserError where there are more elites than candidates."""
    if elites > candidates:
        raise UserError(f"planner {name!r}: elites={elites}, expected at most candidates={candidates}")


class BoxPlanner:
    """Base of the planners on [-1, 1]^(H x A): K = `reused` elites of a plan are candidates of the next search."""

    reused = 0

    def __init__(self, spec: EnvSpec, budget_ms: float | None) -> None:
        if spec.discrete:
            name = type(self).__name__
            raise UserError(
                f"planner {name} needs continuous actions, the environment has {spec.action_dim} discrete ones; use discrete_cem"
            )
        self.action_dim, self.budget_ms = spec.action_dim, budget_ms

    def start(self, like: Tensor, problems: int, horizon: int) -> Plan:
        """The plan before any search: zeros, and elites of NaN, which stand for none. Device and dtype of `like`."""
        mean = like.new_zeros(problems, horizon, self.action_dim)
        elites = like.new_full((problems, self.reused, horizon, self.action_dim), torch.nan)
        return Plan(mean, mean, elites, like.new_full((problems,), -torch.inf))

    def shift(self, plan: Plan, steps: int) -> Plan:
        """The plan `steps` later. Beyond its end it is zero (as in PETS), and elites are NaN, which the next search draws anew."""
        zero, nan = plan.mean.new_zeros(len(plan.mean), 1, 1), plan.mean.new_full((1, 1, 1), torch.nan)
        elites = advance(plan.elites.flatten(0, 1), steps, nan.expand(plan.elites.shape[0] * plan.elites.shape[1], 1, 1))
        return Plan(advance(plan.actions, steps, zero), advance(plan.mean, steps, zero), elites.view_as(plan.elites), plan.score)
