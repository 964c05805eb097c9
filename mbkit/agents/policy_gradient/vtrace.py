"""Actor-critic with V-trace (IMPALA, Espeholt et al. 2018, arXiv:1802.01561): truncated importance weights correct for who acted.

Letters: T steps, M environments, N = T M rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mbkit.agents.base import descend
from mbkit.agents.policy_gradient.a2c import policy_loss, value_loss
from mbkit.agents.policy_gradient.on_policy import NetworkConfig, OnPolicyAgent, flat, standardized
from mbkit.errors import UserError
from mbkit.fields import at_least, between, positive
from mbkit.registry import agents
from mbkit.returns import VTrace, v_trace
from mbkit.types import EnvSpec, Metrics, Trajectory


@dataclass(frozen=True)
class VTraceConfig(NetworkConfig):
    """Truncation, steps and the weights of what is summed; the loop's `replays` and `rollouts_kept` say how much is replayed."""

    rho_bar: float = positive(1.0)  # largest importance weight of a step: decides which policy's value is learned. Paper: 1
    c_bar: float = positive(1.0)  # the same along the trace: decides how fast; at most rho_bar. Paper: 1
    trace_lambda: float = between(1.0, 0, 1)  # decay of the trace. Paper: 1 (remark 2)
    lr: float = positive(6e-4)  # Adam's step size. Paper: RMSProp, 6e-4 on Atari
    anneal_lr: bool = False  # linearly to 0 at the end of the run. Paper: True
    entropy: float = at_least(0.01, 0)  # weight of the policy's entropy. Paper: 0.01 on Atari
    value_weight: float = positive(0.5)  # of the value network's loss beside the policy's. Paper: 0.5
    max_norm: float = positive(0.5)  # of the gradient, of a loss that is a mean. Paper: 40, of a sum
    standardize: bool = False  # advantages, in every trajectory


@agents.register(
    "vtrace",
    VTraceConfig,
    env="CartPole-v1",
    steps=300_000,
    loop={"warmup_steps": 0, "num_envs": 8, "rollout_steps": 32, "rollouts_kept": 16, "replays": 1},
)
class VTraceAgent(OnPolicyAgent):
    """Actor-critic with V-trace: learns from remembered trajectories as well as from fresh ones."""

    replays = True

    def __init__(self, spec: EnvSpec, cfg: VTraceConfig, gamma: float = 0.99) -> None:
        if cfg.c_bar > cfg.rho_bar:
            raise UserError(f"agent.c_bar={cfg.c_bar}: expected at most agent.rho_bar={cfg.rho_bar}")
        super().__init__(spec, cfg, gamma)
        self.cfg = cfg
        self.add_optimizers(cfg.lr, networks=nn.ModuleList([self.policy, self.critic]))
        self.falling = {"networks": cfg.lr} if cfg.anneal_lr else {}

    @torch.no_grad()
    def corrected(self, trajectory: Trajectory, value: Tensor, log_ratio: Tensor) -> VTrace:
        """Targets v and advantages rho (r + gamma v' - V), [T, M], from V and log pi / mu [N] of the steps (eq. 1, section 4.2)."""
        t, cfg = trajectory, self.cfg
        value, log_ratio, next_value = value.view_as(t.reward), log_ratio.view_as(t.reward), self.value(t.next_obs)
        trace = cfg.trace_lambda, cfg.rho_bar, cfg.c_bar
        return v_trace(t.reward, t.discount, t.ended, value, next_value, log_ratio, self.gamma, *trace)

    def update(self, trajectory: Trajectory) -> Metrics:
        """One step on policy and value network together, then the normalisers."""
        obs, action = self.normalizer(flat(trajectory.obs)), flat(trajectory.action)
        normalized, found = self.critic.normalized(obs), self.policy(obs)
        log_prob, entropy = found.log_prob(action), found.entropy().mean()
        log_ratio = log_prob.detach() - flat(trajectory.log_prob)
        seen = self.corrected(trajectory, self.critic.in_raw_units(normalized.detach()), log_ratio)
        target, advantage = flat(seen.value), flat(seen.advantage)
        actor = policy_loss(log_prob, standardized(advantage) if self.cfg.standardize else advantage)
        critic = value_loss(normalized, self.critic.in_units(target))
        descend(self.optimizers["networks"], actor + self.cfg.value_weight * critic - self.cfg.entropy * entropy, self.cfg.max_norm)
        self.observe(trajectory, target)
        ratio = log_ratio.exp()
        actor_is = {"actor/loss": actor.detach(), "actor/entropy": entropy.detach(), "actor/rho": ratio.clamp(max=self.cfg.rho_bar).mean()}
        return {"critic/loss": critic.detach(), "critic/value": target.mean(), **actor_is}
