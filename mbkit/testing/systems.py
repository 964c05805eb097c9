"""A linear system whose rows models are fitted to, and sequences of actions of any kind.

Letters: B rows, H steps, O observation, A action.
"""

import torch
from torch import Tensor

from mbkit.dynamics.network import encode_action
from mbkit.types import EnvSpec, TaskKnowledge, Transition

NOISE = 0.01  # standard deviation of a step
EDGE = 0.3  # episodes terminate where the first number of the next observation is beyond it


def reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """-|next_obs|^2, [..., O] -> [...]."""
    return -next_obs.square().sum(-1)


def termination(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """Whether the first number of the next observation is beyond EDGE, bool [...]."""
    return next_obs[..., 0] > EDGE


KNOWN = TaskKnowledge(reward, termination)


def random_actions(spec: EnvSpec, rows: int, steps: int, seed: int = 0) -> Tensor:
    """Random action sequences [B, H, A] in [-1, 1], or int64 [B, H] or [B, H, P]."""
    draw = torch.Generator().manual_seed(seed)
    if spec.parts:
        sequences = torch.stack([torch.randint(n, (rows, steps), generator=draw) for n in spec.parts], -1)
    elif spec.discrete:
        sequences = torch.randint(spec.action_dim, (rows, steps), generator=draw)
    else:
        sequences = torch.rand(rows, steps, spec.action_dim, generator=draw) * 2 - 1
    return sequences.to(spec.device)


def transitions(spec: EnvSpec, rows: int, seed: int = 0) -> Transition:
    """Transitions [B] of s' = s F + a G + noise, a being one-hot where actions are discrete, with the reward and termination of KNOWN."""
    draw = torch.Generator().manual_seed(0)
    turn = 0.9 * torch.eye(spec.obs_dim) + 0.1 * torch.randn(spec.obs_dim, spec.obs_dim, generator=draw)
    push = 0.5 * torch.randn(spec.action_dim, spec.obs_dim, generator=draw)
    draw.manual_seed(seed + 1)
    obs = torch.randn(rows, spec.obs_dim, generator=draw)
    action = random_actions(spec, rows, 1, seed)[:, 0]
    noise = NOISE * torch.randn(rows, spec.obs_dim, generator=draw)
    next_obs = obs @ turn + encode_action(spec, action).cpu() @ push + noise
    columns = obs, action, reward(obs, obs, next_obs), next_obs, (~termination(obs, obs, next_obs)).float()
    return Transition(*(column.to(spec.device) for column in columns))
