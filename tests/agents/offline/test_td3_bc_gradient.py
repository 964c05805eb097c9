"""C16: the actor's gradient of TD3+BC (arXiv:2106.06860). lambda = alpha / mean |Q| weighs Q alone, never the cloning term."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mbkit.agents.offline.td3_bc import cloned_policy_loss, q_weight

B, OBS, ACT = 32, 3, 2
ALPHA = 2.5  # of the paper
Critic = Callable[[Tensor, Tensor], Tensor]


def actor_loss(policy: nn.Module, critic: Critic, obs: Tensor, action: Tensor, lam: Tensor) -> Tensor:
    """-lambda Q(s, mu(s)), mean over rows, and (mu(s) - a)^2, mean over rows and dimensions, lambda a number of its own."""
    mu = policy(obs)
    return (-lam * critic(obs, mu) + (mu - action).square().mean(1)).mean()


def written_out(policy: nn.Module, critic: Critic, obs: Tensor, action: Tensor, lam: Tensor, on_cloning: float | Tensor = 1.0) -> Tensor:
    """grad mu^T (2 (mu - a) / A - lambda grad_a Q), flat; `on_cloning` is what a misprint multiplies the former by: lambda."""
    mu = policy(obs)
    at = mu.detach().requires_grad_()
    slope = torch.autograd.grad(critic(obs, at).sum(), at)[0]
    pull = on_cloning * 2 * (mu.detach() - action) / ACT - lam * slope
    return flat(torch.autograd.grad((mu * pull).sum() / len(obs), list(policy.parameters())))


def flat(parts: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


class Problem:
    """A policy, a critic far from 1 in size, and rows of data, in float64."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.policy = nn.Sequential(nn.Linear(OBS, 8), nn.Tanh(), nn.Linear(8, ACT), nn.Tanh()).double()
        net = nn.Sequential(nn.Linear(OBS + ACT, 16), nn.Tanh(), nn.Linear(16, 1)).double()
        self.critic = lambda obs, action: 20 + 30 * net(torch.cat([obs, action], 1))[:, 0]
        self.obs, self.action = torch.randn(B, OBS, dtype=torch.float64), 2 * torch.rand(B, ACT, dtype=torch.float64) - 1
        self.lam = q_weight(self.critic(self.obs, self.policy(self.obs)), ALPHA)

    def loss(self) -> Tensor:
        """The agent's loss."""
        mu = self.policy(self.obs)
        return cloned_policy_loss(self.critic(self.obs, mu), mu, self.action, ALPHA)

    def slopes(self, h: float = 1e-5) -> Tensor:
        """Central differences in every parameter, lambda held."""
        out = []
        with torch.no_grad():
            for p in self.policy.parameters():
                for i in range(p.numel()):
                    values = []
                    for move in (h, -2 * h, h):
                        p.view(-1)[i] += move
                        values.append(actor_loss(self.policy, self.critic, self.obs, self.action, self.lam))
                    out.append((values[0] - values[1]) / (2 * h))
        return torch.stack(out)


@pytest.mark.parametrize("seed", range(3))
def test_actor_loss_gradient_by_finite_differences(seed: int) -> None:
    problem = Problem(seed)
    slope, exact = problem.slopes(), flat(torch.autograd.grad(problem.loss(), list(problem.policy.parameters())))
    formula = written_out(problem.policy, problem.critic, problem.obs, problem.action, problem.lam)
    assert (exact - slope).abs().max() <= 1e-6
    assert (formula - slope).abs().max() <= 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_written_out_lambda_on_the_cloning_term_is_another_gradient(seed: int) -> None:
    problem = Problem(seed)
    wrong = written_out(problem.policy, problem.critic, problem.obs, problem.action, problem.lam, on_cloning=problem.lam)
    slope = problem.slopes()
    assert (wrong - slope).norm() > 0.1 * slope.norm()


def test_weight_makes_the_loss_independent_of_the_scale_of_rewards() -> None:
    problem = Problem(0)
    other = Problem(0)
    other.critic = lambda obs, action: 100 * problem.critic(obs, action)
    other.lam = q_weight(other.critic(other.obs, other.policy(other.obs)), ALPHA)
    torch.testing.assert_close(problem.loss(), other.loss())
    assert problem.lam == pytest.approx(100 * float(other.lam))
