"""Behaviour cloning (Pomerleau 1991, Neural Computation 3(1)): the policy imitates the recorded actions, without any values.

Conditioned on returns it is upside-down reinforcement learning (Schmidhuber 2019, arXiv:1912.02875; RvS-R, Emmons et al. 2022,
arXiv:2112.10751): the policy is cloned as a function of observation and return, and acts as the better episodes did.
Letters: N rows of the data set, B batch, O observation, A action, M environments.
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from mbkit.agents.base import descend, needs_one_action
from mbkit.agents.offline.base import OfflineAgent, OfflineConfig, episode_returns, statistics, stochastic_policy
from mbkit.agents.offline.cloning import log_likelihood_loss, squared_error
from mbkit.errors import UserError
from mbkit.fields import between
from mbkit.networks.distributions import Distribution
from mbkit.networks.policy import Deterministic
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, Recorded, TargetFn, Transition


@dataclass(frozen=True)
class BCConfig(OfflineConfig):
    """Network, learning rate, kind of policy, condition."""

    policy: Literal["auto", "deterministic", "gaussian", "categorical"] = "auto"  # kind of policy; auto: categorical or deterministic
    condition: Literal["none", "return"] = "none"  # input beside the observation; return: the episode's undiscounted return
    target_quantile: float = between(0.9, 0, 1, when="condition=return")  # quantile of the data's returns on which acting is conditioned


def policy_kind(spec: EnvSpec, cfg: BCConfig) -> str:
    """The kind of policy; UserError where it does not suit the environment's actions."""
    if cfg.policy == "auto":
        return "categorical" if spec.discrete else "deterministic"
    if (cfg.policy == "categorical") != spec.discrete:
        needed, actions = ("discrete", "continuous") if cfg.policy == "categorical" else ("continuous", "discrete")
        raise UserError(f"agent.policy={cfg.policy} needs {needed} actions, but the environment has {actions} ones")
    return cfg.policy


@agents.register("bc", BCConfig, learns_from="dataset", defaults={"env": "Pendulum-v1", "steps": 50_000})
class BC(OfflineAgent):
    """Behaviour cloning: imitation of the recorded actions, all alike or by the return of their episode."""

    target_return: Tensor  # 0-d, the return on which acting is conditioned
    returns: Tensor  # [N] return of each row's episode; empty until `prepare`, and not saved

    def __init__(self, spec: EnvSpec, cfg: BCConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_one_action("bc", spec)
        kind, self.conditioned = policy_kind(spec, cfg), cfg.condition == "return"
        self.recorded_only = self.uses_reward = self.conditioned  # on returns, which a transition alone does not tell
        super().__init__(spec, cfg, gamma, target)
        self.cfg, inputs = cfg, spec.obs_dim + self.conditioned
        deterministic = kind == "deterministic"
        wide = spec._replace(obs_dim=inputs)
        self.policy = Deterministic(inputs, spec.action_dim, cfg.hidden) if deterministic else stochastic_policy(wide, cfg.hidden)
        self.normalize_inputs(inputs, cfg.normalize_obs or self.conditioned)
        self.register_buffer("target_return", torch.zeros(()))
        self.register_buffer("returns", torch.empty(0), persistent=False)
        self.to(spec.device)
        self.add_optimizers(cfg.lr, policy=self.policy)

    @torch.no_grad()
    def prepare(self, data: Recorded) -> None:
        """As every offline agent's; with a condition also the return of each row's episode, and the one to act on."""
        super().prepare(data)
        if self.conditioned:
            returns, episode = episode_returns(data)
            self.returns = returns[episode]
            fitted = statistics(self.returns[:, None])
            self.normalizer.mean[-1:], self.normalizer.std[-1:] = fitted.mean, fitted.std
            self.target_return.copy_(returns.quantile(self.cfg.target_quantile))

    def inputs(self, obs: Tensor, returns: Tensor) -> Tensor:
        """The policy's input: obs [B, O], and the returns [B] in a column behind where it is conditioned."""
        return torch.cat((obs, returns[:, None]), -1) if self.conditioned else obs

    def output(self, obs: Tensor) -> Tensor | Distribution:
        """The policy at obs [B, O], conditioned on the return to act on."""
        return super().output(self.inputs(obs, self.target_return.expand(len(obs))))

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """0 at every obs, [B]: cloning learns no values."""
        return obs.new_zeros(len(obs))

    def episode_return(self, batch: Transition) -> Tensor:
        """The undiscounted return of each row's episode, [B]; until `prepare` the sum of the rewards from the row on."""
        if not self.conditioned:
            return batch.reward
        rows = cast("Recorded", batch)
        return self.returns[rows.row] if len(self.returns) else rows.return_to_go

    def update(self, batch: Transition) -> Metrics:
        """One step on the policy; a `Recorded` batch where it is conditioned."""
        output = super().output(self.inputs(batch.obs, self.episode_return(batch)))
        if isinstance(output, Tensor):
            return {"actor/loss": descend(self.optimizers["policy"], squared_error(output, batch.action))}
        entropy = output.entropy().detach().mean()
        loss = descend(self.optimizers["policy"], log_likelihood_loss(output.log_prob(batch.action)))
        return {"actor/loss": loss, "actor/entropy": entropy}
