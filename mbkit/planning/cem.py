"""Cross-entropy planning over action sequences, as in PETS (Chua et al. 2018, arXiv:1805.12114).

Letters: M problems, N candidates, C proposals, H horizon, A action.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mbkit.fields import at_least, between, positive
from mbkit.planning.base import BoxPlanner, check_elites
from mbkit.planning.sampling import better, join, refit, rounds, top, truncated_normal
from mbkit.registry import planners
from mbkit.types import EnvSpec, Objective, Plan


@dataclass(frozen=True)
class CEMConfig:
    """CEM with the PETS defaults for cartpole and reacher; pusher and halfcheetah use 500 candidates and 50 elites."""

    candidates: int = at_least(400, 1)  # number of candidates per iteration, N
    elites: int = at_least(40, 1)  # number of elites: the best candidates, to which mean and variance are refitted
    iterations: int = between(5, 1, 100_000)  # number of iterations: sampling, scoring, refitting
    momentum: float = between(0.1, 0, 1)  # weight of the old mean and variance in a refit, alpha
    initial_std: float = positive(0.5)  # standard deviation at the start of a search, sigma. Paper: a quarter of the action range
    returns: Literal["mean", "best", "sample"] = "mean"  # executed sequence: final mean (Paper), best candidate, draw around the mean
    budget_ms: float | None = positive(None)  # wall-clock budget per plan in ms; no iteration begins that would overrun it


def candidates_around(mean: Tensor, var: Tensor, candidates: int) -> Tensor:
    """Truncated normals [M, N, H, A]; the variance is at most (distance to the bound / 2)^2, so that two sigmas stay inside the box."""
    sigma = var.sqrt().minimum((1 - mean.abs()) / 2)
    return torch.addcmul(mean[:, None], sigma[:, None], truncated_normal(mean, mean.shape[0], candidates, *mean.shape[1:]))


@planners.register("cem", CEMConfig)
class CEM(BoxPlanner):
    """Cross-entropy method: truncated normals refitted to their elites, the final mean is executed.

    Paper: stops early once max var <= 1e-3; here: never (the check would synchronise with the device in every iteration).
    """

    def __init__(self, spec: EnvSpec, cfg: CEMConfig) -> None:
        super().__init__(spec, cfg.budget_ms)
        check_elites("cem", cfg.elites, cfg.candidates)
        self.cfg = cfg

    @torch.no_grad()
    def __call__(self, objective: Objective, start: Plan, proposals: Tensor | None = None) -> Plan:
        """Maximise `objective` for M problems at once, from start.mean [M, H, A]."""
        cfg, mean = self.cfg, start.mean
        var = torch.full_like(mean, cfg.initial_std**2)
        best, best_score = mean, torch.full_like(start.score, -torch.inf)
        for _ in rounds(cfg.iterations, cfg.budget_ms, mean):
            population = join(candidates_around(mean, var, cfg.candidates), proposals)
            elites, score = top(population, objective(population), cfg.elites)
            mean, var = refit(elites, score, mean, var, cfg.momentum)
            best, best_score = better(best, best_score, elites, score)
        actions = {"mean": mean, "best": best}.get(cfg.returns)
        return Plan(candidates_around(mean, var, 1)[:, 0].clamp(-1, 1) if actions is None else actions, mean, start.elites, best_score)
