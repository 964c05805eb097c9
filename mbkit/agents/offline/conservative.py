"""Losses of conservative critics: values of other actions are pushed down, those of the recorded ones up.

Conservative Q-learning (Kumar et al. 2020, arXiv:2006.04779): CQL(H), whose level is the log-integral of exp Q, and CQL(mu), whose level is
the mean of Q under a distribution mu. Letters: K critics, B batch, N samples of a kind, M of all kinds, A dimensions of an action.
"""

import math

import torch
from torch import Tensor

from mbkit.networks.distributions import squashed_log_prob
from mbkit.networks.policy import TanhGaussian

MAX_MULTIPLIER = 1e6  # largest Lagrange multiplier alpha', as in the authors' code


@torch.no_grad()
def sampled_actions(policy: TanhGaussian, obs: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """n actions of the policy at each obs [B, O] as constants, [B, n, A], and their log-densities [B, n]."""
    mean, log_std = policy(obs)
    mean, log_std = mean[:, None], log_std[:, None]
    raw = mean + log_std.exp() * torch.randn(len(obs), n, mean.shape[-1], device=mean.device)
    return raw.tanh(), squashed_log_prob(mean, log_std, raw)


def uniform_actions(like: Tensor) -> tuple[Tensor, Tensor]:
    """Uniform actions of the box in the shape of `like` [B, n, A], and their log-densities -A log 2, [B, n]."""
    action = 2 * torch.rand_like(like) - 1
    return action, torch.full_like(action[..., 0], -like.shape[-1] * math.log(2))


@torch.no_grad()
def proposals(policy: TanhGaussian, obs: Tensor, next_obs: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Appendix F: 3n actions [B, 3n, A], uniform, of pi(.|s) and of pi(.|s'), all to be evaluated at s, and their log-densities [B, 3n]."""
    drawn, log_prob = sampled_actions(policy, torch.cat((obs, next_obs)), n)
    (here, following), (log_here, log_following) = drawn.chunk(2), log_prob.chunk(2)
    uniform, log_uniform = uniform_actions(here)
    return torch.cat((uniform, here, following), 1), torch.cat((log_uniform, log_here, log_following), 1)


def log_sum_exp(q: Tensor, log_density: Tensor) -> Tensor:
    """log sum_m exp(Q_m - log_density_m), [..., M] -> [...]; less log M it estimates the log-integral of exp Q over the actions."""
    return (q - log_density).logsumexp(-1)


def shares(count: Tensor) -> Tensor:
    """Weights [B] in proportion to `count` [B], with sum 1."""
    return count / count.sum()


def conservative_gap(level: Tensor, q: Tensor, real: Tensor | None = None) -> Tensor:
    """Eq. 4: what is pushed down less what is pushed up, the mean of Q of the recorded actions [K, B], [K]; level [K] or [K, B].

    Where `real`, [B], tells recorded rows from those of a model, the recorded ones alone are pushed up (COMBO, arXiv:2102.08363, eq. 2).
    """
    if real is not None:
        return (level if level.dim() < q.dim() else level.mean(-1)) - q @ shares(real)
    return level - q.mean(-1) if level.dim() < q.dim() else (level - q).mean(-1)


def conservative_loss(regression: Tensor, gap: Tensor, weight: Tensor | float) -> Tensor:
    """sum_k mean (Q_k - y)^2 + weight gap_k, of the critics' loss, half the square, and gap [K]. Paper: alpha, here weight = 2 alpha."""
    return 2 * regression + (weight * gap).sum()


def multiplier_loss(log_multiplier: Tensor, gap: Tensor, weight: float, threshold: float) -> Tensor:
    """Minus alpha' (weight gap - threshold), mean over critics, alpha' = exp(log alpha'), clipped: descending it raises alpha'."""
    return -multiplier(log_multiplier) * (weight * gap.detach() - threshold).mean()


def multiplier(log_multiplier: Tensor) -> Tensor:
    """alpha' = exp(log alpha'), at most `MAX_MULTIPLIER`, 0-d."""
    return log_multiplier.exp().clamp(0, MAX_MULTIPLIER)
