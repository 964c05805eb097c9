"""Cross-entropy planning over sequences of discrete actions (Rubinstein 1999, doi:10.1023/A:1010091220143).

Letters: M problems, N candidates, C proposals, K elites, H horizon, n actions. Where P discrete actions are taken at once, each has a
distribution of its own: int64 [M, H] stands for [M, H, P], and [M, H, n] for [M, H, P, n], n being the largest of their numbers.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mbkit.errors import UserError
from mbkit.fields import at_least, between, positive
from mbkit.networks.parts import counts
from mbkit.planning.base import advance, check_elites
from mbkit.planning.sampling import better, rounds, top
from mbkit.registry import planners
from mbkit.types import EnvSpec, Objective, Plan


@dataclass(frozen=True)
class DiscreteCEMConfig:
    """CEM over one categorical distribution per step and part of the action."""

    candidates: int = at_least(200, 1)  # number of candidates per iteration, N
    elites: int = at_least(20, 1)  # number of elites, K: the best candidates, to which the probabilities are refitted
    iterations: int = between(5, 1, 100_000)  # number of iterations: sampling, scoring, refitting
    momentum: float = between(0.1, 0, 1)  # weight of the old probabilities in a refit, alpha (smoothed updating)
    floor: float = between(0.05, 0, 1)  # weight of the uniform distribution in a refit, epsilon: no action is ruled out
    returns: Literal["best", "mode"] = "best"  # executed sequence: best candidate, or most probable action of each step
    budget_ms: float | None = positive(None)  # wall-clock budget per plan in ms; no iteration begins that would overrun it


def sample(probabilities: Tensor, candidates: int) -> Tensor:
    """Categorical draws, [M, H, n] -> int64 [M, N, H], by a race of exponential clocks (torch.multinomial synchronises with the host)."""
    m, *rest = probabilities.shape
    clocks = probabilities.new_empty(m, candidates, *rest).exponential_()
    return (probabilities[:, None] / clocks).argmax(-1)


def refit(elites: Tensor, score: Tensor, probabilities: Tensor, momentum: float, floor: float, n: int | Tensor | None = None) -> Tensor:
    """Frequencies of the finite-scored elites int64 [M, K, H], smoothed; the probabilities [M, H, n] stay where no score is finite.

    `n`: the number of actions where it isn't the width of the probabilities, e.g. that of `counts` [P, n] for parts of different sizes.
    """
    finite = (score > -torch.inf).to(probabilities.dtype)
    ones = (1 for _ in probabilities.shape[1:])
    weight = (finite / finite.sum(1, keepdim=True).clamp(min=1)).view(*finite.shape, *ones)
    chosen = elites[..., None] == torch.arange(probabilities.shape[-1], device=elites.device)
    new = (1 - floor) * (weight * chosen).sum(1) + floor / (probabilities.shape[-1] if n is None else n)
    return probabilities.lerp(new, (1 - momentum) * finite[:, 0].view(-1, *weight.shape[2:]))


@planners.register("discrete_cem", DiscreteCEMConfig)
class DiscreteCEM:
    """Cross-entropy method for discrete actions: categorical probabilities per step and part; the best candidate is executed."""

    def __init__(self, spec: EnvSpec, cfg: DiscreteCEMConfig) -> None:
        if not spec.discrete:
            raise UserError(f"planner discrete_cem needs discrete actions, the environment has {spec.action_dim} continuous ones; use cem")
        check_elites("discrete_cem", cfg.elites, cfg.candidates)
        self.cfg, self.budget_ms, self.actions, self.parts = cfg, cfg.budget_ms, spec.action_dim, spec.parts

    def counts(self, like: Tensor) -> int | Tensor:
        """The number of actions n; [P, n] where there are several parts, infinite where a part has no such action."""
        return counts(self.parts, like.dtype, like.device) if self.parts else self.actions

    def start(self, like: Tensor, problems: int, horizon: int) -> Plan:
        """The plan before any search: uniform probabilities. Device and dtype of `like`."""
        each = (len(self.parts),) if self.parts else ()
        actions = like.new_zeros(problems, horizon, *each, dtype=torch.int64)
        mean = like.new_zeros(*actions.shape, max(self.parts or (self.actions,))) + 1 / self.counts(like)
        return Plan(actions, mean, actions.new_zeros(problems, 0, horizon, *each), like.new_full((problems,), -torch.inf))

    def shift(self, plan: Plan, steps: int) -> Plan:
        """The plan `steps` later; beyond its end it is uniform."""
        uniform = torch.zeros_like(plan.mean[:, :1]) + 1 / self.counts(plan.mean)
        return plan._replace(actions=advance(plan.actions, steps, plan.actions[:, -1:]), mean=advance(plan.mean, steps, uniform))

    @torch.no_grad()
    def __call__(self, objective: Objective, start: Plan, proposals: Tensor | None = None) -> Plan:
        """Maximise `objective` (int64 [M, N, H] -> [M, N]) for M problems at once, from the probabilities start.mean [M, H, n]."""
        cfg, mean = self.cfg, start.mean
        best, best_score = mean.argmax(-1), torch.full_like(start.score, -torch.inf)
        for _ in rounds(cfg.iterations, cfg.budget_ms, mean):
            population = sample(mean, cfg.candidates)
            population = population if proposals is None else torch.cat([population, proposals], 1)
            elites, score = top(population, objective(population), cfg.elites)
            mean = refit(elites, score, mean, cfg.momentum, cfg.floor, self.counts(mean))
            best, best_score = better(best, best_score, elites, score)
        return Plan(best if cfg.returns == "best" else mean.argmax(-1), mean, start.elites, best_score)
