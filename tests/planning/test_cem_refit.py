"""C16: the refit of CEM on a quadratic ends at its optimum, unless it is very skewed, and an exact refit shrinks as theory says."""

import math

import pytest
import torch

from mbkit.planning.cem import CEM, CEMConfig
from mbkit.planning.sampling import refit, top
from mbkit.types import EnvSpec, Objective

SPEC = EnvSpec(4, 2, torch.device("cpu"))
LIKE = torch.empty((), dtype=torch.float64)


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
def test_c16_the_refit_converges_to_the_optimum(momentum: float) -> None:
    torch.manual_seed(0)
    optimum = torch.tensor([[[0.5, -0.3], [0.1, 0.2]], [[-0.6, 0.4], [0.0, -0.7]]], dtype=torch.float64)
    planner = CEM(SPEC, CEMConfig(candidates=1000, elites=100, iterations=120, momentum=momentum))
    plan = planner(skewed(optimum, 3.0), planner.start(LIKE, 2, 2))
    assert (plan.actions - optimum).abs().max() <= 1e-6


def test_c16_a_long_valley_is_left_unfinished() -> None:
    """One variance a coordinate shrinks with the steep direction: at condition 100 it is gone before the flat one is done."""
    torch.manual_seed(0)
    optimum = torch.tensor([[[0.5, -0.3], [0.1, 0.2]]], dtype=torch.float64)
    planner = CEM(SPEC, CEMConfig(candidates=1000, elites=100, iterations=120))
    assert (planner(skewed(optimum, 100.0), planner.start(LIKE, 1, 2)).actions - optimum).abs().max() > 1e-4


def test_one_refit_around_the_optimum_shrinks_a_normal_to_its_centre() -> None:
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
