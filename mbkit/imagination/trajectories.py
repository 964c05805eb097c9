"""Whole episodes in a model, for learners from trajectories (MOReL, Kidambi et al. 2020, arXiv:2005.05951, Algorithm 2).

Letters: T steps, M episodes side by side, O observation, A action.
"""

from typing import Protocol

import torch
from torch import Tensor

from mbkit.types import Dynamics, Trajectory


class Sampling(Protocol):
    """What a policy is asked for."""

    def sample(self, obs: Tensor) -> Tensor: ...  # noqa: D102  # obs [M, O] -> actions
    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor: ...  # noqa: D102  # [T, M, O], [T, M, A] -> [T, M]


@torch.no_grad()
def model_trajectory(dynamics: Dynamics, policy: Sampling, start: Tensor, restart: Tensor) -> Trajectory:
    """T steps of M episodes in the model, all at static shapes: start [M, O]; restart [T, M, O] states of new episodes.

    Where the model terminates, or a step is not finite, the next step begins a new episode; a step that is not finite is stored as the end
    of its episode, with no reward and its own observation as the successor. What ends at the last step is only cut.
    """
    obs, rows = start, []
    for fresh in restart:
        action = policy.sample(obs)
        step = dynamics.step(dynamics.init(obs), action)
        finite = step.obs.isfinite().all(-1) & step.reward.isfinite()
        terminated = step.terminated | ~finite
        next_obs = torch.where(finite[:, None], step.obs, obs)
        rows.append((obs, action, torch.where(finite, step.reward, 0.0), next_obs, terminated))
        obs = torch.where(terminated[:, None], fresh, next_obs)
    all_obs, action, reward, next_obs, terminated = (torch.stack(column) for column in zip(*rows, strict=True))
    ended = terminated.clone()
    ended[-1] = True
    return Trajectory(all_obs, action, reward, next_obs, (~terminated).float(), ended, policy.log_prob(all_obs, action))
