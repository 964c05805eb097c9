"""Twin delayed DDPG (Fujimoto et al. 2018, arXiv:1802.09477): the smaller of two critics, smoothed target actions, a delayed policy.

Letters: B batch, O observation, A action, K critics, M environments, N rows of targets.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.agents.actor_critic.ddpg import policy_loss
from mbkit.agents.base import LearningAgent, descend, needs_continuous, regression_loss
from mbkit.fields import at_least, between, positive
from mbkit.networks.heads import Critics
from mbkit.networks.optimizers import polyak_
from mbkit.networks.policy import Deterministic
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, State, TargetFn, Transition


@dataclass(frozen=True)
class TD3Config:
    """Networks, noise, delay and steps; noise is in units of the box [-1, 1]."""

    hidden: tuple[int, ...] = at_least((256, 256), 1)  # widths of the hidden layers of policy and critics. Paper: 400, 300
    lr: float = positive(3e-4)  # Adam's step size, of policy and critics. Paper: 1e-3; its authors' code: 3e-4
    tau: float = between(0.005, 0, 1)  # weight of the new parameters in the slow networks
    critics: int = at_least(2, 1)  # K; targets take their minimum, the policy climbs the first
    delay: int = at_least(2, 1)  # updates of the critics for each of the policy and of the slow networks
    noise_scale: float = at_least(0.1, 0)  # sigma of exploration
    target_noise: float = at_least(0.2, 0)  # sigma of the target actions' smoothing
    noise_clip: float = at_least(0.5, 0)  # c, most that smoothing adds


def smoothed(action: Tensor, noise: Tensor, clip: float) -> Tensor:
    """Section 5.3: the target action clip(mu(s') + clip(noise, -c, c), -1, 1), all [B, A]; the box holds after the noise, too."""
    return (action + noise.clamp(-clip, clip)).clamp(-1, 1)


@agents.register("td3", TD3Config, env="InvertedPendulum-v5", steps=20_000, loop={"warmup_steps": 1000})
class TD3(LearningAgent):
    """Twin delayed DDPG: clipped double Q, target smoothing, delayed policy."""

    actor_loss: Tensor

    def __init__(self, spec: EnvSpec, cfg: TD3Config, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_continuous("td3", spec.discrete, spec.action_dim)
        super().__init__()
        self.cfg, self.gamma, self.target = cfg, gamma, target
        self.cycle = cfg.delay
        self.count = 0  # critic updates since the policy's last one: on the host, so that no step waits for the device
        self.policy = Deterministic(spec.obs_dim, spec.action_dim, cfg.hidden)
        self.critics = Critics(cfg.critics, spec.obs_dim, spec.action_dim, cfg.hidden)
        self.slow_policy = deepcopy(self.policy).requires_grad_(False)
        self.slow_critics = deepcopy(self.critics).requires_grad_(False)
        self.register_buffer("actor_loss", torch.zeros(()))  # the last one, so that every update reports one
        self.to(spec.device)
        self.add_optimizers(cfg.lr, policy=self.policy, critics=self.critics)

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """obs [M, O] -> [M, A]: the policy's action, with Gaussian noise where exploring."""
        obs = obs.to(self.actor_loss.device)
        if explore:
            return self.sample(obs)
        action: Tensor = self.policy(obs)
        return action

    @torch.no_grad()
    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> actions [B, A] with Gaussian noise."""
        action: Tensor = self.policy(obs)
        return (action + self.cfg.noise_scale * torch.randn_like(action)).clamp(-1, 1)

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """Value [B] of the policy at obs [B, O]: the smaller of the slow critics, without smoothing."""
        q: Tensor = self.slow_critics(obs, self.policy(obs))
        return q.amin(0)

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The slow policy's action with clipped noise [B, A], and no bonus [B]."""
        action: Tensor = self.slow_policy(obs)
        noise = self.cfg.target_noise * torch.randn_like(action)
        return smoothed(action, noise, self.cfg.noise_clip), obs.new_zeros(len(obs))

    @torch.no_grad()
    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The slow critics, [K, B]."""
        q: Tensor = self.slow_critics(obs, action)
        return q

    def update(self, batch: Transition) -> Metrics:
        """One step on the critics; with every `delay`-th, one on the policy and on all slow networks."""
        y = self.target(self, batch, self.gamma)
        q = self.critics(y.obs, y.action)
        critic_loss = descend(self.optimizers["critics"], regression_loss(q, y))
        self.count = (self.count + 1) % self.cycle
        if self.count == 0:
            self.actor_loss.copy_(descend(self.optimizers["policy"], policy_loss(self.policy, self.critics, batch.obs)))
            polyak_(self.slow_critics, self.critics, self.cfg.tau)
            polyak_(self.slow_policy, self.policy, self.cfg.tau)
        return {"critic/loss": critic_loss, "critic/q": q.detach().mean(), "actor/loss": self.actor_loss.clone()}

    def get_extra_state(self) -> State:
        """The optimizers, and where in its cycle the next update stands."""
        return {**super().get_extra_state(), "count": self.count}

    def set_extra_state(self, state: State) -> None:
        """Inverse of `get_extra_state`."""
        super().set_extra_state(state)
        self.count = int(state["count"])
