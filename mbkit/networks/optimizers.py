"""Adam with less bookkeeping, optimizer states restored in place, and target networks that follow.

Adam: Kingma and Ba 2015, arXiv:1412.6980.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class FusedAdam(torch.optim.Adam):
    """torch's fused Adam, whose `descend` gathers the kernel's lists once and not at every step; states and their loading are torch's."""

    _slots: tuple[list[Tensor], list[Tensor], list[Tensor]] | None = None  # mean, mean square and count of every parameter

    def __init__(self, params: Sequence[Tensor], lr: float) -> None:
        on_gpu = params[0].is_cuda  # there a captured graph holds the step size, so it is a tensor
        super().__init__(params, lr=torch.tensor(lr, device=params[0].device) if on_gpu else lr, fused=True, capturable=on_gpu)

    def set_lr(self, lr: float) -> None:
        """The step size from now on."""
        group = self.param_groups[0]
        group["lr"] = group["lr"].fill_(lr) if isinstance(group["lr"], Tensor) else lr

    @property
    def params(self) -> list[Tensor]:
        """The parameters it owns, one group."""
        owned: list[Tensor] = self.param_groups[0]["params"]
        return owned

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As torch's; the lists are gathered anew."""
        super().load_state_dict(state)
        self._slots = None

    @torch.no_grad()
    def descend(self, grads: Sequence[Tensor]) -> None:
        """One step on these gradients, one for each parameter; what `step` does with `.grad`."""
        group = self.param_groups[0]
        if self._slots is None:
            if not self.state:  # torch makes the slots in its first step
                for p, g in zip(self.params, grads, strict=True):
                    p.grad = g
                self.step()
                self.zero_grad()
                return
            slots = [self.state[p] for p in self.params]
            self._slots = ([s["exp_avg"] for s in slots], [s["exp_avg_sq"] for s in slots], [s["step"] for s in slots])
        mean, square, count = self._slots
        torch._foreach_add_(count, 1)
        torch._fused_adam_(
            self.params,
            list(grads),
            mean,
            square,
            [],
            count,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )


@torch.no_grad()
def restore_optimizer_(optimizer: torch.optim.Optimizer, state: dict[str, object]) -> None:
    """Load an optimizer's `state_dict`, writing into its existing tensors where it has them (a captured graph may hold them).

    Where the saved optimizer had made no step yet, the existing tensors become zero, which is what Adam begins with.
    """
    held = {p: dict(slots) for p, slots in optimizer.state.items()}
    optimizer.load_state_dict(state)
    for p, before in held.items():
        slots = optimizer.state[p]
        for key, old in before.items():
            if isinstance(old, Tensor):
                value = slots.get(key)
                slots[key] = old.copy_(value) if isinstance(value, Tensor) else old.zero_()


def params_of(module: nn.Module) -> list[Tensor]:
    """All parameters; the list is kept, since walking a module takes longer than averaging a small one. None may be added later."""
    found: list[Tensor] | None = module.__dict__.get("_all_params")
    if found is None:
        found = module.__dict__["_all_params"] = list(module.parameters())
    return found


@torch.no_grad()
def polyak_(target: nn.Module, online: nn.Module, tau: float) -> None:
    """target <- (1 - tau) target + tau online, over all parameters."""
    torch._foreach_lerp_(params_of(target), params_of(online), tau)


@torch.no_grad()
def copy_when_(target: nn.Module, online: nn.Module, due: Tensor) -> None:
    """target <- online where the 0-d `due` is true, without asking the device whether it is."""
    mine = params_of(target)
    weights = [due.to(mine[0].dtype)] * len(mine)  # 1 is a copy, to the last digit
    torch._foreach_lerp_(mine, params_of(online), weights)  # type: ignore[call-overload,arg-type]
