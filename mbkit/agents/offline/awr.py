"""Advantage-weighted regression (Peng et al. 2019, arXiv:1910.00177): V regressed on TD(lambda) returns, the policy cloned by advantage.

The returns are those of the recorded trajectories, which no action of the policy enters. Letters: N rows of the data set, B batch,
O observation, A action, M environments.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.agents.base import descend_each, needs_one_action
from mbkit.agents.offline.base import CHUNK, OfflineAgent, OfflineConfig, stochastic_policy
from mbkit.agents.offline.cloning import exp_weights, weighted_log_likelihood_loss
from mbkit.fields import at_least, between, positive
from mbkit.networks.heads import StateValue
from mbkit.registry import agents
from mbkit.returns import lambda_return
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, Recorded, State, TargetFn, Transition

SMALLEST_STD = 1e-5  # added to the standard deviation of advantages, as in the authors' code


@dataclass(frozen=True)
class AWRConfig(OfflineConfig):
    """Networks, learning rate, returns and weights."""

    lam: float = between(0.95, 0, 1)  # lambda of the TD(lambda) returns, the labels of V
    relabel_every: int = at_least(200, 1)  # updates between two computations of all labels with the present V
    temperature: float = positive(1.0)  # temperature of the policy's weights exp(A / temperature). Paper: 0.05, not normalised
    normalize_advantage: bool = True  # advantages of mean 0 and standard deviation 1 in each batch. Authors' code: over all rows
    weight_clip: float = positive(20.0)  # largest weight


def value_loss(value: Tensor, label: Tensor) -> Tensor:
    """Half the squared error of V(s) to its label, mean over rows; both [B]."""
    return 0.5 * (value - label).square().mean()


def normalized(advantage: Tensor) -> Tensor:
    """Advantages [B] of mean 0 and standard deviation 1."""
    centred = advantage - advantage.mean()
    return centred / (centred.square().mean().sqrt() + SMALLEST_STD)


def trajectory_returns(data: Recorded, next_value: Tensor, gamma: float, lam: float) -> Tensor:
    """TD(lambda) returns of a whole data set in order, [N]: r + gamma d ((1 - lam) V(s') + lam G'), and V(s') alone at an episode's end."""
    reward, discount, ended, value = (x[:, None] for x in (data.reward, data.discount, data.next_known == 0, next_value))
    return lambda_return(reward, discount, ended, value, gamma, lam)[:, 0]


@agents.register("awr", AWRConfig, learns_from="dataset", defaults={"env": "Pendulum-v1", "steps": 50_000})
class AWR(OfflineAgent):
    """Advantage-weighted regression: cloning weighted by how much better a trajectory went on than V expected; both kinds of actions."""

    computes_targets = True
    rows: Recorded | None = None  # the data set, from `prepare` on; not saved
    labels: Tensor | None = None  # [N] TD(lambda) returns; saved, since V has changed since they were computed

    def __init__(self, spec: EnvSpec, cfg: AWRConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_one_action("awr", spec)
        super().__init__(spec, cfg, gamma, target)  # `target` has no part in the updates, since V alone makes the labels
        self.cfg, self.cycle = cfg, cfg.relabel_every
        self.policy = stochastic_policy(spec, cfg.hidden)
        self.v = StateValue(spec.obs_dim, cfg.hidden)
        self.normalize_inputs(spec.obs_dim, cfg.normalize_obs)
        self.to(spec.device)
        self.add_optimizers(cfg.lr, policy=self.policy, v=self.v)

    @torch.no_grad()
    def prepare(self, data: Recorded) -> None:
        """As every offline agent's, and the labels of the rows by the present V."""
        super().prepare(data)
        self.rows, self.labels = data, torch.zeros_like(data.reward)
        self.relabel()

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """V at obs [B, O], [B]."""
        value: Tensor = self.v(obs)
        return value

    @torch.no_grad()
    def relabel(self) -> None:
        """The labels of all rows by the present V, in place."""
        if self.rows is not None and self.labels is not None:
            next_value = torch.cat([self.v(obs) for obs in torch.split(self.rows.next_obs, CHUNK)])
            self.labels.copy_(trajectory_returns(self.rows, next_value, self.gamma, self.cfg.lam))

    @torch.no_grad()
    def label(self, batch: Transition) -> Tensor:
        """The labels of a batch of the data set, [B]; of rows without a trajectory, such as those of a model, r + gamma d V(s')."""
        if isinstance(batch, Recorded) and self.rows is not None and self.labels is not None:
            return self.labels[batch.row]
        return batch.reward + self.gamma * batch.discount * self.value(batch.next_obs)

    def update(self, batch: Transition) -> Metrics:
        """One step each on V and the policy, both from V before its step; at the start of a cycle the labels are renewed first."""
        cfg = self.cfg
        if self.count == 0:
            self.relabel()
        self.count = (self.count + 1) % self.cycle
        label, value, policy = self.label(batch), self.v(batch.obs), self.policy(batch.obs)
        advantage = (label - value).detach()
        weight = exp_weights(normalized(advantage) if cfg.normalize_advantage else advantage, cfg.temperature, cfg.weight_clip)
        outside = self.outside_support(policy.mode().detach())
        critic_loss, actor_loss = value_loss(value, label), weighted_log_likelihood_loss(policy.log_prob(batch.action), weight)
        descend_each((self.optimizers["v"], [(critic_loss, None)]), (self.optimizers["policy"], [(actor_loss, None)]))
        critic = {"critic/loss": critic_loss.detach(), "critic/value": value.detach().mean(), "critic/target": label.mean()}
        return {**critic, "actor/loss": actor_loss.detach(), "actor/weight": weight.mean(), "actor/outside_support": outside}

    def get_extra_state(self) -> State:
        """As every agent's, and the labels."""
        return {**super().get_extra_state(), "labels": self.labels}

    def set_extra_state(self, state: State) -> None:
        """Inverse of `get_extra_state`; labels are written in place where there is a data set, else held for the next save."""
        super().set_extra_state(state)
        labels = state["labels"]
        if self.labels is not None and labels is not None and self.labels.shape == labels.shape:
            self.labels.copy_(labels)
        elif self.rows is None:
            self.labels = None if labels is None else labels.clone()
