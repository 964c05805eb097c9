"""Tiny problems for learners from trajectories: a bandit whose best action is a function of the state, of choices and of numbers."""

import pytest
import torch
from torch import Tensor

from mbkit.types import EnvSpec, Trajectory, TrajectoryLearner

CHOICES = EnvSpec(obs_dim=2, action_dim=3, device=torch.device("cpu"), discrete=True)
NUMBERS = EnvSpec(obs_dim=2, action_dim=1, device=torch.device("cpu"))


def pays(spec: EnvSpec, obs: Tensor, action: Tensor) -> Tensor:
    """1 for the choice in whose third the first observation in [-1, 1] lies, 0 for others; or -(a - 0.5 o)^2."""
    if spec.discrete:
        return (action == ((obs[..., 0] + 1) * 1.5).long()).to(obs.dtype)
    return -(action[..., 0] - 0.5 * obs[..., 0]).square()


def bandit(agent: TrajectoryLearner, spec: EnvSpec, steps: int = 64, num_envs: int = 4, dtype: torch.dtype = torch.float32) -> Trajectory:
    """Episodes of one step, acted by the agent: [T, M]."""
    obs = torch.rand(steps, num_envs, spec.obs_dim, dtype=dtype) * 2 - 1
    action = agent.act(obs)
    over = torch.ones(steps, num_envs, dtype=torch.bool)
    reward = pays(spec, obs, action)
    return Trajectory(obs, action, reward, obs, torch.zeros_like(reward), over, agent.log_prob(obs, action))


def greedy_pay(agent: TrajectoryLearner, spec: EnvSpec) -> float:
    """Mean reward of the greedy action; the best is 1 for choices, 0 for numbers."""
    obs = torch.rand(500, spec.obs_dim) * 2 - 1
    return float(pays(spec, obs, agent.act(obs, explore=False)).mean())


SPACES = pytest.mark.parametrize("spec", [CHOICES, NUMBERS], ids=["choices", "numbers"])


def chance(spec: EnvSpec, steps: int = 32, num_envs: int = 8) -> Trajectory:
    """Episodes of one step under uniformly random actions, with their log-probabilities."""
    obs = torch.rand(steps, num_envs, spec.obs_dim) * 2 - 1
    number = torch.rand(steps, num_envs, spec.action_dim) * 2 - 1
    action = torch.randint(spec.action_dim, (steps, num_envs)) if spec.discrete else number
    log_prob = torch.full((steps, num_envs), 1 / (spec.action_dim if spec.discrete else 2**spec.action_dim)).log()
    over = torch.ones(steps, num_envs, dtype=torch.bool)
    return Trajectory(obs, action, pays(spec, obs, action), obs, torch.zeros(steps, num_envs), over, log_prob)
