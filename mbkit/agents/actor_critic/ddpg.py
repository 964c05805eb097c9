"""Deep deterministic policy gradient (Lillicrap et al. 2016, arXiv:1509.02971): DPG with replay and target networks.

The critic bootstraps from mu(s') in one step, so replayed actions need no importance weights; that replayed states come from earlier
policies is neglected. Letters: B batch, O observation, A action, K critics, M environments, N rows of targets.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mbkit.agents.actor_critic.ascent import GreedyPath, ascend
from mbkit.agents.actor_critic.noise import GaussianNoise, Noise, OrnsteinUhlenbeck
from mbkit.agents.base import critic_metrics, needs_continuous, regress
from mbkit.agents.critics import CriticAgent, CriticOptions, check_form
from mbkit.fields import at_least, between, option, positive
from mbkit.networks.heads import Critics, target_network
from mbkit.networks.optimizers import FusedAdam, polyak_
from mbkit.networks.passes import CriticPass, PolicyPass
from mbkit.networks.policy import Deterministic
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, PolicyObjective, State, TargetFn, Transition


@dataclass(frozen=True)
class DDPGConfig(CriticOptions):
    """Networks, learning rate and noise. Paper: also batch normalisation and a weight decay of 0.01 in the critic (here: neither)."""

    hidden: tuple[int, ...] = at_least((400, 300), 1)  # widths of the hidden layers of policy and critic, ReLU between
    lr: float = positive(1e-3)  # Adam learning rate of policy and critic. Paper: 1e-4 and 1e-3
    final_lr: float | None = at_least(None, 0)  # learning rate at the end of the run, to which lr falls along a line; null: lr throughout
    tau: float = between(0.005, 0, 1)  # weight of the new parameters in the target networks. Paper: 0.001
    policy_every: int = at_least(1, 1)  # critic updates for each update of the policy and its target network
    critics: int = at_least(1, 1)  # number of critics, K; targets take their minimum, the policy climbs the first. Paper: 1
    noise: Literal["gaussian", "ou"] = option("gaussian", when="noise_scale!=0")  # exploration noise; ou: Ornstein-Uhlenbeck. Paper: ou
    noise_scale: float = at_least(0.1, 0)  # exploration noise's standard deviation in each step, in units of the box [-1, 1]. Paper: 0.2
    ou_theta: float = between(0.15, 0, 1, when="noise=ou")  # decay rate theta of Ornstein-Uhlenbeck noise, per step. Paper: 0.15
    normalize_obs: bool = False  # normalisation of observations by mean and standard deviation of the warm-up, then fixed


def policy_loss(policy: Deterministic, critics: Critics, obs: Tensor) -> Tensor:
    """Eq. 6, as a loss: -mean Q_1(s, mu(s)); its gradient in mu's parameters is -mean of grad mu(s)^T grad_a Q_1(s, a)."""
    return -critics.first(obs, policy(obs)).mean(-1)


def policy_gradient(policy: Deterministic, critics: Critics, obs: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
    """`policy_loss` and its gradient, by the two factors."""
    mu = PolicyPass(policy, obs)
    q = CriticPass(critics, obs, mu.action, first=True, fixed=True)
    return -q.q.mean((0, -1)), mu.gradients(q.action_gradient(torch.full_like(q.q, -1 / obs.shape[-2])))


def climb(
    optimizer: FusedAdam, policy: Deterministic, critics: Critics, obs: Tensor, objective: PolicyObjective | None = None, gamma: float = 1
) -> Tensor:
    """One step on `policy_gradient`, or up an objective; the loss before it."""
    if objective is not None:
        path = GreedyPath(policy, critics)
        return ascend(optimizer, objective, path, obs, path.path_action(obs), gamma)
    loss, grads = policy_gradient(policy, critics, obs)
    optimizer.descend(grads)
    return loss


@agents.register("ddpg", DDPGConfig, defaults={"env": "InvertedPendulum-v5", "steps": 20_000, "loop": {"warmup_steps": 1000}})
class DDPG(CriticAgent):
    """Deep deterministic policy gradient: a policy that climbs its critic, replay, target networks."""

    stackable = takes_objective = True

    actor_loss: Tensor  # 0-d, of the policy's last update, so that every update returns one

    def __init__(
        self, spec: EnvSpec, cfg: DDPGConfig, gamma: float = 0.99, target: TargetFn = one_step, objective: PolicyObjective | None = None
    ) -> None:
        needs_continuous("ddpg", spec)
        super().__init__()
        self.cfg, self.gamma, self.target, self.objective, self.device = cfg, gamma, target, objective, spec.device
        self.cycle = cfg.policy_every
        self.policy = Deterministic(spec.obs_dim, spec.action_dim, cfg.hidden)
        self.critics = Critics(cfg.critics, spec.obs_dim, spec.action_dim, cfg.hidden, check_form(cfg.critic_form, target))
        self.target_policy = deepcopy(self.policy).requires_grad_(False)
        self.target_critics = target_network(self.critics)
        self.white = GaussianNoise(cfg.noise_scale)
        self.noise: Noise = OrnsteinUhlenbeck(cfg.noise_scale, cfg.ou_theta) if cfg.noise == "ou" else self.white
        self.register_buffer("actor_loss", torch.zeros(()))
        self.normalize_inputs(spec.obs_dim, cfg.normalized_inputs)
        self.to(spec.device)
        self.add_optimizers(cfg.lr, policy=self.policy, critics=self.critics)
        self.let_rates_fall(cfg.lr, cfg.final_lr)

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """obs [M, O] -> [M, A]: the policy's action, with each environment's noise where exploring."""
        action: Tensor = self.policy(obs.to(self.device))
        return (action + self.noise(action)).clamp(-1, 1) if explore else action

    def reset(self, mask: Tensor) -> None:
        """Environments bool [M] begin a new episode: so does their noise."""
        self.noise.reset(mask)

    @torch.no_grad()
    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> actions [B, A] with white noise, whatever the noise of `act`: these rows belong to no episode."""
        action: Tensor = self.policy(obs)
        return (action + self.white(action)).clamp(-1, 1)

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """Value [B] of the policy at obs [B, O]: the smallest of the target critics."""
        return self.backup_q(obs, self.policy(obs)).amin(0)

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The target policy's action [B, A], and no bonus [B]."""
        return self.target_policy(obs), obs.new_zeros(obs.shape[:-1])

    @torch.no_grad()
    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The target critics, [K, B]."""
        q: Tensor = self.target_critics(obs, action)
        return q

    def update(self, batch: Transition) -> Metrics:
        """One step on the critics and their target networks; where it is due, one on policy and target policy."""
        y = self.targets(batch)
        q = regress(self.optimizers["critics"], self.critics, y)
        self.count = (self.count + 1) % self.cycle
        if self.count == 0:
            self.actor_loss.copy_(climb(self.optimizers["policy"], self.policy, self.critics, batch.obs, self.objective, self.gamma))
            polyak_(self.target_policy, self.policy, self.cfg.tau)
        polyak_(self.target_critics, self.critics, self.cfg.tau)
        return {**critic_metrics(q, y, self.critics), "actor/loss": self.actor_loss.clone()} if self.measures else {}

    def get_extra_state(self) -> State:
        """The optimizers, and the noise of the running episodes."""
        return {**super().get_extra_state(), "noise": self.noise.state_dict()}

    def set_extra_state(self, state: State) -> None:
        """Inverse of `get_extra_state`."""
        super().set_extra_state(state)
        self.noise.load_state_dict(state["noise"])
