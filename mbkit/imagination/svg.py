"""Stochastic value gradients: a policy that ascends H model steps of soft return and the critics' value behind them.

SVG of Heess et al. 2015, arXiv:1510.09142; with an entropy Amos et al. 2021, arXiv:2008.12775, and DHMBPO of Kubo et al. 2025.
Letters: B rows, H horizon, O observation, A action.
"""

from typing import Any, cast

import torch
from torch import Tensor

from mbkit.errors import UserError
from mbkit.imagination.counters import Counters
from mbkit.types import Differentiable, Dynamics, Pathwise, State

LARGEST = 1e15  # element of a row's gradient beside which no other row would count: its square, and sums of squares, are finite in float32


class ModelValue:
    """A `PolicyObjective`: the value that H model steps and the critics give a policy, differentiated through the model.

    sum_{t<H} gamma^t alive_t (r_t + bonus_t) + gamma^H alive_H (Q(s_H, a_H) + bonus_H), bonus = -alpha log pi. With H = 0 it is the agent's
    objective. A row's value counts until the model terminates it, of which there is no gradient. A row with a model step that is not
    finite counts as 0 and has no gradient, and neither has a model step whose gradient is not finite.

    Args:
        dynamics: the model, over the agent's observations and actions.
        horizon: H.
        max_grad_norm: largest norm of the gradient in the policy's parameters; None: any.

    Raises:
        UserError: a negative horizon, or a model without gradient.
    """

    def __init__(self, dynamics: Dynamics, horizon: int, max_grad_norm: float | None = None) -> None:
        if horizon < 0:
            raise UserError(f"imagination.horizon={horizon}: expected at least 0")
        check_differentiable(dynamics, type(dynamics).__name__)
        self.dynamics, self.horizon, self.max_grad_norm = cast("Differentiable", dynamics), horizon, max_grad_norm
        self.capturable: bool = getattr(dynamics, "capturable", False)
        # rows, model steps that their values count, rows again, and of these the ones that are not finite
        self.counters = Counters("rows", "steps", "asked", "broken")

    def __call__(self, agent: Pathwise, obs: Tensor, first: tuple[Tensor, Tensor], gamma: float) -> Tensor:
        """Values [B] at obs [B, O], with gradient, beginning with the action and bonus in `first`."""
        start, (action, bonus) = obs, first
        carry = begin = self.dynamics.init(obs)
        value, steps = torch.zeros_like(bonus), torch.zeros((), device=obs.device)
        alive = torch.ones_like(bonus, dtype=torch.bool)
        broken = torch.zeros_like(alive)
        for t in range(self.horizon):
            step = self.dynamics.step(finite_gradient(carry), finite_gradient(action), grad=True)
            finite = step.obs.isfinite().all(-1) & step.reward.isfinite()
            steps += alive.sum()
            value = value + gamma**t * torch.where(alive & finite, step.reward + bonus, 0.0)
            broken = broken | (alive & ~finite)
            alive = alive & finite & ~step.terminated
            # what follows an end is a start state again: 0 * nan = nan, in the gradients of all that is computed of a row
            obs, carry = masked(step.obs, alive, start), masked(step.state, alive, begin)
            action, bonus = agent.path_action(obs)
        value = value + gamma**self.horizon * torch.where(alive, agent.path_value(obs, action) + bonus, 0.0)
        self.counters.add(torch.ones_like(bonus).sum(), steps, torch.ones_like(bonus).sum(), broken.sum())
        return torch.where(broken, 0.0, value)

    def state_dict(self) -> State:
        """The counts since they were last read."""
        return self.counters.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`, in place."""
        self.counters.load_state_dict(state)


def check_differentiable(model: object, name: str) -> None:
    """UserError where a model, or its class, has no gradient."""
    if not getattr(model, "differentiable", False):
        raise UserError(
            f"{name} has no gradient, and a policy objective is differentiated through its model; expected e.g. ensemble or local_linear"
        )


def masked(carry: Any, alive: Tensor, start: Any) -> Any:
    """A carry whose rows that are not alive, bool [B], are those of `start`: tensors of one row for each, in tuples and dicts."""
    if isinstance(carry, Tensor):
        return torch.where(alive.view(-1, *[1] * (carry.dim() - 1)), carry, start)
    if isinstance(carry, dict):
        return {key: masked(x, alive, start[key]) for key, x in carry.items()}
    parts = (masked(x, alive, y) for x, y in zip(carry, start, strict=True))
    return type(carry)(*parts) if hasattr(carry, "_fields") else tuple(parts)


def finite_gradient(tree: Any) -> Any:
    """The tensors of a carry, or one tensor [B, ...]; a row of its gradient that is not finite, or beyond LARGEST, becomes 0."""
    if isinstance(tree, Tensor):
        if not tree.requires_grad:
            return tree
        alias = tree.view_as(tree)
        alias.register_hook(finite_rows)  # type: ignore[no-untyped-call]
        return alias
    if isinstance(tree, dict):
        return {key: finite_gradient(x) for key, x in tree.items()}
    parts = (finite_gradient(x) for x in tree)
    return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)


def finite_rows(grad: Tensor) -> Tensor:
    """The gradient [B, ...] without its rows that are not finite, or beyond LARGEST."""
    return torch.where((grad.abs() < LARGEST).flatten(1).all(1).view(-1, *[1] * (grad.dim() - 1)), grad, 0.0)
