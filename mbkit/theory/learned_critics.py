"""Critics learned with six losses, linear or MLPs of one form Q = exp(u), and their tables of actors; all members at once.

Critic regularisation of Eysenbach et al. 2023, arXiv:2307.12968, on exact expectations; the loss is given by its derivative in u. L losses,
K lambdas, N seeds, E = L K N members, S states, A actions, D features.
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
UNIT = {"mse": 1, "huber": 1, "itakura_saito": -1}  # lambda = 1 times the mean value to this power is the loss' own unit of lambda
CRITICS: dict[str, tuple[int, tuple[int, ...]]] = {  # degree of the features, hidden layers; degree 4 is every table
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
    """How critic and actor are learned."""

    steps: int = at_least(4000, 4)  # of Adam; in the first quarter the actor is beta, so that the critic is one-step RL's
    lr: float = positive(0.01)  # of Adam, falling linearly to a tenth
    eta: float = positive(0.01)  # of the actor; pi follows Q at this rate for every lambda


class Problem(NamedTuple):
    """One seed."""

    mdp: MDP
    beta: Array  # [S, A]
    mean: float  # of V^beta over the states
    seed: int


class Run(NamedTuple):
    """What is done at once."""

    problems: list[Problem]  # N seeds of one grid
    lambdas: Array  # [K] in units of cross-entropy
    names: tuple[str, ...] = NAMES  # L losses

    @property
    def shape(self) -> tuple[int, int, int]:
        """Losses, lambdas, seeds."""
        return len(self.names), len(self.lambdas), len(self.problems)


class Trained(NamedTuple):
    """What learning left at T checkpoints."""

    steps: list[int]  # [T]
    pi: Array  # [T, L, K, N, S, A]
    q: Array  # [T, L, K, N, S, A]
    q_beta: Array  # [L, K, N, S, A] the same critic's Q^beta: its state when the actor begins to move


def betas(run: Run) -> Array:
    """[N, S, A]."""
    return np.stack([p.beta for p in run.problems])


def own_unit(name: str, lam: float, mean: float) -> float:
    """Lambda of a loss that weighs the regulariser as cross-entropy's does at a value of `mean`: times mean^(1 - k) of experiment d2."""
    return float(lam * mean ** UNIT.get(name, 0))


# -------------------------------------------------------------------------------------------------------------- losses, features
PUSHES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {  # (Q, y, beta, x) -> derivative of the objective in u = log Q
    "cross_entropy": lambda q, y, beta, x: (beta * (q - y) + x * q) / (1 + q),
    NORMALISED: lambda q, y, beta, x: (beta * (q - y) + x * q) / (1 + q),
    "poisson": lambda q, y, beta, x: beta * (q - y) + x * q,
    "mse": lambda q, y, beta, x: q * (beta * (q - y) + x),
    "huber": lambda q, y, beta, x: q * (beta * (q - y).clamp(-1, 1) + x),
    "itakura_saito": lambda q, y, beta, x: beta * (1 - y / q) + x * q,
}


def polynomials(degree: int) -> Array:
    """Products of the first degree + 1 orthonormal polynomials of row and column, [S, (degree + 1)^2]; degree 4 is every table."""
    powers = np.vander(np.linspace(-1, 1, SIDE), degree + 1, increasing=True)
    basis = np.linalg.qr(powers)[0] * np.sqrt(SIDE)
    return np.asarray(np.einsum("id,je->ijde", basis, basis).reshape(SIDE * SIDE, -1))


def single(values: Array) -> Tensor:
    """A float32 copy for learning."""
    return torch.tensor(values, dtype=torch.float32)


def biased(P: Tensor, y: Tensor) -> Tensor:
    """E[y w] / E[w] with w = 1 / (1 + y) over s', for samples y [..., S, A, S]: what normalised weights regress on, [..., S, A]."""
    weight = P / (1 + y)
    return (weight * y).sum(-1) / weight.sum(-1)


# ---------------------------------------------------------------------------------------------------------------------- training
class Tensors(NamedTuple):
    """A run's problems in single precision."""

    P: Tensor  # [S, A, S]
    R: Tensor  # [S, A]
    gamma: float
    bounds: tuple[float, float]  # of every policy's values
    beta: Tensor  # [N, S, A]
    lam: Tensor  # [L, K, N, 1, 1] in the loss' own unit


def tensors(run: Run) -> Tensors:
    """What learning reads of a run."""
    mdp = run.problems[0].mdp
    bounds = float(mdp.R.min() / (1 - mdp.gamma)), float(mdp.R.max() / (1 - mdp.gamma))
    own = single(np.array([[[own_unit(name, lam, p.mean) for p in run.problems] for lam in run.lambdas] for name in run.names]))
    return Tensors(single(mdp.P), single(mdp.R), mdp.gamma, bounds, single(betas(run)), own[..., None, None])


def targets(it: Tensors, names: tuple[str, ...], v: Tensor) -> Tensor:
    """R + gamma E[V] for V [L, K, N, S], -> [L, K, N, S, A]; smaller under normalised weights."""
    y = it.R + it.gamma * torch.einsum("sat,lknt->lknsa", it.P, v)
    if NORMALISED in names:
        n = names.index(NORMALISED)
        y[n] = biased(it.P, it.R[..., None] + it.gamma * v[n][..., None, None, :])
    return y


def pushes(it: Tensors, names: tuple[str, ...], q: Tensor, pi: Tensor, level: Tensor) -> Tensor:
    """Derivative of every member's objective in u, [L, K, N, S, A]; level is E_pi[Q], [L, K, N, S, 1]."""
    v = level[..., 0].clamp(*it.bounds)  # what no policy's value can leave; without it some young networks never return
    y = targets(it, names, v)
    return torch.stack([PUSHES[name](q[n], y[n], it.beta, it.lam[n] * (pi[n] - it.beta)) for n, name in enumerate(names)])


def young(run: Run, widths: tuple[int, ...], seed: int) -> EnsembleMLP:
    """Critics of all members before learning; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EnsembleMLP(int(np.prod(run.shape)), widths)


def train(run: Run, features: Array, hidden: tuple[int, ...], how: Training, seed: int) -> Trained:
    """All losses, lambdas and seeds at once, on exact expectations over uniform states, beta and P.

    Args:
        run: what.
        features: of the states, [S, D].
        hidden: layers of the critic; () is a linear one.
        how: steps and their sizes.
        seed: of the first weights.
    """
    mdp, it, x = run.problems[0].mdp, tensors(run), single(features)
    net = young(run, (x.shape[1], *hidden, mdp.A), seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=how.lr, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, how.steps)
    speed = how.eta / single(run.lambdas)[:, None, None, None]
    log_pi, warm = it.beta.log().expand(*run.shape, mdp.S, mdp.A), how.steps // 4
    marks = np.linspace(warm, how.steps, 9).astype(int).tolist()
    pis, qs = [], []
    for t in range(1, how.steps + 1):
        u = net(x).view(*run.shape, mdp.S, mdp.A)
        with torch.no_grad():
            q, pi = u.exp(), log_pi.exp()
            level = (pi * q).sum(-1, keepdim=True)
            push = pushes(it, run.names, q, pi, level)
        optimizer.zero_grad()
        (u * push).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if t > warm:
            log_pi = (log_pi + speed * q / level).log_softmax(-1)
        if t in marks:
            pis.append(log_pi.exp().double().numpy())
            qs.append(q.double().numpy())
    return Trained(marks, np.stack(pis), np.stack(qs), qs[0])
