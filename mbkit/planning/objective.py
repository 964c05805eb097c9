"""From a dynamics model to an objective: the score of open-loop action sequences.

Letters: M environments, N candidates, H horizon, P particles, B = P M N rows, C proposals, O observation, A action.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbkit.errors import UserError
from mbkit.types import Dynamics, Objective, PolicyFn, Rollout, ValueFn

Propose = Callable[[Tensor], Tensor]  # obs [M, O] -> candidates [M, C, H, A], or int64 [M, C, H]


def environment_of_rows(environments: int, particles: int, candidates: int, device: torch.device) -> Tensor:
    """Environment of each of B = P M N rows, particle-major: (row mod M N) div N, int64 [B]. Does not synchronise with the host."""
    order = torch.arange(environments, device=device).view(1, environments, 1)
    return order.expand(particles, environments, candidates).flatten()


def rows_of(carry: Any, index: Tensor) -> Any:
    """A model's carry whose row i is row index[i] of `carry`: int64 [B] picks rows of every tensor and array, also in tuples and dicts.

    Numbers, strings and None belong to no row and stay. UserError for anything else.
    """
    if isinstance(carry, Tensor):
        return carry[index]
    if isinstance(carry, np.ndarray):
        return carry[index.numpy(force=True)]
    if isinstance(carry, dict):
        return {name: rows_of(value, index) for name, value in carry.items()}
    if isinstance(carry, tuple):
        fields = [rows_of(value, index) for value in carry]
        return type(carry)(*fields) if hasattr(carry, "_fields") else tuple(fields)
    if carry is None or isinstance(carry, (int, float, str)):
        return carry
    raise UserError(
        f"the carry of a dynamics model holds a {type(carry).__name__}, whose rows a plan cannot repeat; "
        "expected tensors, NumPy arrays, numbers, None, and tuples or dicts of them"
    )


def open_loop_return(
    dynamics: Dynamics, obs: Tensor, particles: int, gamma: float = 1.0, terminal_value: ValueFn | None = None
) -> Objective:
    """Objective of plans from obs [M, O]: the mean return of each candidate over P particles (Chua et al. 2018, Algorithm 1).

    It takes actions [M, N, H, A] (discrete: int64 [M, N, H], or [M, N, H, .] where several are taken at once) to scores [M, N]. The model
    encodes every observation once, here; its carry is repeated over candidates and particles. Rows are particle-major: a model that gives
    each block of rows to one member shows every candidate to every member.
    """
    carry, m = dynamics.init(obs), len(obs)

    def objective(actions: Tensor) -> Tensor:
        n = actions.shape[1]
        rows = rows_of(carry, environment_of_rows(m, particles, n, obs.device))
        out = dynamics.rollout(rows, actions.flatten(0, 1).repeat(particles, *(1 for _ in actions.shape[2:])))
        return discounted_return(out, gamma, terminal_value).view(particles, m, n).mean(0).to(obs.dtype)

    return objective


def discounted_return(rollout: Rollout, gamma: float, terminal_value: ValueFn | None = None) -> Tensor:
    """sum_{t<H} gamma^t r_t + gamma^H V(o_H) of each row, [B].

    The reward of the step that terminates counts, nothing after it does; V = `terminal_value` counts where no step terminated.
    """
    horizon, reward = rollout.reward.shape[1], rollout.reward
    ended = rollout.terminated.cumsum(1)
    alive = ended == rollout.terminated  # no step before this one terminated
    reward = torch.where(alive, reward, 0)  # a product would let NaN through
    if gamma != 1:
        reward = reward * gamma ** torch.arange(horizon, device=reward.device, dtype=reward.dtype)
    total = reward.sum(1)
    if terminal_value is not None:
        total = total + torch.where(ended[:, -1] == 0, gamma**horizon * terminal_value(rollout.obs[:, -1]), 0)
    return total


def policy_proposals(policy: PolicyFn, dynamics: Dynamics, candidates: int, horizon: int) -> Propose:
    """Proposals for a planner: the actions of `policy` in the model, obs [M, O] -> [M, C, H, A]; the C differ if the policy samples."""

    def propose(obs: Tensor) -> Tensor:
        rows, actions = environment_of_rows(len(obs), 1, candidates, obs.device), []
        carry, reached = rows_of(dynamics.init(obs), rows), obs[rows]
        for _ in range(horizon):
            actions.append(policy(reached))
            step = dynamics.step(carry, actions[-1])
            carry, reached = step.state, step.obs
        return torch.stack(actions, 1).view(len(obs), candidates, horizon, *actions[0].shape[1:])

    return propose
