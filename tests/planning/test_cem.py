"""CEM: its noise, its refit, and claim C16: on a quadratic it ends at the optimum, unless the quadratic is very skewed."""

import math

import pytest
import torch
from searches import LIKE, SPEC, plan_for

from mbkit.planning.cem import CEM, CEMConfig, candidates_around
from mbkit.planning.sampling import refit, top
from mbkit.registry import planners
from mbkit.types import Objective

DOUBLE = torch.empty((), dtype=torch.float64)


def skewed(optimum: torch.Tensor, condition: float) -> Objective:
    """-(x - x*) M (x - x*) with one rotated M [H A, H A] for all problems; optimum [M, H, A]."""
    d = optimum[0].numel()
    rotation = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64)).Q
    M = rotation * torch.logspace(0, math.log10(condition), d, dtype=torch.float64) @ rotation.T

    def score(actions: torch.Tensor) -> torch.Tensor:
        x = (actions - optimum[:, None]).flatten(2)
        return -((x @ M) * x).sum(2)

    return score


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.5])
def test_cem_c16_quadratic_converges_to_the_optimum(momentum: float) -> None:
    torch.manual_seed(0)
    optimum = torch.tensor([[[0.5, -0.3], [0.1, 0.2]], [[-0.6, 0.4], [0.0, -0.7]]], dtype=torch.float64)
    planner = CEM(SPEC, CEMConfig(candidates=1000, elites=100, iterations=120, momentum=momentum))
    plan = planner(skewed(optimum, 3.0), planner.start(DOUBLE, 2, 2))
    assert (plan.actions - optimum).abs().max() <= 1e-6


def test_cem_c16_long_valley_stops_before_the_optimum() -> None:
    """The one variance of a coordinate shrinks with the steep direction: at condition 100 it vanishes before the flat one converged."""
    torch.manual_seed(0)
    optimum = torch.tensor([[[0.5, -0.3], [0.1, 0.2]]], dtype=torch.float64)
    planner = CEM(SPEC, CEMConfig(candidates=1000, elites=100, iterations=120))
    assert (planner(skewed(optimum, 100.0), planner.start(DOUBLE, 1, 2)).actions - optimum).abs().max() > 1e-4


def test_refit_normal_around_the_optimum_shrinks_by_the_closed_form() -> None:
    """Elites of a normal around x* are its middle share p: variance 1 - 2 z phi(z) / p with Phi(z) - Phi(-z) = p; the mean stays."""
    torch.manual_seed(0)
    share, n = 0.1, 400_000
    z = math.sqrt(2) * torch.special.erfinv(torch.tensor(share, dtype=torch.float64)).item()
    expected = 1 - 2 * z * math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / share
    x = torch.randn(1, n, 1, 1, dtype=torch.float64)
    elites, score = top(x, -x.square().flatten(1), int(share * n))
    mean, var = refit(elites, score, torch.full((1, 1, 1), 9.0, dtype=torch.float64), torch.ones(1, 1, 1, dtype=torch.float64), 0.0)
    assert mean.abs().item() < 4 * math.sqrt(expected / (share * n))
    assert var.item() == pytest.approx(expected, rel=0.05)


def test_candidates_around_mean_near_a_bound_have_half_the_distance_as_sigma() -> None:
    torch.manual_seed(0)
    mean = torch.tensor([0.0, 0.9, -1.0]).view(3, 1, 1)
    draws = candidates_around(mean, torch.full_like(mean, 0.25), 50_000)[..., 0, 0]
    within = 0.8796  # standard deviation of a normal cut at two sigmas
    torch.testing.assert_close(draws.std(1), torch.tensor([0.5, 0.05, 0.0]) * within, rtol=0.02, atol=1e-6)
    assert draws[1].max() <= 1 + 1e-6
    assert draws[1].max() > 0.999


@pytest.mark.parametrize("name", ["cem", "icem"])
def test_momentum_1_keeps_the_mean(name: str) -> None:
    entry = planners[name]
    planner = entry.target(SPEC, entry.config(momentum=1.0))
    plan = plan_for(planner, torch.full((2, 3, 2), 0.7))
    assert torch.equal(plan.mean, torch.zeros(2, 3, 2))


def test_momentum_0_one_iteration_returns_the_mean_of_the_elites() -> None:
    planner, populations = CEM(SPEC, CEMConfig(momentum=0.0, iterations=1, elites=7)), []

    def objective(actions: torch.Tensor) -> torch.Tensor:
        populations.append(actions)
        return actions[..., 0].sum(-1)

    plan = planner(objective, planner.start(LIKE, 1, 3))
    best = objective(populations[0])[0].topk(7).indices
    torch.testing.assert_close(plan.actions, populations[0][:, best].mean(1))
