"""Adam with gradients as arguments, optimizer states restored in place, and updates of target networks.

Adam: Kingma and Ba 2015, arXiv:1412.6980.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mbkit.networks.adam import AdamKernel, Slots, adam_step


class FusedAdam(AdamKernel):
    """torch's fused Adam with a faster step, `descend(grads)`, and a learning rate that can change; its states are torch's."""

    def __init__(self, params: Sequence[Tensor], lr: float | Tensor) -> None:
        rate = lr if isinstance(lr, Tensor) else learning_rate(lr, params[0].device)
        super().__init__(params, lr=rate, fused=True, capturable=params[0].is_cuda)

    def set_lr(self, lr: float) -> None:
        """Change the learning rate."""
        group = self.param_groups[0]
        group["lr"] = group["lr"].fill_(lr) if isinstance(group["lr"], Tensor) else lr


def learning_rate(lr: float, device: torch.device) -> float | Tensor:
    """The learning rate as Adam takes it: on a GPU a tensor, since a captured graph reads it."""
    return torch.tensor(lr, device=device) if device.type == "cuda" else lr


def descend_together(*steps: tuple[FusedAdam, Sequence[Tensor]]) -> None:
    """`FusedAdam.descend` of several optimizers on the gradients beside them, in one call where they have the same learning rate.

    Of learning rates that are tensors only one and the same counts as such, since their values are on the device.
    """
    groups, rate = [optimizer.param_groups[0] for optimizer, _ in steps], steps[0][0].param_groups[0]["lr"]
    if not all(group["lr"] is rate or (isinstance(rate, float) and group["lr"] == rate) for group in groups):
        for optimizer, grads in steps:
            optimizer.descend(grads)
        return
    kinds = zip(*(optimizer.slots(grads) for optimizer, grads in steps), strict=True)
    slots = Slots(*([x for each in kind for x in each] for kind in kinds))
    params, grads = [p for group in groups for p in group["params"]], [grad for _, grads in steps for grad in grads]
    adam_step(groups[0], params, grads, slots)


@torch.no_grad()
def restore_optimizer_(optimizer: torch.optim.Optimizer, state: dict[str, object]) -> None:
    """Load an optimizer's `state_dict`, writing into its existing tensors where it has them (a captured graph may hold them).

    Where the saved optimizer had made no step yet, the existing tensors become zero, as Adam initialises them. A learning rate that is a
    tensor remains that tensor, and one that is a number remains a number, whatever the saved optimizer's device was.
    """
    existing = {p: dict(slots) for p, slots in optimizer.state.items()}
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate.fill_(group["lr"]) if isinstance(rate, Tensor) else float(group["lr"])
    for p in optimizer.state.keys() - existing.keys():  # torch takes the saved tensors themselves, which may be another optimizer's
        optimizer.state[p] = {key: value.clone() if isinstance(value, Tensor) else value for key, value in optimizer.state[p].items()}
    for p, tensors in existing.items():
        slots = optimizer.state[p]
        for key, tensor in tensors.items():
            if isinstance(tensor, Tensor):
                value = slots.get(key)
                slots[key] = tensor.copy_(value) if isinstance(value, Tensor) else tensor.zero_()


def params_of(module: nn.Module) -> list[Tensor]:
    """All parameters of a module, none of which may be added later: the list is cached, since walking a module is slow."""
    params: list[Tensor] | None = module.__dict__.get("_all_params")
    if params is None:
        params = module.__dict__["_all_params"] = list(module.parameters())
    return params


def trained_of(module: nn.Module) -> list[Tensor]:
    """The parameters of a module that are learned; the list is cached as that of `params_of`."""
    params: list[Tensor] | None = module.__dict__.get("_trained_params")
    if params is None:
        params = module.__dict__["_trained_params"] = [p for p in params_of(module) if p.requires_grad]
    return params


@torch.no_grad()
def polyak_(target: nn.Module, online: nn.Module, tau: float) -> None:
    """target <- (1 - tau) target + tau online, over all parameters."""
    torch._foreach_lerp_(params_of(target), params_of(online), tau)


@torch.no_grad()
def copy_when_(target: nn.Module, online: nn.Module, due: Tensor) -> None:
    """target <- online where the 0-d `due` is true, without synchronising with the device."""
    params = params_of(target)
    weights = [due.to(params[0].dtype)] * len(params)  # weight 1 copies to the last digit
    torch._foreach_lerp_(params, params_of(online), weights)  # type: ignore[call-overload,arg-type]
