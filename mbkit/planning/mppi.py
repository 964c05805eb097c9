"""Model-predictive path integral control (Williams et al. 2015, arXiv:1509.01149).

The noise is correlated in time as in PDDM (Nagabandi et al. 2019, arXiv:1909.11652).

Letters: M problems, N candidates, C proposals, H horizon, A action.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from mbkit.fields import at_least, between, positive
from mbkit.planning.base import BoxPlanner
from mbkit.planning.sampling import better, join, rounds, top
from mbkit.registry import planners
from mbkit.types import EnvSpec, Objective, Plan


@dataclass(frozen=True)
class MPPIConfig:
    """MPPI with time-correlated noise; mbrl-lib on halfcheetah: 350 candidates, 5 iterations, beta 0.9, temperature 1/0.9."""

    candidates: int = at_least(350, 1)  # number of candidates per iteration, N
    iterations: int = between(5, 1, 100_000)  # number of iterations of sampling and reweighting. Williams et al.: 1
    sigma: float = positive(0.5)  # standard deviation of the noise before smoothing, in half action ranges
    temperature: float = positive(1.0)  # temperature of the weights softmax(return / lambda), in units of the return; PDDM: 1 / gamma
    beta: float = between(0.9, 0.01, 1)  # weight of the new noise against that of the step before; 1: independent steps
    budget_ms: float | None = positive(None)  # wall-clock budget per plan in ms; no iteration begins that would overrun it


@cache  # for good, since a captured graph may hold the result
def smoothing(horizon: int, beta: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """PDDM's noise filter as a matrix [H, H]: n_t = beta u_t + (1 - beta) n_(t-1), n_(-1) = 0."""
    lag = torch.arange(horizon, dtype=torch.float64)[:, None] - torch.arange(horizon)
    return torch.where(lag >= 0, beta * (1 - beta) ** lag.clamp(min=0), 0).to(device, dtype)


def candidates_around(mean: Tensor, candidates: int, sigma: float, beta: float) -> Tensor:
    """Sequences [M, N, H, A]: the mean plus smoothed normal noise, not yet clipped to the box."""
    m, horizon, dim = mean.shape
    white = torch.randn(m, candidates, horizon, dim, dtype=mean.dtype, device=mean.device)
    return mean[:, None] + sigma * (smoothing(horizon, beta, mean.dtype, mean.device) @ white)


def path_integral(population: Tensor, score: Tensor, mean: Tensor, temperature: float) -> Tensor:
    """The mean [M, H, A] of the population under weights exp(score / temperature); the old mean where no score is finite."""
    finite = score.isfinite()
    weight = (torch.where(finite, score, -torch.inf) / temperature).softmax(1)
    weight = torch.where(finite, weight, 0)  # softmax of nothing but -inf is NaN
    new = torch.einsum("mn,mnha->mha", weight, population)
    return torch.where(finite.any(1)[:, None, None], new, mean)


@planners.register("mppi", MPPIConfig)
class MPPI(BoxPlanner):
    """Path integral control: the mean of all candidates, weighted by their exponentiated returns."""

    def __init__(self, spec: EnvSpec, cfg: MPPIConfig) -> None:
        super().__init__(spec, cfg.budget_ms)
        self.cfg = cfg

    @torch.no_grad()
    def __call__(self, objective: Objective, start: Plan, proposals: Tensor | None = None) -> Plan:
        """Maximise `objective` for M problems at once, from start.mean [M, H, A]; the final mean is executed."""
        cfg, mean = self.cfg, start.mean
        best, best_score = mean, torch.full_like(start.score, -torch.inf)
        for _ in rounds(cfg.iterations, cfg.budget_ms, mean):
            population = join(candidates_around(mean, cfg.candidates, cfg.sigma, cfg.beta), proposals)
            score = objective(population)
            mean = path_integral(population, score, mean, cfg.temperature)
            best, best_score = better(best, best_score, *top(population, score, 1))
        return Plan(mean, mean, start.elites, best_score)
