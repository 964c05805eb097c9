"""Sample-efficient cross-entropy planning, iCEM (Pinneri et al. 2020, arXiv:2008.06389).

Letters: M problems, N candidates, C proposals, K reused elites, H horizon, A action.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mbkit.fields import at_least, between, positive
from mbkit.planning.base import BoxPlanner, advance, check_elites
from mbkit.planning.sampling import better, coloured_normal, join, refit, rounds, top
from mbkit.registry import planners
from mbkit.types import EnvSpec, Objective, Plan


@dataclass(frozen=True)
class ICEMConfig:
    """iCEM at the paper's smallest budget: 40 + 32 + 25 = 97 trajectories per plan."""

    candidates: int = at_least(40, 1)  # number of candidates of the first iteration, N, reused elites included
    elites: int = at_least(10, 1)  # number of elites: the best candidates, to which mean and variance are refitted
    iterations: int = between(3, 1, 100_000)  # number of iterations: sampling, scoring, refitting
    decay: float = at_least(1.25, 1, when="iterations>1")  # factor by which candidates shrink per iteration, gamma; never below 2 elites
    exponent: float = at_least(2.0, 0)  # exponent of the noise power 1/f^beta along the horizon, 0: white. Paper: 0.25 to 3.5
    keep: float = between(0.3, 0, 1)  # share of the elites reused in the next iteration and, shifted, in the next plan, xi
    momentum: float = between(0.1, 0, 1)  # weight of the old mean and variance in a refit, alpha
    initial_std: float = positive(0.5)  # standard deviation at the start of a search, sigma. Paper: 0.5
    returns: Literal["best", "mean"] = "best"  # executed sequence: best candidate (Paper) or final mean
    budget_ms: float | None = positive(None)  # wall-clock budget per plan in ms; no iteration begins that would overrun it


def populations(cfg: ICEMConfig) -> list[int]:
    """Candidates of each iteration: N_i = max(N_(i-1) / decay, 2 elites), rounded down."""
    sizes = [max(cfg.candidates, 2 * cfg.elites)]
    while len(sizes) < cfg.iterations:
        sizes.append(max(int(sizes[-1] / cfg.decay), 2 * cfg.elites))
    return sizes


@planners.register("icem", ICEMConfig)
class ICEM(BoxPlanner):
    """iCEM: coloured noise, reused elites, a shrinking population; the best candidate is executed.

    Paper: reused elites come on top of the population with their old score; here: they take the place of new candidates and are
    evaluated again (the model is stochastic, and an old score is the highest of its draws), so that 97 trajectories are 97.
    """

    def __init__(self, spec: EnvSpec, cfg: ICEMConfig) -> None:
        super().__init__(spec, cfg.budget_ms)
        check_elites("icem", cfg.elites, cfg.candidates)
        self.cfg, self.populations = cfg, populations(cfg)
        self.reused = int(cfg.keep * cfg.elites)

    def shift(self, plan: Plan, steps: int) -> Plan:
        """The plan `steps` later. Beyond its end its last step is repeated, and elites are NaN, which the next search draws anew."""
        return super().shift(plan, steps)._replace(mean=advance(plan.mean, steps, plan.mean[:, -1:]))

    @torch.no_grad()
    def __call__(self, objective: Objective, start: Plan, proposals: Tensor | None = None) -> Plan:
        """Maximise `objective` for M problems at once, from start.mean [M, H, A] and start.elites [M, K, H, A], NaN where there is none."""
        cfg, mean, reused = self.cfg, start.mean, start.elites
        var = torch.full_like(mean, cfg.initial_std**2)
        best, best_score = mean, torch.full_like(start.score, -torch.inf)
        for i in rounds(cfg.iterations, cfg.budget_ms, mean):
            noise = coloured_normal(mean, self.populations[i], cfg.exponent)
            population = torch.addcmul(mean[:, None], var.sqrt()[:, None], noise)
            inserted = reused if i < cfg.iterations - 1 else torch.cat([reused, mean[:, None]], 1)
            first = population[:, : inserted.shape[1]]
            first.copy_(torch.where(inserted.isnan(), first, inserted))
            population = join(population, proposals)
            elites, score = top(population, objective(population), cfg.elites)
            mean, var = refit(elites, score, mean, var, cfg.momentum)
            best, best_score = better(best, best_score, elites, score)
            finite = score[:, : self.reused, None, None] > -torch.inf
            reused = torch.where(finite, elites[:, : self.reused], torch.nan)
        return Plan(best if cfg.returns == "best" else mean, mean, reused, best_score)
