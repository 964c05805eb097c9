"""Fitted Q evaluation (Le, Voloshin and Yue 2019, arXiv:1903.08738): the value of a policy from data that others recorded.

The critic is of no agent: K members, each regressed on its own target network, y_k = r + gamma d Q'_k(s', pi(s')), without a minimum over
members and without a bonus. The policy is asked for its actions at raw observations, so that no scaler of the one can be that of the other.
Letters: N rows of the data set, E first states, K members, B batch, O observation, A dimensions of an action or number of discrete actions.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.agents.base import descend
from mbkit.agents.offline.base import make_critics, statistics
from mbkit.errors import UserError
from mbkit.networks.heads import q_of
from mbkit.networks.optimizers import FusedAdam, polyak_
from mbkit.types import EnvSpec, PolicyFn, Transition

CHUNK = 16_384  # rows at which the policy acts at once


@dataclass(frozen=True)
class FQEConfig:
    """Networks and updates of the critics."""

    hidden: tuple[int, ...] = (128, 128)  # widths of the hidden layers, ReLU between; () is linear in observations, for each action
    members: int = 5  # K
    lr: float = 1e-3  # Adam learning rate at the beginning; it falls to 0 along a cosine
    tau: float = 0.05  # weight of the new parameters in the target networks
    batch_size: int = 256  # rows of each member in an update; all rows at once where there are no more than that
    updates: int = 10_000  # gradient updates


@torch.no_grad()
def actions_of(policy: PolicyFn, obs: Tensor) -> Tensor:
    """The policy's actions at obs [N, O], a chunk of rows at a time: [N, A], or int64 [N]."""
    return torch.cat([policy(rows).to(obs.device) for rows in torch.split(obs, CHUNK)])


def regression(q: Tensor, y: Tensor) -> Tensor:
    """Half the squared error of K critics, q [K, B] against each one's own targets [K, B]: mean over rows, sum over critics."""
    return 0.5 * (q - y).square().mean(1).sum()


class FittedQ:
    """Critics of one policy.

    Their outputs are Q = offset + scale x network; both constants follow from the rewards, so that networks of any reward begin near the
    value of the recorded behaviour and learn numbers of size 1. That changes where the fit begins, and not where it ends.

    Args:
        data: all N rows, observations raw, actions in [-1, 1] or int64.
        policy: obs [B, O] -> actions [B, A] or int64 [B], without exploration.
        spec: dimensions, and the device of the data.
        gamma: discount, below 1.
        cfg: networks and updates.
    """

    def __init__(self, data: Transition, policy: PolicyFn, spec: EnvSpec, gamma: float, cfg: FQEConfig = FQEConfig()) -> None:
        self.data, self.policy, self.gamma, self.cfg = data, policy, gamma, cfg
        self.next_action = actions_of(policy, data.next_obs)
        self.critics = make_critics(spec, cfg.members, cfg.hidden).to(spec.device)
        self.critics.inputs = statistics(data.obs)
        self.targets = deepcopy(self.critics).requires_grad_(False)
        self.optimizer = FusedAdam(list(self.critics.parameters()), cfg.lr)
        going_on = 1 - gamma * data.discount.mean()
        deviation = data.reward.std(correction=0)
        self.offset = data.reward.mean() / going_on
        self.scale = torch.where(deviation > 0, deviation, 1.0) / going_on
        self.whole = len(data.reward) <= cfg.batch_size

    def update(self) -> Tensor:
        """One step of every member on a batch of its own, and one of its target network; the loss, 0-d, in units of the networks."""
        rows, shape = len(self.data.reward), (self.cfg.members, self.cfg.batch_size)
        device = self.data.reward.device
        index = torch.arange(rows, device=device).expand(shape[0], -1) if self.whole else torch.randint(rows, shape, device=device)
        obs, action, reward, next_obs, discount = (column[index] for column in self.data[:5])
        with torch.no_grad():
            next_q = self.offset + self.scale * q_of(self.targets, next_obs, self.next_action[index])
            y = (reward + self.gamma * discount * next_q - self.offset) / self.scale
        loss = descend(self.optimizer, regression(q_of(self.critics, obs, action), y))
        polyak_(self.targets, self.critics, self.cfg.tau)
        return loss

    def fit(self, progress: Callable[[int], None] = lambda update: None) -> None:
        """All updates; UserError where the critics diverged."""
        for n in range(self.cfg.updates):
            self.optimizer.set_lr(self.cfg.lr * (1 + math.cos(math.pi * n / self.cfg.updates)) / 2)
            loss = self.update()
            progress(n + 1)
        if not loss.isfinite():
            raise UserError(f"the fitted Q evaluation diverged: its loss is {float(loss)} after {self.cfg.updates} updates")

    @torch.no_grad()
    def q(self, obs: Tensor, action: Tensor) -> Tensor:
        """Values of every member, obs [B, O], action [B, A] or int64 [B] -> [K, B]."""
        return self.offset + self.scale * q_of(self.critics, obs, action)

    def value(self, obs: Tensor) -> Tensor:
        """Values of the policy of every member, obs [E, O] -> [K, E]."""
        return torch.cat([self.q(rows, actions_of(self.policy, rows)) for rows in torch.split(obs, CHUNK)], 1)
