"""Sample-efficient cross-entropy planning, iCEM (Pinneri et al. 2020, arXiv:2008.06389).

Letters: M problems, N candidates, C proposals, K kept elites, H horizon, A action.
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

    candidates: int = at_least(40, 1)  # evaluated in the first iteration, kept elites included
    elites: int = at_least(10, 1)  # best candidates that mean and variance are refitted to
    iterations: int = at_least(3, 1)  # rounds of sampling and refitting
    decay: float = at_least(1.25, 1)  # each iteration has this many times fewer candidates, never fewer than 2 elites (Paper: gamma)
    exponent: float = at_least(
        2.0, 0
    )  # noise power ~ 1/f^exponent along the horizon, 0 white (Paper: beta; 0.25 halfcheetah to 3.5 relocate)
    keep: float = between(0.3, 0, 1)  # fraction of the elites evaluated again in the next iteration and, shifted, in the next plan
    momentum: float = between(0.1, 0, 1)  # weight of the old mean and variance (Paper: alpha)
    initial_std: float = positive(0.5)  # where every search starts (Paper: 0.5)
    returns: Literal["best", "mean"] = "best"  # what is executed: best candidate met (Paper) or final mean
    budget_ms: float | None = positive(None)  # wall-clock per plan in ms; begins no iteration that would overrun it


def populations(cfg: ICEMConfig) -> list[int]:
    """Candidates of each iteration: N_i = max(N_(i-1) / decay, 2 elites), rounded down."""
    sizes = [max(cfg.candidates, 2 * cfg.elites)]
    while len(sizes) < cfg.iterations:
        sizes.append(max(int(sizes[-1] / cfg.decay), 2 * cfg.elites))
    return sizes


@planners.register("icem", ICEMConfig)
class ICEM(BoxPlanner):
    """iCEM: coloured noise, remembered elites, a shrinking population; the best candidate is executed.

    Paper: kept elites come on top of the population and keep their old score; here: they take the place of fresh candidates and are
    evaluated again (the model is stochastic, an old score is the luckiest of its draws), so that 97 trajectories are 97.
    """

    def __init__(self, spec: EnvSpec, cfg: ICEMConfig) -> None:
        super().__init__(spec, cfg.budget_ms)
        check_elites("icem", cfg.elites, cfg.candidates)
        self.cfg, self.populations = cfg, populations(cfg)
        self.remembered = int(cfg.keep * cfg.elites)

    def shift(self, plan: Plan, steps: int) -> Plan:
        """As other planners, but the last step of the mean is repeated; the remembered elites' missing steps are drawn anew."""
        return super().shift(plan, steps)._replace(mean=advance(plan.mean, steps, plan.mean[:, -1:]))

    @torch.no_grad()
    def __call__(self, objective: Objective, start: Plan, proposals: Tensor | None = None) -> Plan:
        """Maximise `objective` for M problems at once, from start.mean [M, H, A] and start.elites [M, K, H, A], NaN where there is none."""
        cfg, mean, kept = self.cfg, start.mean, start.elites
        var = torch.full_like(mean, cfg.initial_std**2)
        best, best_score = mean, torch.full_like(start.score, -torch.inf)
        for i in rounds(cfg.iterations, cfg.budget_ms, mean):
            noise = coloured_normal(mean, self.populations[i], cfg.exponent)
            population = torch.addcmul(mean[:, None], var.sqrt()[:, None], noise)
            known = kept if i < cfg.iterations - 1 else torch.cat([kept, mean[:, None]], 1)
            fresh = population[:, : known.shape[1]]
            fresh.copy_(torch.where(known.isnan(), fresh, known))
            population = join(population, proposals)
            elites, score = top(population, objective(population), cfg.elites)
            mean, var = refit(elites, score, mean, var, cfg.momentum)
            best, best_score = better(best, best_score, elites, score)
            finite = score[:, : self.remembered, None, None] > -torch.inf
            kept = torch.where(finite, elites[:, : self.remembered], torch.nan)
        return Plan(best if cfg.returns == "best" else mean, mean, kept, best_score)
