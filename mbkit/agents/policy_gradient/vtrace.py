"""Actor-critic with V-trace (IMPALA, Espeholt et al. 2018, arXiv:1802.01561): truncated importance weights of off-policy trajectories.

Letters: T steps, M environments, N = T M rows, mu the behaviour policy.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mbkit.agents.base import descend
from mbkit.agents.policy_gradient.a2c import policy_loss
from mbkit.agents.policy_gradient.on_policy import NetworkConfig, OnPolicyAgent, flat, standardized, value_loss
from mbkit.errors import UserError
from mbkit.fields import at_least, between, positive
from mbkit.registry import agents
from mbkit.returns import VTrace, v_trace
from mbkit.types import EnvSpec, Metrics, Trajectory


@dataclass(frozen=True)
class VTraceConfig(NetworkConfig):
    """Networks, truncation, optimizer and loss coefficients; the loop's options set how many stored trajectories are replayed."""

    rho_bar: float = positive(1.0)  # largest importance weight rho of a step; infinity: the present policy's value is learned. Paper: 1
    c_bar: float = positive(1.0, when="trace_lambda>0")  # largest importance weight c of the trace, at most rho_bar. Paper: 1
    trace_lambda: float = between(1.0, 0, 1)  # trace decay lambda. Paper: 1 (remark 2)
    lr: float = positive(6e-4)  # Adam learning rate. Paper: RMSProp, 6e-4 on Atari
    anneal_lr: bool = False  # linear decay of the learning rate to 0 by the end of the run. Paper: True
    entropy_coef: float = at_least(0.01, 0)  # entropy coefficient. Paper: 0.01 on Atari
    value_coef: float = positive(0.5)  # value-loss coefficient. Paper: 0.5
    max_grad_norm: float = positive(0.5)  # maximum gradient norm, of a mean over rows. Paper: 40, of a sum
    normalize_advantage: bool = False  # standardisation of the advantages of every trajectory


@agents.register(
    "vtrace",
    VTraceConfig,
    learns_from=("trajectories", "old_trajectories"),
    defaults={
        "env": "CartPole-v1",
        "steps": 300_000,
        "loop": {"num_envs": 8, "rollout_steps": 32, "stored_rollouts": 16, "off_policy_updates": 1},
    },
)
class VTraceAgent(OnPolicyAgent):
    """Actor-critic with V-trace: learns from stored trajectories of earlier policies as well as from new ones."""

    cfg: VTraceConfig

    def __init__(self, spec: EnvSpec, cfg: VTraceConfig, gamma: float = 0.99) -> None:
        if cfg.trace_lambda > 0 and cfg.c_bar > cfg.rho_bar:
            raise UserError(f"agent.c_bar={cfg.c_bar}: expected at most agent.rho_bar={cfg.rho_bar}")
        super().__init__(spec, cfg, gamma)
        self.add_optimizers(cfg.lr, networks=nn.ModuleList([self.policy, self.critic]))
        self.annealed = {"networks": cfg.lr} if cfg.anneal_lr else {}

    @torch.no_grad()
    def targets(self, trajectory: Trajectory, value: Tensor, log_ratio: Tensor) -> VTrace:
        """Targets v and advantages rho (r + gamma v' - V), [T, M], from V and log pi / mu [N] of the steps (eq. 1, section 4.2)."""
        t, cfg = trajectory, self.cfg
        value, log_ratio, next_value = value.view_as(t.reward), log_ratio.view_as(t.reward), self.value(t.next_obs)
        trace = cfg.trace_lambda, cfg.rho_bar, cfg.c_bar
        return v_trace(t.reward, t.discount, t.ended, value, next_value, log_ratio, self.gamma, *trace)

    def update(self, trajectory: Trajectory) -> Metrics:
        """One step on policy and value network together, then the normalisers."""
        obs, action = self.normalizer(flat(trajectory.obs)), flat(trajectory.action)
        normalized, distribution = self.critic.normalized(obs), self.policy(obs)
        log_prob, entropy = distribution.log_prob(action), distribution.entropy().mean()
        log_ratio = log_prob.detach() - flat(trajectory.log_prob)
        targets = self.targets(trajectory, self.critic.normalizer.inverse(normalized.detach()), log_ratio)
        target, advantage = flat(targets.value), flat(targets.advantage)
        actor = policy_loss(log_prob, standardized(advantage) if self.cfg.normalize_advantage else advantage)
        critic = value_loss(normalized, self.critic.normalizer(target))
        descend(self.optimizers["networks"], actor + self.cfg.value_coef * critic - self.cfg.entropy_coef * entropy, self.cfg.max_grad_norm)
        self.update_normalizers(trajectory, target)
        rho = log_ratio.exp().clamp(max=self.cfg.rho_bar).mean()
        learner = {"actor/loss": actor.detach(), "actor/entropy": entropy.detach(), "actor/rho": rho}
        return {"critic/loss": critic.detach(), "critic/value": target.mean(), **learner}
