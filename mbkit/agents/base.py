"""What every gradient-based agent shares: owned optimizers, and state that goes round with `state_dict`, in place."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from mbkit.errors import UserError
from mbkit.networks.optimizers import FusedAdam, restore_optimizer_
from mbkit.types import State, Targets


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, max_norm: float | None = None) -> Tensor:
    """One step on exactly the parameters this optimizer owns; no other gets a gradient. Returns the detached loss.

    `max_norm`: a longer gradient, over all parameters, is shortened to it.
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    grads = torch.autograd.grad(loss, params)
    if max_norm is not None:
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        torch._foreach_mul_(grads, (max_norm / (norm + 1e-6)).clamp(max=1))
    if isinstance(optimizer, FusedAdam):
        optimizer.descend(grads)
        return loss.detach()
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad
    optimizer.step()
    return loss.detach()


def regression_loss(q: Tensor, y: Targets) -> Tensor:
    """Half the squared error of K critics, q [K, N] against targets [N]: weighted mean over rows, summed over critics.

    The sum keeps a critic's step independent of how many others there are.
    """
    return 0.5 * (y.weight * (q - y.target).square()).mean(1).sum()


class LearningAgent(nn.Module):
    """An agent whose optimizers travel in its `state_dict`; `load_state_dict` keeps every tensor that a captured graph may hold."""

    cycle = 1  # `update` does the same work on every call
    on_policy = False  # whether it learns from its newest transitions only, each of them once
    optimizers: dict[str, FusedAdam]

    def add_optimizers(self, lr: float, **owned: nn.Module | nn.Parameter) -> None:
        """One Adam for each named owner of parameters. `update` goes through `descend` with them."""
        self.optimizers = {} if not hasattr(self, "optimizers") else self.optimizers
        for name, owner in owned.items():
            params = list(owner.parameters()) if isinstance(owner, nn.Module) else [owner]
            self.optimizers[name] = FusedAdam(params, lr)

    def reset(self, mask: Tensor) -> None:
        """Environments bool [M] begin a new episode; most agents remember nothing."""

    def get_extra_state(self) -> State:
        """What `state_dict` holds besides the module's tensors: the optimizers."""
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def set_extra_state(self, state: State) -> None:
        """Inverse of `get_extra_state`, in place."""
        for name, optimizer in self.optimizers.items():
            restore_optimizer_(optimizer, deepcopy(state[name]))  # an optimizer without slots yet would take the given ones for its own


def needs_continuous(name: str, discrete: bool, actions: int) -> None:
    """UserError where an algorithm for boxes meets discrete actions."""
    if discrete:
        raise UserError(f"{name} needs continuous actions, but the environment has {actions} discrete ones")


def needs_discrete(name: str, discrete: bool, dimensions: int) -> None:
    """UserError where an algorithm for choices meets continuous actions."""
    if not discrete:
        raise UserError(f"{name} needs discrete actions, but the environment has continuous ones, of {dimensions} dimensions")
