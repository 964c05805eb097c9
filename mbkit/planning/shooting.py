"""Random shooting: the best of many uniformly drawn action sequences (Nagabandi et al. 2018, arXiv:1708.02596).

Letters: M problems, N candidates, C proposals, H horizon, A action.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.fields import at_least, between, positive
from mbkit.planning.base import BoxPlanner
from mbkit.planning.sampling import better, join, rounds, top
from mbkit.registry import planners
from mbkit.types import EnvSpec, Objective, Plan


@dataclass(frozen=True)
class ShootingConfig:
    """Random shooting; PETS spends as many candidates on it as on CEM: 2000 on cartpole, 2500 on halfcheetah."""

    candidates: int = at_least(400, 1)  # number of candidates per iteration, N
    iterations: int = between(5, 1, 100_000)  # number of iterations; memory grows with the candidates of one
    budget_ms: float | None = positive(None)  # wall-clock budget per plan in ms; no iteration begins that would overrun it


@planners.register("shooting", ShootingConfig)
class Shooting(BoxPlanner):
    """Random shooting: the best of many uniformly drawn action sequences; every plan is drawn anew."""

    def __init__(self, spec: EnvSpec, cfg: ShootingConfig) -> None:
        super().__init__(spec, cfg.budget_ms)
        self.cfg = cfg

    @torch.no_grad()
    def __call__(self, objective: Objective, start: Plan, proposals: Tensor | None = None) -> Plan:
        """Maximise `objective` for M problems at once; the start is executed only where no score is finite."""
        actions, score = start.mean, torch.full_like(start.score, -torch.inf)
        m, *rest = start.mean.shape
        for _ in rounds(self.cfg.iterations, self.cfg.budget_ms, start.mean):
            population = join(start.mean.new_empty(m, self.cfg.candidates, *rest).uniform_(-1, 1), proposals)
            actions, score = better(actions, score, *top(population, objective(population), 1))
        return Plan(actions, actions, start.elites, score)
