"""Learned critics Q = exp(u) for six losses, u linear or an MLP, with tabular actors, all members trained at once.

Critic regularisation of Eysenbach et al. 2023, arXiv:2307.12968, on exact expectations; losses enter through their derivatives in u.
L losses, K lambdas, N seeds, E = L K N members, S states, A actions, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mbkit.fields import at_least, positive
from mbkit.networks.mlp import EnsembleMLP
from mbkit.tabular.environments import SIDE
from mbkit.tabular.mdp import MDP, Array

NORMALISED = "ce_normalised"
NAMES = ("cross_entropy", NORMALISED, "poisson", "mse", "huber", "itakura_saito")
UNIT = {"mse": 1, "huber": 1, "itakura_saito": -1}  # lambda has the unit of the value to this power; cross-entropy: 0
CRITICS: dict[str, tuple[int, tuple[int, ...]]] = {  # degree of the polynomial features, hidden layers; degree 4 represents every table
    "linear 25": (4, ()),
    "linear 16": (3, ()),
    "linear 9": (2, ()),
    "linear 4": (1, ()),
    "MLP 4": (1, (4, 4)),
    "MLP 16": (1, (16, 16)),
    "MLP 32": (1, (32, 32)),
}


@dataclass(frozen=True)
class Training:
    """Training options of critic and actor."""

    steps: int = at_least(4000, 4)  # number of optimizer steps; in the first quarter the actor is beta and the critic that of one-step RL
    lr: float = positive(0.01)  # initial Adam learning rate, decaying linearly to a tenth
    eta: float = positive(0.01)  # learning rate of the actor for every lambda


class CriticProblem(NamedTuple):
    """MDP and behaviour policy of one seed."""

    mdp: MDP
    beta: Array  # [S, A]
    mean: float  # mean of V^beta over the states
    seed: int


class CriticGrid(NamedTuple):
    """Losses, lambdas and problems whose members are trained at once."""

    problems: list[CriticProblem]  # N seeds of one grid
    lambdas: Array  # [K] in units of cross-entropy
    names: tuple[str, ...] = NAMES  # L losses

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of losses, lambdas and seeds."""
        return len(self.names), len(self.lambdas), len(self.problems)


class CriticCheckpoints(NamedTuple):
    """Actors and critics at T checkpoints."""

    steps: list[int]  # [T]
    pi: Array  # [T, L, K, N, S, A]
    q: Array  # [T, L, K, N, S, A]
    q_beta: Array  # [L, K, N, S, A] the critic's Q^beta, before the first actor update


def betas(grid: CriticGrid) -> Array:
    """Behaviour policies [N, S, A]."""
    return np.stack([p.beta for p in grid.problems])


def converted_lambda(name: str, lam: float, mean: float) -> float:
    """Lambda in the unit of a loss, from lambda of cross-entropy and the mean value: lambda mean^(1 - k) (`equivalent_losses`)."""
    return float(lam * mean ** UNIT.get(name, 0))


# ------------------------------------------------------------------------------------------------------------- losses, features
DERIVATIVES: dict[
    str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
] = {  # (Q, y, beta, x) -> derivative of the objective in u = log Q
    "cross_entropy": lambda q, y, beta, x: (beta * (q - y) + x * q) / (1 + q),
    NORMALISED: lambda q, y, beta, x: (beta * (q - y) + x * q) / (1 + q),
    "poisson": lambda q, y, beta, x: beta * (q - y) + x * q,
    "mse": lambda q, y, beta, x: q * (beta * (q - y) + x),
    "huber": lambda q, y, beta, x: q * (beta * (q - y).clamp(-1, 1) + x),
    "itakura_saito": lambda q, y, beta, x: beta * (1 - y / q) + x * q,
}


def polynomials(degree: int) -> Array:
    """Features [S, (degree + 1)^2]: products of orthonormal polynomials of row and column; degree 4 represents every table."""
    powers = np.vander(np.linspace(-1, 1, SIDE), degree + 1, increasing=True)
    basis = np.linalg.qr(powers)[0] * np.sqrt(SIDE)
    return np.asarray(np.einsum("id,je->ijde", basis, basis).reshape(SIDE * SIDE, -1))


def float32(values: Array) -> Tensor:
    """Float32 copy for training."""
    return torch.tensor(values, dtype=torch.float32)


def biased(P: Tensor, y: Tensor) -> Tensor:
    """Targets of normalised weights, E[y w] / E[w] with w = 1 / (1 + y) over s', for samples y [..., S, A, S] -> [..., S, A]."""
    weight = P / (1 + y)
    return (weight * y).sum(-1) / weight.sum(-1)


# --------------------------------------------------------------------------------------------------------------------- training
class CriticTensors(NamedTuple):
    """Problems of a grid in single precision."""

    P: Tensor  # [S, A, S]
    R: Tensor  # [S, A]
    gamma: float
    bounds: tuple[float, float]  # bounds on the value of any policy
    beta: Tensor  # [N, S, A]
    lam: Tensor  # [L, K, N, 1, 1] in the unit of the loss


def tensors(grid: CriticGrid) -> CriticTensors:
    """Tensors that training reads."""
    mdp = grid.problems[0].mdp
    bounds = float(mdp.R.min() / (1 - mdp.gamma)), float(mdp.R.max() / (1 - mdp.gamma))
    lam = float32(np.array([[[converted_lambda(name, lam, p.mean) for p in grid.problems] for lam in grid.lambdas] for name in grid.names]))
    return CriticTensors(float32(mdp.P), float32(mdp.R), mdp.gamma, bounds, float32(betas(grid)), lam[..., None, None])


def targets(data: CriticTensors, names: tuple[str, ...], v: Tensor) -> Tensor:
    """Targets R + gamma E[V] for V [L, K, N, S], -> [L, K, N, S, A]; smaller with normalised weights."""
    y = data.R + data.gamma * torch.einsum("sat,lknt->lknsa", data.P, v)
    if NORMALISED in names:
        n = names.index(NORMALISED)
        y[n] = biased(data.P, data.R[..., None] + data.gamma * v[n][..., None, None, :])
    return y


def derivatives(data: CriticTensors, names: tuple[str, ...], q: Tensor, pi: Tensor, level: Tensor) -> Tensor:
    """Derivative of every member's objective in u, [L, K, N, S, A]; level is E_pi[Q], [L, K, N, S, 1]."""
    v = level[..., 0].clamp(*data.bounds)  # clipped to attainable values; otherwise some members diverge early in training
    y = targets(data, names, v)
    return torch.stack([DERIVATIVES[name](q[n], y[n], data.beta, data.lam[n] * (pi[n] - data.beta)) for n, name in enumerate(names)])


def initial_critics(grid: CriticGrid, widths: tuple[int, ...], seed: int) -> EnsembleMLP:
    """Initial critics of all members; the state of the global random generator is preserved."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EnsembleMLP(int(np.prod(grid.shape)), widths)


def train(grid: CriticGrid, features: Array, hidden: tuple[int, ...], options: Training, seed: int) -> CriticCheckpoints:
    """Train all losses, lambdas and seeds at once, on exact expectations over uniform states, beta and P.

    Args:
        grid: losses, lambdas and problems.
        features: features of the states, [S, D].
        hidden: hidden layer widths of the critic; () is a linear critic.
        options: training options.
        seed: seed of the initial weights.
    """
    mdp, data, x = grid.problems[0].mdp, tensors(grid), float32(features)
    net = initial_critics(grid, (x.shape[1], *hidden, mdp.A), seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=options.lr, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, options.steps)
    rate = options.eta / float32(grid.lambdas)[:, None, None, None]
    log_pi, warmup = data.beta.log().expand(*grid.shape, mdp.S, mdp.A), options.steps // 4
    marks = np.linspace(warmup, options.steps, 9).astype(int).tolist()
    pis, qs = [], []
    for t in range(1, options.steps + 1):
        u = net(x).view(*grid.shape, mdp.S, mdp.A)
        with torch.no_grad():
            q, pi = u.exp(), log_pi.exp()
            level = (pi * q).sum(-1, keepdim=True)
            derivative = derivatives(data, grid.names, q, pi, level)
        optimizer.zero_grad()
        (u * derivative).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if t > warmup:
            log_pi = (log_pi + rate * q / level).log_softmax(-1)
        if t in marks:
            pis.append(log_pi.exp().double().numpy())
            qs.append(q.double().numpy())
    return CriticCheckpoints(marks, np.stack(pis), np.stack(qs), qs[0])
