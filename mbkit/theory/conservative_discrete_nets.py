"""CQL(H) and SARSA networks with discrete actions, trained on all rows, many problems and lambdas as members of one ensemble.

Letters: L lambdas, N seeds, S states, A actions, E members, F features.
"""

from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from mbkit.networks.mlp import EnsembleMLP
from mbkit.networks.optimizers import polyak_
from mbkit.tabular.mdp import Array
from mbkit.tabular.one_step import improve
from mbkit.theory.offline_problems import OfflineProblem

HIDDEN, LR, TAU = (64, 64), 3e-3, 0.02  # hidden layer widths, Adam learning rate, Polyak coefficient of the target networks


def network_loss(q: Tensor, y: Tensor, n: Tensor, lam: Tensor) -> Tensor:
    """CQL(H) loss on all rows, summed over members: q, y, n [E, S, A], n sums to 1 for each member, lam [E]; lambda = 0: regression."""
    fit = 0.5 * (n * (q - y) ** 2).sum((1, 2))
    penalty = (n.sum(-1) * q.logsumexp(-1)).sum(1) - (n * q).sum((1, 2))
    return (fit + lam * penalty).sum()


def train(data: OfflineProblem, lams: Array, steps: int, seed: int) -> tuple[Array, Array]:
    """Q of CQL(H) networks [L, N, S, A] and SARSA networks [N, S, A], trained at once by full-batch Adam with target networks."""
    E, N = len(lams) + 1, len(data.truth)
    tables = data.tables

    def members(x: Array) -> Tensor:
        return torch.tensor(np.tile(x, (E, *[1] * (x.ndim - 1))), dtype=torch.float32)

    P, R, beta, inputs = members(tables.P), members(tables.R), members(data.beta), members(data.inputs)
    n = members(data.n / data.n.sum((1, 2), keepdims=True))
    alive = members((~tables.terminal).astype(float))
    lam = torch.tensor(np.repeat([0.0, *lams], N), dtype=torch.float32)
    sarsa = (lam == 0)[:, None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = EnsembleMLP(E * N, (data.inputs.shape[-1], *HIDDEN, data.beta.shape[-1]))
    level = (n * R).sum((1, 2)) / (1 - tables.gamma)
    with torch.no_grad():
        net.bias[-1] += level[:, None, None]  # initial values: the return of the data's mean reward, which saves half the steps
    target, optimizer = deepcopy(net).requires_grad_(False), torch.optim.Adam(net.parameters(), LR, foreach=True)
    for _ in range(steps):
        next_q = target(inputs)
        v = alive * torch.where(sarsa, (beta * next_q).sum(-1), next_q.amax(-1))
        y = R + tables.gamma * (P.flatten(1, 2) @ v[..., None]).view_as(R)
        optimizer.zero_grad()
        network_loss(net(inputs), y, n, lam).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        polyak_(target, net, TAU)
    with torch.no_grad():
        q = net(inputs).double().numpy().reshape(E, N, *data.beta.shape[1:])
    return q[1:], q[0]


def network_policies(data: OfflineProblem, lams: Array, steps: int, seed: int) -> tuple[Array, Array]:
    """Policies softmax(Q) of the CQL networks [L, N, S, A] and beta Q / <beta, Q> of the SARSA networks [N, S, A]."""
    q, sarsa = train(data, lams, steps, seed)
    flat = sarsa.reshape(-1, sarsa.shape[-1])
    one_step = improve(data.beta.reshape(flat.shape), np.maximum(flat, 1e-6)).reshape(sarsa.shape)  # Q^beta > 0, because rewards are
    return np.asarray(torch.tensor(q).softmax(-1).numpy()), one_step
