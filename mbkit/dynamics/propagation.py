"""How rows of imagined states meet the members of an ensemble (PETS, Chua et al. 2018, arXiv:1805.12114, section 5).

Letters: E members that are used, B rows, R rows per member, I input, D prediction. `ts_inf` keeps a row with one member for good, `ts1`
deals the rows out afresh every step in equal shares, `expectation` averages the members' means, `moment_matching` samples the Gaussian
that has the mixture's moments (Paper: the moments of one candidate's particles; here: of the members for each row, since a model knows no
particles).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mbkit.types import RewardFn, TerminationFn

Propagation = Literal["ts_inf", "ts1", "expectation", "moment_matching"]


class Gaussian(NamedTuple):
    """What one row may become: mean [B, D]; std [B, D] or None where nothing is random; logit [B] of termination or None."""

    mean: Tensor
    std: Tensor | None
    logit: Tensor | None

    def map(self, change: Callable[[Tensor], Tensor]) -> "Gaussian":
        """The same change of layout for every part."""
        return Gaussian(
            change(self.mean), None if self.std is None else change(self.std), None if self.logit is None else change(self.logit)
        )

    def sample(self) -> Tensor:
        """[B, D], from the global generator."""
        return self.mean if self.std is None else torch.addcmul(self.mean, self.std, torch.randn_like(self.mean))


class Blocks(NamedTuple):
    """B rows in E contiguous blocks whose sizes differ by at most one, padded to R = ceil(B / E) rows each."""

    source: Tensor  # [E R] which row fills a place; padding repeats a neighbour
    place: Tensor  # [B] where a row is found


def blocks(rows: int, members: int, device: torch.device) -> Blocks | None:
    """The places of B rows, row r with member floor(r E / B); None where E divides B and nothing needs to move."""
    if rows % members == 0:
        return None
    size = -(-rows // members)
    first = -(-torch.arange(members, device=device) * rows // members)  # ceil(e B / E), the first row of each block
    source = (first[:, None] + torch.arange(size, device=device)).clamp(max=rows - 1).flatten()
    row = torch.arange(rows, device=device)
    member = row * members // rows
    return Blocks(source, member * size + row - first[member])


def deal(rows: int, members: int, device: torch.device) -> Blocks:
    """`blocks` of a random order of the rows: equal shares, drawn from the global generator."""
    # sorting random numbers can be captured in a CUDA graph; randperm is 4 times faster on a CPU
    order = torch.rand(rows, device=device).argsort() if device.type == "cuda" else torch.randperm(rows, device=device)
    place = torch.empty_like(order)
    fixed = blocks(rows, members, device)
    if fixed is None:
        return Blocks(order, place.index_copy_(0, order, torch.arange(rows, device=device)))
    return Blocks(order[fixed.source], place.index_copy_(0, order, fixed.place))


def mixture(each: Gaussian, sampled: bool) -> Gaussian:
    """Collapse members [E, B, D] to one Gaussian [B, D] with the mixture's moments, or, if not `sampled`, to its mean alone."""
    mean = each.mean.mean(0)
    logit = None if each.logit is None else each.logit.sigmoid().mean(0).logit()
    if not sampled:
        return Gaussian(mean, None, logit)
    var = each.mean.var(0, correction=0)
    if each.std is not None:
        var += each.std.square().mean(0)
    return Gaussian(mean, var.sqrt_(), logit)


def soft_bounded_logvar(raw: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Log-variance kept softly between two bounds: high - softplus(high - raw), then low + softplus(. - low) (PETS, appendix A.1)."""
    raw = high - F.softplus(high - raw)
    return low + F.softplus(raw - low)


def soft_bounded_std(raw: Tensor, var_low: Tensor, var_high: Tensor) -> Tensor:
    """The square root of exp(`soft_bounded_logvar`) in closed form: the variance is var_low + 1 / (1 / var_high + exp(-raw))."""
    return raw.neg().exp_().add_(var_high.reciprocal()).reciprocal_().add_(var_low).sqrt_()


def judge(path: Tensor, action: Tensor, reward: RewardFn | Tensor, termination: TerminationFn | Tensor) -> tuple[Tensor, Tensor]:
    """Reward and termination [H, B] of a path [H + 1, B, O] under actions [H, B, A]: known functions of all steps at once, or as given."""
    before, after, taken, shape = path[:-1].flatten(0, 1), path[1:].flatten(0, 1), action.flatten(0, 1), action.shape[:2]
    if not isinstance(reward, Tensor):
        reward = reward(before, taken, after).view(shape)
    if not isinstance(termination, Tensor):
        termination = termination(before, taken, after).view(shape)
    return reward, termination
