"""What natural-gradient learners share: products with the Fisher matrix, conjugate gradient, flat parameters, the fit of their critic.

The Fisher matrix of a policy is the second derivative of its mean KL divergence from itself, so its product with a vector costs one more
backward pass and the matrix never exists. Letters: P parameters of the policy, T steps, M environments, N = T M rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mbkit.agents.base import descend
from mbkit.agents.policy_gradient.on_policy import NetworkConfig, OnPolicyAgent, Rows, in_minibatches, standardized
from mbkit.fields import at_least, between, positive
from mbkit.networks.distributions import detached
from mbkit.types import EnvSpec, Trajectory

Product = Callable[[Tensor], Tensor]  # v [P] -> A v [P]


@dataclass(frozen=True)
class NaturalConfig(NetworkConfig):
    """The natural direction, and the regression of the value network."""

    cg_iterations: int = at_least(10, 1)  # of conjugate gradient, each one product with the Fisher matrix. TRPO's paper: 10
    damping: float = at_least(0.1, 0)  # added to the Fisher matrix's diagonal. Authors' code of TRPO: 0.1
    gae_lambda: float = between(0.95, 0, 1)  # of the advantages
    standardize: bool = True  # advantages, over the whole trajectory
    lr: float = positive(1e-3)  # Adam's step size, of the value network
    value_epochs: int = at_least(10, 1)  # passes of the value network over each trajectory
    minibatch: int = at_least(64, 1)  # rows of one gradient step of the value network


def flattened(tensors: Sequence[Tensor]) -> Tensor:
    """One vector [P] of several tensors, in their order."""
    return torch.cat([x.reshape(-1) for x in tensors])


@torch.no_grad()
def assign_(params: Sequence[Tensor], vector: Tensor) -> None:
    """Inverse of `flattened`, in place."""
    for p, part in zip(params, torch.split(vector, [p.numel() for p in params]), strict=True):
        p.copy_(part.view_as(p))


def fisher_product(kl: Tensor, params: Sequence[Tensor], damping: float) -> Product:
    """v -> (F + damping I) v, where F is the second derivative of `kl`, 0-d: the mean of D_KL(old | new) at new = old."""
    slope = flattened(torch.autograd.grad(kl, params, create_graph=True))

    def product(v: Tensor) -> Tensor:
        return flattened(torch.autograd.grad(slope @ v, params, retain_graph=True)) + damping * v

    return product


def conjugate_gradient(product: Product, b: Tensor, iterations: int) -> Tensor:
    """x with A x = b, both [P], A positive semidefinite (Hestenes and Stiefel 1952); always as many iterations, none of which waits.

    Once the residual is one of rounding, or a direction has no curvature, x stays where it is.
    """
    x, residual, direction = torch.zeros_like(b), b, b
    square = b @ b
    enough = square * torch.finfo(b.dtype).eps ** 2
    for _ in range(iterations):
        image = product(direction)
        curvature = direction @ image
        step = torch.where((square > enough) & (curvature > 0), square / curvature, 0)
        x = x + step * direction
        residual = residual - step * image
        before, square = square, residual @ residual
        direction = residual + torch.where(before > enough, square / before, 0) * direction
    return x


def surrogate(log_ratio: Tensor, advantage: Tensor) -> Tensor:
    """E[pi / pi_old A], 0-d: its gradient at pi = pi_old is the policy gradient, without the factor 1 / (1 - gamma)."""
    return (log_ratio.exp() * advantage).mean()


class NaturalAgent(OnPolicyAgent):
    """Knows the natural direction at a trajectory, and fits its value network by epochs of minibatches."""

    def __init__(self, spec: EnvSpec, cfg: NaturalConfig, gamma: float = 0.99) -> None:
        super().__init__(spec, cfg, gamma)
        self.natural = cfg
        self.add_optimizers(cfg.lr, critic=self.critic)

    @property
    def params(self) -> list[Tensor]:
        """Of the policy."""
        return list(self.policy.parameters())

    def prepare(self, trajectory: Trajectory) -> Rows:
        """Advantages and value targets of a trajectory [T, M], as N rows."""
        rows = self.evaluated(trajectory, self.natural.gae_lambda)
        return rows._replace(advantage=standardized(rows.advantage)) if self.natural.standardize else rows

    def direction(self, rows: Rows) -> tuple[Tensor, Tensor, Any]:
        """x = (F + damping I)^-1 g and g, [P] each, and the old policy's distributions: g the surrogate's gradient, F of mean KL."""
        params, new = self.params, self.policy(rows.obs)
        old = detached(new)
        gain = surrogate(new.log_prob(rows.action) - rows.log_prob, rows.advantage)
        g = flattened(torch.autograd.grad(gain, params, retain_graph=True))
        product = fisher_product(old.kl(new).mean(), params, self.natural.damping)
        return conjugate_gradient(product, g, self.natural.cg_iterations), g, old

    def fit_value(self, rows: Rows) -> Tensor:
        """Epochs of minibatches of Adam on the value network's squared error; the last minibatch's."""
        for _ in range(self.natural.value_epochs):
            for obs, target in in_minibatches((rows.obs, self.critic.in_units(rows.target)), self.natural.minibatch):
                loss = descend(self.optimizers["critic"], (self.critic.normalized(obs) - target).square().mean())
        return loss
