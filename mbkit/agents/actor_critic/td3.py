"""Twin delayed DDPG (Fujimoto et al. 2018, arXiv:1802.09477): the smaller of two critics, smoothed target actions, a delayed policy.

Letters: B batch, O observation, A action, K critics, M environments, N rows of targets.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.agents.actor_critic.ddpg import climb
from mbkit.agents.base import critic_metrics, needs_continuous, regress
from mbkit.agents.critics import CriticAgent, CriticOptions, check_form
from mbkit.fields import at_least, between, positive
from mbkit.networks.heads import Critics, target_network
from mbkit.networks.optimizers import polyak_
from mbkit.networks.policy import Deterministic
from mbkit.registry import agents
from mbkit.streams import normal_like
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, PolicyObjective, TargetFn, Transition


@dataclass(frozen=True)
class TD3Config(CriticOptions):
    """Networks, learning rate, noise and delay; noise is in units of the box [-1, 1]."""

    hidden: tuple[int, ...] = at_least((256, 256), 1)  # widths of the hidden layers of policy and critics. Paper: 400, 300
    lr: float = positive(3e-4)  # Adam learning rate of policy and critics. Paper: 1e-3; its authors' code: 3e-4
    final_lr: float | None = at_least(None, 0)  # learning rate at the end of the run, to which lr falls along a line; null: lr throughout
    tau: float = between(0.005, 0, 1)  # weight of the new parameters in the target networks
    critics: int = at_least(2, 1)  # number of critics, K; targets take their minimum, the policy climbs the first
    delay: int = at_least(2, 1)  # critic updates for each update of the policy and the target networks
    noise_scale: float = at_least(0.1, 0)  # standard deviation of the exploration noise
    target_noise: float = at_least(0.2, 0)  # standard deviation of the noise that smooths target actions
    noise_clip: float = at_least(0.5, 0, when="target_noise!=0")  # largest noise c that is added to a target action
    normalize_obs: bool = False  # normalisation of observations by mean and standard deviation of the warm-up, then fixed


def smoothed(action: Tensor, noise: Tensor, clip: float) -> Tensor:
    """Section 5.3: the target action clip(mu(s') + clip(noise, -c, c), -1, 1), all [B, A]; with its noise it is in the box, too."""
    return (action + noise.clamp(-clip, clip)).clamp(-1, 1)


@agents.register("td3", TD3Config, defaults={"env": "InvertedPendulum-v5", "steps": 20_000, "loop": {"warmup_steps": 1000}})
class TD3(CriticAgent):
    """Twin delayed DDPG: clipped double Q, target smoothing, delayed policy."""

    stackable = acts_by_sampling = takes_objective = True

    actor_loss: Tensor  # 0-d, of the policy's last update, so that every update returns one

    def __init__(
        self, spec: EnvSpec, cfg: TD3Config, gamma: float = 0.99, target: TargetFn = one_step, objective: PolicyObjective | None = None
    ) -> None:
        needs_continuous("td3", spec)
        super().__init__()
        self.cfg, self.gamma, self.target, self.objective, self.device = cfg, gamma, target, objective, spec.device
        self.cycle = cfg.delay
        self.policy = Deterministic(spec.obs_dim, spec.action_dim, cfg.hidden)
        self.critics = Critics(cfg.critics, spec.obs_dim, spec.action_dim, cfg.hidden, check_form(cfg.critic_form, target))
        self.target_policy = deepcopy(self.policy).requires_grad_(False)
        self.target_critics = target_network(self.critics)
        self.register_buffer("actor_loss", torch.zeros(()))
        self.normalize_inputs(spec.obs_dim, cfg.normalized_inputs)
        self.to(spec.device)
        self.add_optimizers(cfg.lr, policy=self.policy, critics=self.critics)
        self.let_rates_fall(cfg.lr, cfg.final_lr)

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """obs [M, O] -> [M, A]: the policy's action, with Gaussian noise where exploring."""
        obs = obs.to(self.device)
        return self.sample(obs) if explore else self.policy(obs)

    @torch.no_grad()
    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> actions [B, A] with Gaussian noise."""
        action: Tensor = self.policy(obs)
        return (action + self.cfg.noise_scale * torch.randn_like(action)).clamp(-1, 1)

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """Value [B] of the policy at obs [B, O]: the smallest of the target critics, without smoothing."""
        return self.backup_q(obs, self.policy(obs)).amin(0)

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The target policy's action with clipped noise [B, A], and no bonus [B]."""
        action: Tensor = self.target_policy(obs)
        noise = normal_like(action, self.cfg.target_noise)
        return smoothed(action, noise, self.cfg.noise_clip), obs.new_zeros(obs.shape[:-1])

    @torch.no_grad()
    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The target critics, [K, B]."""
        q: Tensor = self.target_critics(obs, action)
        return q

    def update(self, batch: Transition) -> Metrics:
        """One step on the critics; with every `delay`-th, one on the policy and on all target networks."""
        y = self.targets(batch)
        q = regress(self.optimizers["critics"], self.critics, y)
        self.count = (self.count + 1) % self.cycle
        if self.count == 0:
            loss = climb(self.optimizers["policy"], self.policy, self.critics, batch.obs, self.objective, self.gamma)
            self.actor_loss.copy_(loss)
            polyak_(self.target_critics, self.critics, self.cfg.tau)
            polyak_(self.target_policy, self.policy, self.cfg.tau)
        return {**critic_metrics(q, y, self.critics), "actor/loss": self.actor_loss.clone()} if self.measures else {}
