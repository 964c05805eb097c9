"""A bandit for learners from trajectories, whose best action is a function of the state, with discrete and continuous actions."""

import math

import pytest
import torch
from torch import Tensor

from mbkit.types import EnvSpec, Trajectory, TrajectoryLearner

DISCRETE = EnvSpec(obs_dim=2, action_dim=3, device=torch.device("cpu"), discrete=True)
CONTINUOUS = EnvSpec(obs_dim=2, action_dim=1, device=torch.device("cpu"))
SEVERAL = EnvSpec(obs_dim=2, action_dim=5, device=torch.device("cpu"), discrete=True, parts=(3, 2))
SPACES = pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS, SEVERAL], ids=["discrete", "continuous", "several"])


def bandit_reward(spec: EnvSpec, obs: Tensor, action: Tensor) -> Tensor:
    """1 for the action in whose third of [-1, 1] the first observation lies, 0 for others; continuous: -(a - 0.5 o)^2.

    Several discrete actions: the mean of such rewards, part i of n actions having n parts of [-1, 1] and observation i.
    """
    if spec.parts:
        right = [action[..., i] == ((obs[..., i] + 1) * n / 2).long() for i, n in enumerate(spec.parts)]
        return torch.stack(right).to(obs.dtype).mean(0)
    if spec.discrete:
        return (action == ((obs[..., 0] + 1) * 1.5).long()).to(obs.dtype)
    return -(action[..., 0] - 0.5 * obs[..., 0]).square()


def bandit(agent: TrajectoryLearner, spec: EnvSpec, steps: int = 64, num_envs: int = 4, dtype: torch.dtype = torch.float32) -> Trajectory:
    """Episodes of one step under the agent's policy, [T, M]."""
    obs = torch.rand(steps, num_envs, spec.obs_dim, dtype=dtype) * 2 - 1
    action = agent.act(obs)
    ended = torch.ones(steps, num_envs, dtype=torch.bool)
    reward = bandit_reward(spec, obs, action)
    return Trajectory(obs, action, reward, obs, torch.zeros_like(reward), ended, agent.log_prob(obs, action))


def greedy_reward(agent: TrajectoryLearner, spec: EnvSpec) -> float:
    """Mean reward of the greedy action; at best 1 for discrete actions, 0 for continuous ones."""
    obs = torch.rand(500, spec.obs_dim) * 2 - 1
    return float(bandit_reward(spec, obs, agent.act(obs, explore=False)).mean())


def off_policy_bandit(spec: EnvSpec, steps: int = 32, num_envs: int = 8) -> Trajectory:
    """Episodes of one step under uniformly random actions, with their log-probabilities, [T, M]."""
    obs = torch.rand(steps, num_envs, spec.obs_dim) * 2 - 1
    if spec.parts:
        action, volume = torch.stack([torch.randint(n, (steps, num_envs)) for n in spec.parts], -1), math.prod(spec.parts)
    elif spec.discrete:
        action, volume = torch.randint(spec.action_dim, (steps, num_envs)), spec.action_dim
    else:
        action, volume = torch.rand(steps, num_envs, spec.action_dim) * 2 - 1, 2**spec.action_dim
    log_prob = torch.full((steps, num_envs), 1 / volume).log()
    ended = torch.ones(steps, num_envs, dtype=torch.bool)
    return Trajectory(obs, action, bandit_reward(spec, obs, action), obs, torch.zeros(steps, num_envs), ended, log_prob)
