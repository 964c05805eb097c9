"""CQL(H) and one-step RL with continuous actions, many runs as members of one ensemble: data, networks, losses, training.

CQL (arXiv:2006.04779, appendix F): log-sum-exp by importance sampling, actor of temperature 1. One-step RL: SARSA's Q^beta, then regression
weighted by exp(A / temperature) (AWR-type, arXiv:1910.00177), or max E_pi[log Q] - KL(pi || beta) (arXiv:2307.12968).
Letters: E members, L lambdas, D data sets, B batch, M samples of actions, O observation, A action.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from math import log
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mbkit.networks.mlp import EnsembleMLP
from mbkit.networks.optimizers import polyak_
from mbkit.tabular.mdp import Array
from mbkit.theory.plants import KINDS, Plant, Rows, record

HIDDEN = (48, 48)  # widths of all networks
LR, TAU = 2e-3, 0.02  # Adam's step; weight of the new parameters in the slow critics
BATCH, SAMPLES = 64, 4  # rows of an update for each member; M, drawn from the actor and as many uniformly
WIDEST, LOG_STD = 3.0, (-3.0, 0.5)  # ranges before the squashing: |mean| at most, log standard deviation
EDGE = 0.99  # |action| at most where it is unsquashed; recorded actions of 1 would be infinite
TEMPERATURE = 1.0  # of the AWR-type weights
HEAVIEST = 20.0  # AWR-type weight at most, as in arXiv:1910.00177


class Data(NamedTuple):
    """D data sets of one problem as tensors [D, N, ...]; rewards > 0 after `shift` is added to them."""

    rows: Rows
    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    next_action: Tensor
    shift: Array  # [D] least that makes every reward positive, and a hundredth of their range

    def batch(self, rng: np.random.Generator, members: int, size: int = BATCH) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Rows for E = k D members; members of one data set see the same rows."""
        D, N = self.reward.shape
        pick = torch.from_numpy(rng.integers(N, size=(D, size)))
        own = torch.arange(D)[:, None]

        def take(x: Tensor) -> Tensor:
            rows = x[own, pick]
            return rows.repeat(members // D, *[1] * (rows.dim() - 1))

        return take(self.obs), take(self.action), take(self.reward), take(self.next_obs), take(self.next_action)


def gather(plant: Plant, seeds: Sequence[int], rows: int) -> Data:
    """Kinds x seeds data sets, the seed last."""
    sets = [record(plant, kind, np.random.default_rng([seed, *kind.encode()]), rows) for kind in KINDS for seed in seeds]
    stacked = Rows(*(np.stack(column) for column in zip(*sets, strict=True)))
    low, high = stacked.reward.min(1), stacked.reward.max(1)
    obs, action, reward, next_obs, next_action = (torch.tensor(x, dtype=torch.float32) for x in stacked)
    return Data(stacked, obs, action, reward, next_obs, next_action, 0.01 * (high - low) - low)


# -------------------------------------------------------------------------------------------------------------------- networks
class Gaussians(torch.nn.Module):
    """E policies tanh(N(mean, std^2)). The KL of two of them is that of the Gaussians, as tanh is one to one."""

    def __init__(self, members: int, obs_dim: int, action_dim: int) -> None:
        super().__init__()
        self.net = EnsembleMLP(members, (obs_dim, *HIDDEN, 2 * action_dim))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before the squashing, [E, B, A]."""
        mean, log_std = self.net(obs).chunk(2, -1)
        low, high = LOG_STD
        return WIDEST * mean.tanh(), low + (high - low) * log_std.sigmoid()


def log_volume(raw: Tensor) -> Tensor:
    """Log of d tanh(u) / du = 1 - tanh(u)^2, without cancellation."""
    return 2 * (log(2) - raw - torch.nn.functional.softplus(-2 * raw))


def log_density(mean: Tensor, log_std: Tensor, raw: Tensor) -> Tensor:
    """Log-density of the action tanh(raw), summed over its dimensions."""
    normal = -0.5 * ((raw - mean) * (-log_std).exp()) ** 2 - log_std - 0.5 * log(2 * torch.pi)
    return (normal - log_volume(raw)).sum(-1)


def unsquash(action: Tensor) -> Tensor:
    """The u of an action tanh(u)."""
    return action.clamp(-EDGE, EDGE).atanh()


def gaussian_kl(mean: Tensor, log_std: Tensor, other: Tensor, other_log_std: Tensor) -> Tensor:
    """KL(N(mean) || N(other)), summed over the dimensions of the action."""
    ratio = (2 * (log_std - other_log_std)).exp()
    return 0.5 * (ratio + ((mean - other) * (-other_log_std).exp()) ** 2 - 1 - 2 * (log_std - other_log_std)).sum(-1)


def value(net: EnsembleMLP, obs: Tensor, action: Tensor, fixed: bool = False) -> Tensor:
    """Q of E critics, obs [E, B, O], action [E, B, A] -> [E, B]."""
    q: Tensor = net(torch.cat((obs, action), -1), fixed)
    return q.squeeze(-1)


def push_down(q: Tensor, log_proposal: Tensor) -> Tensor:
    """Log of the integral of exp Q over [-1, 1]^A by importance sampling, q [E, B, M] -> [E, B]."""
    return (q - log_proposal).logsumexp(-1) - log(q.shape[-1])


def critic_loss(q: Tensor, y: Tensor, level: Tensor, lam: Tensor) -> Tensor:
    """1/2 (Q - y)^2 + lambda (log int exp Q - Q) over the batch, summed over members: q, y, level [E, B], lam [E]; 0 is SARSA."""
    return (0.5 * ((q - y) ** 2).mean(1) + lam * (level - q).mean(1)).sum()


class Trained(NamedTuple):
    """Networks of one problem: critics and actors of CQL (L D members), SARSA's critics (D)."""

    critics: EnsembleMLP  # (L + 1) D members, SARSA's first
    actors: Gaussians  # the same; the first D mean nothing
    gaps: Array  # [L, D] log int exp Q - Q(data), means of the last updates
    finite: bool


def train(data: Data, lams: Array, gamma: float, steps: int, seed: int) -> Trained:
    """All at once: each update one of the critics, one of the actors."""
    D, A = len(data.reward), data.action.shape[-1]
    lam = torch.tensor(np.repeat([0.0, *lams], D), dtype=torch.float32)
    E, sarsa = len(lam), (lam == 0)[:, None]
    critics = EnsembleMLP(E, (data.obs.shape[-1] + A, *HIDDEN, 1))
    actors = Gaussians(E, data.obs.shape[-1], A)
    with torch.no_grad():  # values begin at the data's mean reward for ever
        critics.bias[-1] += (data.reward.mean(1) / (1 - gamma)).repeat(len(lams) + 1)[:, None, None]
    slow = deepcopy(critics).requires_grad_(False)
    descents = torch.optim.Adam(critics.parameters(), LR, foreach=True), torch.optim.Adam(actors.parameters(), LR, foreach=True)
    rng, gaps = np.random.default_rng(seed), torch.zeros(E)
    for step in range(steps):
        obs, action, reward, next_obs, next_action = data.batch(rng, E)
        with torch.no_grad():
            ahead = sample(*actors(next_obs))
            y = reward + gamma * value(slow, next_obs, torch.where(sarsa[..., None], next_action, ahead))
        mean, log_std = actors(obs)
        raw = mean[:, :, None] + log_std.exp()[:, :, None] * torch.randn(E, BATCH, SAMPLES, A)
        with torch.no_grad():
            proposals = torch.cat((raw, unsquash(2 * torch.rand_like(raw) - 1)), 2)  # [E, B, 2 M, A]
            own = log_density(mean[:, :, None], log_std[:, :, None], proposals)
            mixture = torch.logaddexp(own, torch.full_like(own, -A * log(2))) - log(2)  # of both kinds: weights stay bounded
            every = torch.cat((action[:, :, None], proposals.tanh()), 2).flatten(1, 2)
        q = value(critics, obs.repeat_interleave(1 + 2 * SAMPLES, 1), every).view(E, BATCH, -1)
        level = push_down(q[..., 1:], mixture)
        descend(descents[0], critic_loss(q[..., 0], y, level, lam))
        climbed = value(critics, obs, raw[:, :, 0].tanh(), fixed=True)
        entropy = (log_std + log_volume(raw[:, :, 0])).sum(-1)
        descend(descents[1], -(climbed + entropy).mean(1).sum())  # the squashed Gaussian nearest to exp Q
        polyak_(slow, critics, TAU)
        if step >= 0.9 * steps:
            gaps += (level - q[..., 0]).detach().mean(1)
    count = steps - int(np.ceil(0.9 * steps))
    finite = all(bool(p.isfinite().all()) for p in (*critics.parameters(), *actors.parameters()))
    return Trained(critics, actors, (gaps / count).double().numpy().reshape(-1, D)[1:], finite)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of Adam."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def members(net: EnsembleMLP, which: slice) -> Callable[[Tensor, Tensor], Tensor]:
    """Q of some members as constants in the weights."""
    return lambda obs, action: net.relu(torch.cat((obs, action), -1), which, fixed=True).squeeze(-1)


def one_step_actors(data: Data, critics: EnsembleMLP, gamma: float, steps: int, seed: int) -> tuple[Gaussians, Gaussians]:
    """(cloning, then AWR-type: 2 D members; log-Q: D members), all from SARSA's critics, the first D members of `critics`."""
    D, width, A = len(data.reward), data.obs.shape[-1], data.action.shape[-1]
    q, rng = members(critics, slice(0, D)), np.random.default_rng(seed)
    regressed, climbed = Gaussians(2 * D, width, A), Gaussians(D, width, A)
    descents = torch.optim.Adam(regressed.parameters(), LR, foreach=True), torch.optim.Adam(climbed.parameters(), LR, foreach=True)
    lift = torch.tensor(data.shift / (1 - gamma), dtype=torch.float32)[:, None]  # a shift of rewards shifts every Q by this
    for step in range(2 * steps):  # log-Q needs a cloned policy to stay near to
        obs, action, *_ = data.batch(rng, 2 * D)
        mean, log_std = regressed(obs)
        if step < steps:
            with torch.no_grad():
                cloned = mean[:D], log_std[:D]
                others = torch.stack([q(obs[:D], sample(*cloned)) for _ in range(SAMPLES)])
                weight = ((q(obs[:D], action[:D]) - others.mean(0)) / TEMPERATURE).exp().clamp(max=HEAVIEST)
                weight = torch.cat((torch.ones_like(weight), weight / weight.mean(1, keepdim=True)))
            descend(descents[0], -(weight * log_density(mean, log_std, unsquash(action))).mean(1).sum())
            continue
        own, own_log_std = climbed(obs[:D])
        gain = (q(obs[:D], sample(own, own_log_std)) + lift).clamp(min=1e-3 * float(lift.max())).log()
        descend(descents[1], (gaussian_kl(own, own_log_std, mean[:D].detach(), log_std[:D].detach()) - gain).mean(1).sum())
    return regressed, climbed


def sample(mean: Tensor, log_std: Tensor) -> Tensor:
    """A reparameterised action."""
    return (mean + log_std.exp() * torch.randn_like(mean)).tanh()
