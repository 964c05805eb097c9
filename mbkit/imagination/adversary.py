"""A model that learns to be pessimistic: RAMBO (Rigter, Lacerda and Hawes 2022, arXiv:2204.12581).

A copy of the fitted ensemble is trained on towards outcomes of low value under the policy, while the data's likelihood holds it back.
Letters: K elites, B rows, O observation, A action.
"""

import math
from copy import deepcopy
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from mbkit.networks.optimizers import FusedAdam, restore_optimizer_
from mbkit.types import Backup, Dynamics, Metrics, Recorded, Rollout, Source, State, Step, Transition


class Density(Dynamics, Protocol):
    """A model that knows the density of its outcomes, with gradients to its parameters."""

    @property
    def network(self) -> nn.Module: ...  # noqa: D102
    @property
    def members(self) -> int: ...  # noqa: D102  # E
    def scored_step(self, obs: Tensor, action: Tensor) -> tuple[Step, Tensor]: ...  # noqa: D102  # and log-densities [K, B]
    def training_loss(self, data: Transition, known: Tensor | None) -> Tensor: ...  # noqa: D102  # 0-d, of rows [E b]; bool [E b]
    def refresh(self) -> None: ...  # noqa: D102  # takes over changed weights


class Judge(Backup, Protocol):
    """The agent whose value is lowered."""

    def sample(self, obs: Tensor) -> Tensor: ...  # noqa: D102  # obs [B, O] -> actions [B, A]


def mixture_log_prob(log_prob: Tensor) -> Tensor:
    """log p of an outcome under the elites' equal mixture, [B]: their log-densities [K, B], each summed over dimensions before.

    Paper's code: the mixture of each dimension alone, by exponentials that underflow.
    """
    return log_prob.logsumexp(0) - math.log(len(log_prob))


def adversarial_loss(log_p: Tensor, advantage: Tensor) -> Tensor:
    """Eq. 9: mean over rows of log p(s', r|s, a) A, log p and A [B], A = r + gamma d V(s') - Q(s, a) standardised, a constant.

    Its gradient is the policy gradient of the model, whose "actions" are the outcomes. Paper's code: a product of [B] with [B, 1], a
    matrix whose sum is zero for a standardised A.
    """
    advantage = advantage.detach()
    centred = advantage - advantage.mean()
    return (log_p * centred / (centred.square().mean().sqrt() + 1e-8)).mean()


class Adversary:
    """A dynamics, at first a copy of `model`, which stays as it is; `train` lowers the policy's value in it.

    Args:
        model: the fitted model.
        weight: lambda of the adversarial loss, beside the loss of a fit.
        lr: Adam learning rate.
        horizon: model steps before states are drawn from the data again.
        known: bool [N], recorded rows whose successor is the true one; None: all.
    """

    def __init__(self, model: Density, weight: float, lr: float, horizon: int, known: Tensor | None = None) -> None:
        self.original, self.model = model, deepcopy(model)
        self.weight, self.horizon, self.known = weight, horizon, known
        self.params = [p for p in self.model.network.parameters() if p.requires_grad]
        self.optimizer = FusedAdam(self.params, lr)

    def restart(self) -> None:
        """Copy the model again, which was fitted meanwhile."""
        self.model.network.load_state_dict(self.original.network.state_dict())
        self.model.refresh()

    def init(self, obs: Tensor) -> Any:
        """The model's carry."""
        return self.model.init(obs)

    def step(self, carry: Any, action: Tensor, predict: bool = False) -> Step:
        """One step of the adversarial model, action [B, A]."""
        return self.model.step(carry, action, predict)

    def rollout(self, carry: Any, actions: Tensor) -> Rollout:
        """H steps of the adversarial model under actions [B, H, A]."""
        return self.model.rollout(carry, actions)

    def adversarial(self, agent: Judge, obs: Tensor, gamma: float) -> tuple[Tensor, Step]:
        """The adversarial loss at obs [B, O], and the outcomes that were drawn."""
        with torch.no_grad():
            action = agent.sample(obs)
        step, log_prob = self.model.scored_step(obs, action)
        with torch.no_grad():
            following = agent.backup_q(step.obs, agent.backup_action(step.obs)[0]).amin(0)
            advantage = step.reward + gamma * torch.where(step.terminated, 0.0, following) - agent.backup_q(obs, action).amin(0)
        return adversarial_loss(mixture_log_prob(log_prob), advantage), step

    def fit(self, data: Source, batch: int) -> Tensor:
        """The loss of a fit, 0-d, on recorded rows, `batch` for each member; those without a true successor teach it terminations alone."""
        rows = data.sample(self.model.members * batch)
        return self.model.training_loss(rows, None if self.known is None else self.known[cast("Recorded", rows).row])

    def train(self, agent: Judge, data: Source, steps: int, batch: int, gamma: float) -> Metrics:
        """One round: `steps` updates of `batch` rows of a rollout and as many recorded rows of each member, then `refresh`."""
        for n in range(steps):
            if n % self.horizon == 0:
                obs = data.sample(batch).obs
            loss, step = self.adversarial(agent, obs, gamma)
            adversarial, fit = self.weight * loss, self.fit(data, batch)
            self.optimizer.descend(torch.autograd.grad(adversarial + fit, self.params))
            obs = torch.where((step.terminated | ~step.obs.isfinite().all(-1))[:, None], obs, step.obs)
        self.model.refresh()
        return {"adversary/loss": adversarial.detach(), "adversary/fit_loss": fit.detach()}

    def state_dict(self) -> State:
        """Weights and optimizer."""
        return {"network": self.model.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`, in place."""
        self.model.network.load_state_dict(state["network"])
        restore_optimizer_(self.optimizer, state["optimizer"])
        self.model.refresh()
