"""A policy distilled from plans: regressed on the means of executed plans (POPLIN, Wang and Ba 2019, arXiv:1906.08649, eq. 6).

Letters: B batch, M environments, O observation, A dimensions of an action, n number of discrete actions, P discrete actions taken at once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mbkit.agents.base import LearningAgent, descend
from mbkit.networks.distributions import Categorical, Categoricals
from mbkit.networks.normalizer import RunningNormalizer
from mbkit.networks.policy import Deterministic, StochasticPolicy
from mbkit.types import EnvSpec, Metrics


def mean_loss(action: Tensor, mean: Tensor) -> Tensor:
    """(mu(s) - a)^2, a the mean of the executed plan: mean over rows and dimensions; both [B, A]."""
    return (action - mean).square().mean()


def cross_entropy(policy: Categorical | Categoricals, probabilities: Tensor) -> Tensor:
    """-sum_a p(a) log pi(a|s) in nats, p the plan's probabilities [B, n] or [B, P, n]: mean over rows and parts."""
    return -(probabilities * policy.log_probs()).sum(-1).mean()


class DistilledPolicy(LearningAgent):
    """A policy network that stands for a plan: deterministic for continuous actions, probabilities of discrete ones.

    Observations are normalised by the running statistics of those that plans were executed at. The weights are drawn from the global
    random state, updates draw nothing.
    """

    normalizer: RunningNormalizer

    def __init__(self, spec: EnvSpec, hidden: Sequence[int], lr: float) -> None:
        super().__init__()
        if spec.discrete:
            self.policy: StochasticPolicy | Deterministic = StochasticPolicy(spec, hidden, "relu", fused=True)
        else:
            self.policy = Deterministic(spec.obs_dim, spec.action_dim, hidden)
        self.normalize_inputs(spec.obs_dim, True)
        self.to(spec.device)
        self.device = spec.device
        self.add_optimizers(lr, policy=self.policy)

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = False) -> Tensor:
        """obs [M, O] -> [M, A] in [-1, 1], or the most likely actions int64 [M] or [M, P]; it never explores."""
        return self.policy.mode(obs.to(self.device, torch.float32))

    def loss(self, obs: Tensor, mean: Tensor) -> Tensor:
        """The regression's loss, 0-d, at obs [B, O] on plans' means [B, A], or probabilities [B, n] or [B, P, n]."""
        output = self.policy(obs)
        return mean_loss(output, mean) if isinstance(output, Tensor) else cross_entropy(output, mean)

    def update(self, obs: Tensor, mean: Tensor) -> Metrics:
        """One gradient step on the loss."""
        return {"distill/loss": descend(self.optimizers["policy"], self.loss(obs, mean))}
