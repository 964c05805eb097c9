"""Tiny problems with known answers: a bandit whose best action is a function of the state, and a linear-quadratic regulator."""

import torch
from torch import Tensor

from mbkit.types import EnvSpec, Learner, Transition

SPEC = EnvSpec(obs_dim=2, action_dim=1, device=torch.device("cpu"))
WIDE = EnvSpec(obs_dim=3, action_dim=2, device=torch.device("cpu"))


def best(obs: Tensor) -> Tensor:
    """The bandit's best action [B, 1], inside the box."""
    return 0.6 * obs[:, :1] - 0.2


def bandit(action: Tensor, obs: Tensor) -> Transition:
    """One step, then the end: reward -(a - best(s))^2."""
    reward = -(action - best(obs)).square().sum(1)
    return Transition(obs, action, reward, obs, torch.zeros(len(obs)))


def regret(agent: Learner) -> float:
    """Mean distance of the greedy action from the best one."""
    obs = torch.rand(200, 2) * 2 - 1
    return float((agent.act(obs, explore=False) - best(obs)).abs().mean())


def learn_bandit(agent: Learner, updates: int, rows: int = 64) -> float:
    """Regret after so many updates on uniformly random actions."""
    for _ in range(updates):
        obs = torch.rand(rows, 2) * 2 - 1
        agent.update(bandit(torch.rand(rows, 1) * 2 - 1, obs))
    return regret(agent)


class LQR:
    """s' = 0.9 s + 0.5 u + 0.1 xi, r = -(s^2 + 0.1 u^2), gamma 0.9, s_0 ~ N(0, 1), under u = -k s; in closed form, float64."""

    a, b, noise, cost, gamma, riccati = 0.9, 0.5, 0.1, 0.1, 0.9, 1.324624

    def curvature(self, k: Tensor) -> Tensor:
        """P in V(s) = -(P s^2 + q)."""
        return (1 + self.cost * k**2) / (1 - self.gamma * (self.a - self.b * k) ** 2)

    def offset(self, k: Tensor) -> Tensor:
        """q in V(s) = -(P s^2 + q)."""
        return self.gamma * self.curvature(k) * self.noise**2 / (1 - self.gamma)

    def objective(self, k: Tensor) -> Tensor:
        """J(k) = E V(s_0)."""
        return -(self.curvature(k) + self.offset(k))

    def second_moment(self, k: Tensor) -> Tensor:
        """E s^2 under the discounted state distribution (1 - gamma) sum gamma^t P(s_t)."""
        return ((1 - self.gamma) + self.gamma * self.noise**2) / (1 - self.gamma * (self.a - self.b * k) ** 2)

    def q(self, k: Tensor, obs: Tensor, action: Tensor) -> Tensor:
        """Q of u = -k s, [B]."""
        s, u = obs[:, 0], action[:, 0]
        after = self.curvature(k) * ((self.a * s + self.b * u) ** 2 + self.noise**2) + self.offset(k)
        return -(s**2 + self.cost * u**2) - self.gamma * after
