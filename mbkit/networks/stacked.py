"""Networks of several seeds in one: the same operations, with the seeds as a leading dimension.

Letters: S seeds, K critics, B batch, I inputs, D outputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mbkit.networks.mlp import EnsembleMLP
from mbkit.networks.optimizers import FusedAdam


def of_seeds(out: Tensor, x: Tensor) -> Tensor:
    """Outputs [1, B, D] of one network at x [B, I] without their first dimension; of S seeds, [S, B, D] at x [S, B, I], as they are."""
    return out[0] if x.dim() == 2 else out


def with_seeds(x: Tensor) -> Tensor:
    """Rows [B, I] of one network as [1, B, I]; those of S seeds, [S, B, I], as they are."""
    return x[None] if x.dim() == 2 else x


MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam, as torch names them
Stacking = dict[Tensor, int]  # the dimension along which each tensor of a stacked module has its seeds


@torch.no_grad()
def stack_(together: nn.Module, alone: Sequence[nn.Module]) -> Stacking:
    """Make `together`, a copy of one of S modules, hold the tensors of all; theirs become views of its tensors.

    Networks are put side by side, [E, ...] -> [S E, ...]; other floating-point tensors get a last dimension of seeds, [...] -> [..., S].
    Whole numbers are counters, which all seeds share.
    """
    for module in together.modules():
        if hasattr(module, "seeds"):
            module.seeds = len(alone)  # type: ignore[assignment]  # of critics
    networks = tuple(f"{name}." for name, module in together.named_modules() if isinstance(module, EnsembleMLP))
    stacking: Stacking = {}
    for (name, whole), *each in zip(*map(_tensors, (together, *alone)), strict=True):
        parts = [part for _, part in each]
        if whole.is_floating_point():
            stacking[whole] = 0 if name.startswith(networks) else -1
            whole.data = joined([part.data for part in parts], stacking[whole])
        for part, view in zip(parts, views(whole.data, len(parts), stacking.get(whole)), strict=True):
            part.data = view
    return stacking


def joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    """The tensors of S seeds as one; see `stack_`."""
    return torch.cat(list(parts)) if dim == 0 else torch.stack(list(parts), -1)


def views(whole: Tensor, seeds: int, dim: int | None) -> Sequence[Tensor]:
    """The part of each seed in a tensor that `joined` returned; None: all of it."""
    if dim is None:
        return [whole] * seeds
    return whole.chunk(seeds) if dim == 0 else whole.unbind(-1)


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


@torch.no_grad()
def stack_optimizer(together: Sequence[Tensor], alone: Sequence[FusedAdam], stacking: Stacking) -> FusedAdam:
    """Adam of the parameters `together`, with the moments of the optimizers of S seeds, whose moments become views of its own."""
    whole = FusedAdam(together, alone[0].param_groups[0]["lr"])  # the same tensor, where it is one
    rows = list(zip(together, *(optimizer.param_groups[0]["params"] for optimizer in alone), strict=True))
    for p, *parts in rows:
        slots = [optimizer.state.get(part, {}) for optimizer, part in zip(alone, parts, strict=True)]
        whole.state[p] = {"step": slots[0].get("step", torch.zeros((), device=p.device)).clone()}
        for name in MOMENTS:
            each = [slot.get(name, torch.zeros_like(part)) for slot, part in zip(slots, parts, strict=True)]
            whole.state[p][name] = joined(each, stacking[p])
    whole.slots(())  # makes the step counts elements of one tensor
    for p, *parts in rows:
        slots = whole.state[p]
        split = [views(slots[name], len(parts), stacking[p]) for name in MOMENTS]
        for optimizer, part, *moments in zip(alone, parts, *split, strict=True):
            optimizer.state[part] = {"step": slots["step"], **dict(zip(MOMENTS, moments, strict=True))}
            optimizer.forget()
    return whole
