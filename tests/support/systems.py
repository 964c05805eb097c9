"""Small systems whose truth is known, and small ensembles for them."""

import torch

from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.types import EnvSpec, TaskKnowledge, Transition

CPU = torch.device("cpu")
SPEC = EnvSpec(3, 2, CPU)
A = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.8, 0.1], [0.1, 0.0, 0.7]])
B = torch.tensor([[0.1, 0.0, 0.2], [0.0, 0.3, 0.1]])
NOISE = torch.tensor([0.05, 0.1, 0.2])
SMALL = EnsembleConfig(members=4, elites=3, hidden=(16, 16), max_epochs=2, batch=64)


def linear_gaussian(rows: int, noise: torch.Tensor = NOISE) -> Transition:
    """x' = x A + a B + noise; the reward is the sum of x'; terminated where x'_0 > 1."""
    obs, action = torch.randn(rows, 3), torch.rand(rows, 2) * 2 - 1
    following = obs @ A + action @ B + noise * torch.randn(rows, 3)
    return Transition(obs, action, following.sum(1), following, (following[:, 0] <= 1).float())


def zero_reward(obs: torch.Tensor, action: torch.Tensor, next_obs: torch.Tensor) -> torch.Tensor:
    """0 for every row [B]."""
    return torch.zeros(len(obs))


def small_ensemble(cfg: EnsembleConfig = SMALL, fit: bool = True, **known) -> Ensemble:
    """An ensemble for `linear_gaussian`, fitted to 200 rows unless told otherwise; `known` are fields of `TaskKnowledge`."""
    torch.manual_seed(0)
    ensemble = Ensemble(SPEC, cfg, TaskKnowledge(**known))
    if fit:
        ensemble.fit(linear_gaussian(200))
    return ensemble


def noiseless(ensemble: Ensemble) -> Ensemble:
    """The same ensemble with (almost) no variance."""
    with torch.no_grad():
        bounds = ensemble.network.logvar_bounds
        bounds.copy_(torch.tensor([-60.0, -59.0])[:, None].expand_as(bounds))
    ensemble.refresh()
    return ensemble
