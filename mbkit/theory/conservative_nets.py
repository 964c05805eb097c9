"""CQL(H) and one-step RL with continuous actions: data, networks, losses and training of many runs as members of one ensemble.

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

from mbkit.agents.base import descend
from mbkit.agents.offline.conservative import conservative_gap, log_sum_exp
from mbkit.networks.distributions import gaussian_kl, log_volume, squashed_log_prob, unsquash
from mbkit.networks.mlp import EnsembleMLP
from mbkit.networks.optimizers import polyak_
from mbkit.tabular.mdp import Array
from mbkit.theory.plants import KINDS, Plant, Rows, record

HIDDEN = (48, 48)  # hidden layer widths of all networks
LR, TAU = 2e-3, 0.02  # Adam learning rate; Polyak coefficient of the target critics
BATCH, SAMPLES = 64, 4  # batch size of each member; M samples from the actor and M uniform ones
MAX_MEAN, LOG_STD = 3.0, (-3.0, 0.5)  # ranges before squashing: largest |mean|, log standard deviation
MAX_ACTION = 0.99  # largest |action| that is unsquashed; actions of 1 would be infinite
TEMPERATURE = 1.0  # temperature of the AWR-type weights
MAX_WEIGHT = 20.0  # largest AWR-type weight, as in arXiv:1910.00177


class DataSets(NamedTuple):
    """D data sets of one problem as tensors [D, N, ...]; rewards are > 0 after `shift` is added."""

    rows: Rows
    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    next_action: Tensor
    shift: Array  # [D] minus the smallest reward, plus a hundredth of the range of the rewards

    def batch(self, rng: np.random.Generator, members: int, size: int = BATCH) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Batch for E = k D members; members with the same data set get the same rows."""
        D, N = self.reward.shape
        index = torch.from_numpy(rng.integers(N, size=(D, size)))
        data_set = torch.arange(D)[:, None]

        def take(x: Tensor) -> Tensor:
            rows = x[data_set, index]
            return rows.repeat(members // D, *[1] * (rows.dim() - 1))

        return take(self.obs), take(self.action), take(self.reward), take(self.next_obs), take(self.next_action)


def gather(plant: Plant, seeds: Sequence[int], rows: int) -> DataSets:
    """Data sets of every kind and seed, with the seed as the last index."""
    sets = [record(plant, kind, np.random.default_rng([seed, *kind.encode()]), rows) for kind in KINDS for seed in seeds]
    stacked = Rows(*(np.stack(column) for column in zip(*sets, strict=True)))
    low, high = stacked.reward.min(1), stacked.reward.max(1)
    obs, action, reward, next_obs, next_action = (torch.tensor(x, dtype=torch.float32) for x in stacked)
    return DataSets(stacked, obs, action, reward, next_obs, next_action, 0.01 * (high - low) - low)


# --------------------------------------------------------------------------------------------------------------------- networks
class Gaussians(torch.nn.Module):
    """E policies tanh(N(mean, std^2)); the KL divergence of two is that of the Gaussians, because tanh is one to one."""

    def __init__(self, members: int, obs_dim: int, action_dim: int) -> None:
        super().__init__()
        self.net = EnsembleMLP(members, (obs_dim, *HIDDEN, 2 * action_dim))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before squashing, [E, B, A]."""
        mean, log_std = self.net(obs).chunk(2, -1)
        low, high = LOG_STD
        return MAX_MEAN * mean.tanh(), low + (high - low) * log_std.sigmoid()


def value(net: EnsembleMLP, obs: Tensor, action: Tensor, fixed: bool = False) -> Tensor:
    """Q of E critics for obs [E, B, O], action [E, B, A] -> [E, B]."""
    q: Tensor = net(torch.cat((obs, action), -1), fixed)
    return q.squeeze(-1)


def log_integral_exp(q: Tensor, log_proposal: Tensor) -> Tensor:
    """Log-integral of exp Q over [-1, 1]^A by importance sampling, q [E, B, M] -> [E, B]."""
    return log_sum_exp(q, log_proposal) - log(q.shape[-1])


def critic_loss(q: Tensor, y: Tensor, level: Tensor, lam: Tensor) -> Tensor:
    """CQL loss 1/2 (Q - y)^2 + lambda (log int exp Q - Q), summed over members: q, y, level [E, B], lam [E]; lambda = 0 is SARSA."""
    return (0.5 * ((q - y) ** 2).mean(1) + lam * conservative_gap(level, q)).sum()


class TrainedNetworks(NamedTuple):
    """Networks of one problem: critics and actors of CQL (L D members), critics of SARSA (D)."""

    critics: EnsembleMLP  # (L + 1) D members, the first D of SARSA
    actors: Gaussians  # the same; the first D are unused
    gaps: Array  # [L, D] log int exp Q - Q(data), mean of the last tenth of the updates
    finite: bool  # whether all parameters are finite


def train(data: DataSets, lams: Array, gamma: float, steps: int, seed: int) -> TrainedNetworks:
    """Train all members at once, with one update of the critics and one of the actors per step."""
    D, A = len(data.reward), data.action.shape[-1]
    lam = torch.tensor(np.repeat([0.0, *lams], D), dtype=torch.float32)
    E, sarsa = len(lam), (lam == 0)[:, None]
    critics = EnsembleMLP(E, (data.obs.shape[-1] + A, *HIDDEN, 1))
    actors = Gaussians(E, data.obs.shape[-1], A)
    with torch.no_grad():  # initial values: the return of the data's mean reward
        critics.bias[-1] += (data.reward.mean(1) / (1 - gamma)).repeat(len(lams) + 1)[:, None, None]
    target = deepcopy(critics).requires_grad_(False)
    optimizers = torch.optim.Adam(critics.parameters(), LR, foreach=True), torch.optim.Adam(actors.parameters(), LR, foreach=True)
    rng, gaps = np.random.default_rng(seed), torch.zeros(E)
    for step in range(steps):
        obs, action, reward, next_obs, next_action = data.batch(rng, E)
        with torch.no_grad():
            sampled = sample(*actors(next_obs))
            y = reward + gamma * value(target, next_obs, torch.where(sarsa[..., None], next_action, sampled))
        mean, log_std = actors(obs)
        raw = mean[:, :, None] + log_std.exp()[:, :, None] * torch.randn(E, BATCH, SAMPLES, A)
        with torch.no_grad():
            proposals = torch.cat((raw, unsquash(2 * torch.rand_like(raw) - 1, MAX_ACTION)), 2)  # [E, B, 2 M, A]
            density = squashed_log_prob(mean[:, :, None], log_std[:, :, None], proposals)
            mixture = torch.logaddexp(density, torch.full_like(density, -A * log(2))) - log(2)  # mixture proposal: bounded weights
            actions = torch.cat((action[:, :, None], proposals.tanh()), 2).flatten(1, 2)
        q = value(critics, obs.repeat_interleave(1 + 2 * SAMPLES, 1), actions).view(E, BATCH, -1)
        level = log_integral_exp(q[..., 1:], mixture)
        descend(optimizers[0], critic_loss(q[..., 0], y, level, lam))
        actor_q = value(critics, obs, raw[:, :, 0].tanh(), fixed=True)
        entropy = (log_std + log_volume(raw[:, :, 0])).sum(-1)
        descend(optimizers[1], -(actor_q + entropy).mean(1).sum())  # the squashed Gaussian nearest to exp Q
        polyak_(target, critics, TAU)
        if step >= 0.9 * steps:
            gaps += conservative_gap(level, q[..., 0]).detach()
    count = steps - int(np.ceil(0.9 * steps))
    finite = all(bool(p.isfinite().all()) for p in (*critics.parameters(), *actors.parameters()))
    return TrainedNetworks(critics, actors, (gaps / count).double().numpy().reshape(-1, D)[1:], finite)


def members(net: EnsembleMLP, which: slice) -> Callable[[Tensor, Tensor], Tensor]:
    """Q function of some members with fixed weights."""
    return lambda obs, action: net(torch.cat((obs, action), -1), fixed=True, members=which).squeeze(-1)


def one_step_actors(data: DataSets, critics: EnsembleMLP, gamma: float, steps: int, seed: int) -> tuple[Gaussians, Gaussians]:
    """One-step actors (cloning and AWR-type: 2 D members; log-Q: D members) for the SARSA critics, the first D members of `critics`."""
    D, width, A = len(data.reward), data.obs.shape[-1], data.action.shape[-1]
    q, rng = members(critics, slice(0, D)), np.random.default_rng(seed)
    regression, log_q = Gaussians(2 * D, width, A), Gaussians(D, width, A)
    optimizers = torch.optim.Adam(regression.parameters(), LR, foreach=True), torch.optim.Adam(log_q.parameters(), LR, foreach=True)
    q_shift = torch.tensor(data.shift / (1 - gamma), dtype=torch.float32)[:, None]  # shift of Q that the reward shift causes
    for step in range(2 * steps):  # the log-Q actor needs a cloned policy as its reference
        obs, action, *_ = data.batch(rng, 2 * D)
        mean, log_std = regression(obs)
        if step < steps:
            with torch.no_grad():
                cloned = mean[:D], log_std[:D]
                sampled_q = torch.stack([q(obs[:D], sample(*cloned)) for _ in range(SAMPLES)])
                weight = ((q(obs[:D], action[:D]) - sampled_q.mean(0)) / TEMPERATURE).exp().clamp(max=MAX_WEIGHT)
                weight = torch.cat((torch.ones_like(weight), weight / weight.mean(1, keepdim=True)))
            descend(optimizers[0], -(weight * squashed_log_prob(mean, log_std, unsquash(action, MAX_ACTION))).mean(1).sum())
            continue
        actor_mean, actor_log_std = log_q(obs[:D])
        gain = (q(obs[:D], sample(actor_mean, actor_log_std)) + q_shift).clamp(min=1e-3 * float(q_shift.max())).log()
        descend(optimizers[1], (gaussian_kl(actor_mean, actor_log_std, mean[:D].detach(), log_std[:D].detach()) - gain).mean(1).sum())
    return regression, log_q


def sample(mean: Tensor, log_std: Tensor) -> Tensor:
    """Sample a reparameterised action."""
    return (mean + log_std.exp() * torch.randn_like(mean)).tanh()
