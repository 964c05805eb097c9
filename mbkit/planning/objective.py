"""From a dynamics model to an objective: the score of open-loop action sequences.

Letters: M environments, N candidates, H horizon, P particles, B = P M N rows, C proposals, O observation, A action.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mbkit.types import Dynamics, ValueFn

Policy = Callable[[Tensor], Tensor]  # obs [B, O] -> action [B, A], or int64 [B]
Propose = Callable[[Tensor], Tensor]  # obs [M, O] -> candidates [M, C, H, A], or int64 [M, C, H]


def open_loop_return(
    dynamics: Dynamics, obs: Tensor, particles: int, actions: Tensor, terminal_value: ValueFn | None = None, gamma: float = 1.0
) -> Tensor:
    """Mean return over P particles: obs [M, O], actions [M, N, H, A] (discrete: int64 [M, N, H]) -> [M, N]. Chua et al. 2018, Alg. 1.

    The reward of the step that terminates counts, nothing after it does; `terminal_value` of the last observation counts where no step
    terminated. Rows are particle-major: a model that gives each block of rows to one member shows every candidate to every member.
    """
    m, n, horizon = actions.shape[:3]
    state = dynamics.init(obs.repeat_interleave(n, 0).repeat(particles, 1))
    out = dynamics.rollout(state, actions.flatten(0, 1).repeat(particles, *(1 for _ in actions.shape[2:])))
    ended = out.terminated.cumsum(1)
    alive = ended == out.terminated  # nothing terminated before this step
    reward = torch.where(alive, out.reward, 0)  # a product would let NaN through
    if gamma != 1:
        reward = reward * gamma ** torch.arange(horizon, device=reward.device, dtype=reward.dtype)
    total = reward.sum(1)
    if terminal_value is not None:
        total = total + torch.where(ended[:, -1] == 0, gamma**horizon * terminal_value(out.obs[:, -1]), 0)
    return total.view(particles, m, n).mean(0).to(obs.dtype)


def policy_proposals(policy: Policy, dynamics: Dynamics, candidates: int, horizon: int) -> Propose:
    """Candidates for a planner: what `policy` would do in the model, obs [M, O] -> [M, C, H, A]; C differ if it samples."""

    def propose(obs: Tensor) -> Tensor:
        at = obs.repeat_interleave(candidates, 0)
        state, actions = dynamics.init(at), []
        for _ in range(horizon):
            actions.append(policy(at))
            step = dynamics.step(state, actions[-1])
            state, at = step.state, step.obs
        return torch.stack(actions, 1).view(len(obs), candidates, horizon, *actions[0].shape[1:])

    return propose
