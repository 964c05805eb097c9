"""What the planners share: noise, elites, refit, time. Static shapes and no host sync, so that a whole plan can be one CUDA graph.

Letters: M problems, N candidates, K elites, C proposals, H horizon, A action.
"""

import math
import time
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

WITHIN_TWO_SIGMA = math.erf(math.sqrt(2))


def truncated_normal(like: Tensor, *shape: int) -> Tensor:
    """Standard normal cut at two sigmas, by inverse CDF (a rejection loop would synchronise with the host)."""
    return like.new_empty(shape).uniform_(-WITHIN_TWO_SIGMA, WITHIN_TWO_SIGMA).erfinv_().mul_(math.sqrt(2))


@cache  # for good, since a captured graph may hold the result
def colouring(horizon: int, exponent: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The filter [H, H] that turns white noise into noise of power ~ 1/f^exponent and unit variance at every step; exponent 0: identity.

    Timmer & Koenig 1995, as in iCEM (Pinneri et al. 2020, arXiv:2008.06389). Frequency 0 gets the power of the lowest positive one.
    """
    scale = torch.fft.rfftfreq(horizon, dtype=torch.float64).clamp(min=1 / horizon).pow(-exponent / 2)
    white = torch.eye(horizon, dtype=torch.float64)
    rows = torch.fft.irfft(torch.fft.rfft(white, dim=0) * scale[:, None], n=horizon, dim=0)
    return torch.nn.functional.normalize(rows, dim=1).to(device, dtype)


def coloured_normal(like: Tensor, candidates: int, exponent: float) -> Tensor:
    """Noise [M, N, H, A] for a mean `like` [M, H, A], coloured along the horizon and independent in everything else."""
    m, horizon, dim = like.shape
    white = torch.randn(m, candidates, horizon, dim, dtype=like.dtype, device=like.device)
    return white if exponent == 0 else colouring(horizon, exponent, like.dtype, like.device) @ white


def join(population: Tensor, proposals: Tensor | None) -> Tensor:
    """The population clipped to the box, with the proposals [M, C, H, A] behind it."""
    return (population if proposals is None else torch.cat([population, proposals.nan_to_num()], 1)).clamp(-1, 1)


def top(population: Tensor, score: Tensor, elites: int) -> tuple[Tensor, Tensor]:
    """The best K candidates [M, K, ...] and their scores [M, K], best first; a score that is NaN or infinite counts as -inf."""
    finite = score.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)
    best, index = finite.topk(elites, dim=1)
    index = index.view(*index.shape, *(1 for _ in population.shape[2:]))
    return population.take_along_dim(index, 1), best


def refit(elites: Tensor, score: Tensor, mean: Tensor, var: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance [M, H, A] of the finite-scored elites, blended with the old ones, which stay where no score is finite."""
    finite = (score > -torch.inf).to(elites.dtype)
    weight = (finite / finite.sum(1, keepdim=True).clamp(min=1))[:, :, None, None]
    new_mean = (weight * elites).sum(1)
    new_var = (weight * (elites - new_mean[:, None]).square()).sum(1)
    step = (1 - momentum) * finite[:, :1, None]  # scores are sorted: the first is finite if any is
    return mean.lerp(new_mean, step), var.lerp(new_var, step)


def better(actions: Tensor, score: Tensor, elites: Tensor, elite_score: Tensor) -> tuple[Tensor, Tensor]:
    """The better of the best so far (actions [M, H, A], score [M]) and the best of the new elites."""
    new = elite_score[:, 0] > score
    return torch.where(new.view(-1, *(1 for _ in actions.shape[1:])), elites[:, 0], actions), torch.maximum(score, elite_score[:, 0])


def rounds(iterations: int, budget_ms: float | None, like: Tensor) -> Iterator[int]:
    """Indices 0 .. iterations - 1. Under a budget, those after the first begin only if one as long as the last would end in time."""
    if budget_ms is None:
        yield from range(iterations)
        return
    begin = now = time.perf_counter()
    for i in range(iterations):
        yield i
        if like.is_cuda:
            torch.cuda.synchronize(like.device)
        before, now = now, time.perf_counter()
        if (now - begin + now - before) * 1000 > budget_ms:
            return
