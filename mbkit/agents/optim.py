"""Adam (Kingma and Ba 2015, arXiv:1412.6980) for few and small parameters, where torch's own bookkeeping would cost as much as the step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


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
