"""The base of natural-gradient learners: products with the Fisher matrix, conjugate gradient, parameters as one vector, fitting the critic.

The Fisher matrix of a policy is the second derivative of its mean KL divergence from itself, so its product with a vector costs one more
backward pass and the matrix is never stored. Letters: P parameters of the policy, T steps, M environments, N = T M rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.agents.base import descend
from mbkit.agents.policy_gradient.on_policy import AdvantageBatch, NetworkConfig, OnPolicyAgent, in_minibatches, standardized, value_loss
from mbkit.fields import at_least, between, positive
from mbkit.networks.distributions import Distribution, detached
from mbkit.types import EnvSpec, Trajectory

Product = Callable[[Tensor], Tensor]  # v [P] -> A v [P]


@dataclass(frozen=True)
class NaturalConfig(NetworkConfig):
    """The natural direction, and the regression of the value network."""

    cg_iterations: int = at_least(10, 1)  # conjugate-gradient iterations, one product with the Fisher matrix each. TRPO's paper: 10
    damping: float = at_least(0.1, 0)  # damping added to the Fisher matrix's diagonal. Code of TRPO's authors: 0.1
    gae_lambda: float = between(0.95, 0, 1)  # GAE lambda
    normalize_advantage: bool = True  # standardisation of the advantages of every trajectory
    lr: float = positive(1e-3)  # Adam learning rate of the value network
    value_epochs: int = at_least(10, 1)  # passes of the value network over each trajectory
    minibatch: int = at_least(64, 1)  # minibatch size of the value network, in rows


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
    """x with A x = b, both [P], A positive semidefinite (Hestenes and Stiefel 1952); a fixed number of iterations, without synchronising.

    Once the residual is a rounding error, or a direction has no curvature, x stays as it is.
    """
    x, residual, direction = torch.zeros_like(b), b, b
    square = b @ b
    converged = square * torch.finfo(b.dtype).eps ** 2
    for _ in range(iterations):
        image = product(direction)
        curvature = direction @ image
        step = torch.where((square > converged) & (curvature > 0), square / curvature, 0)
        x = x + step * direction
        residual = residual - step * image
        previous, square = square, residual @ residual
        direction = residual + torch.where(previous > converged, square / previous, 0) * direction
    return x


def surrogate(log_ratio: Tensor, advantage: Tensor) -> Tensor:
    """E[pi / pi_old A], 0-d: its gradient at pi = pi_old is the policy gradient, without the factor 1 / (1 - gamma)."""
    return (log_ratio.exp() * advantage).mean()


class NaturalAgent(OnPolicyAgent):
    """An on-policy agent that computes the natural direction of a trajectory and fits its value network by epochs of minibatches."""

    cfg: NaturalConfig

    def __init__(self, spec: EnvSpec, cfg: NaturalConfig, gamma: float = 0.99) -> None:
        super().__init__(spec, cfg, gamma)
        self.add_optimizers(cfg.lr, critic=self.critic)

    @property
    def params(self) -> list[Tensor]:
        """Parameters of the policy."""
        return list(self.policy.parameters())

    def prepare(self, trajectory: Trajectory) -> AdvantageBatch:
        """A trajectory [T, M] as N rows with advantages, standardised if configured, and value targets."""
        rows = self.with_advantages(trajectory, self.cfg.gae_lambda)
        return rows._replace(advantage=standardized(rows.advantage)) if self.cfg.normalize_advantage else rows

    def direction(self, rows: AdvantageBatch) -> tuple[Tensor, Tensor, Distribution]:
        """x = (F + damping I)^-1 g and g, [P] each, and the old policy's distribution: g the surrogate's gradient, F of mean KL."""
        params, new = self.params, self.policy(rows.obs)
        old: Distribution = detached(new)
        gain = surrogate(new.log_prob(rows.action) - rows.log_prob, rows.advantage)
        g = flattened(torch.autograd.grad(gain, params, retain_graph=True))
        product = fisher_product(old.kl(new).mean(), params, self.cfg.damping)
        return conjugate_gradient(product, g, self.cfg.cg_iterations), g, old

    def fit_value(self, rows: AdvantageBatch) -> Tensor:
        """Epochs of Adam steps on the value network's squared error, one per minibatch; returns the last minibatch's error."""
        for _ in range(self.cfg.value_epochs):
            for obs, target in in_minibatches((rows.obs, self.critic.normalizer(rows.target)), self.cfg.minibatch):
                loss = descend(self.optimizers["critic"], value_loss(self.critic.normalized(obs), target))
        return loss
