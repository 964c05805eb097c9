"""REINFORCE (Williams 1992, doi:10.1007/BF00992696): the Monte-Carlo policy gradient, with the reward to go and a choice of baselines.

The return of a step needs the end of its episode, so that steps without an end in the window are masked.
Letters: T steps, M environments, N = T M rows, P parameters of the policy.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mbkit.agents.base import descend
from mbkit.agents.policy_gradient.on_policy import NetworkConfig, OnPolicyAgent, flat
from mbkit.errors import UserError
from mbkit.fields import at_least, option, positive
from mbkit.networks.distributions import ClippedGaussian
from mbkit.networks.heads import ValueNetwork
from mbkit.registry import agents
from mbkit.returns import discounted_return, ends_in_window, starts_in_window, steps_since_start
from mbkit.types import EnvSpec, Metrics, Trajectory


@dataclass(frozen=True)
class REINFORCEConfig(NetworkConfig):
    """Networks, optimizers, the baseline and the weights of steps."""

    lr: float = positive(3e-3)  # Adam learning rate of the policy. Paper: plain ascent
    value_lr: float = positive(3e-3)  # Adam learning rate of the value network and of the optimal baseline
    anneal_lr: bool = False  # linear decay of the policy's learning rate to 0 by the end of the run
    value_steps: int = at_least(10, 1)  # gradient steps of the value network and of the optimal baseline on every trajectory
    baseline: Literal["none", "value", "optimal"] = "value"  # baseline of the returns: 0, V(s), or the one of least variance
    discounted: bool = False  # weight gamma^t of step t, as in the gradient of J; false: equal weights, as is usual
    bootstrap: bool = option(False, when="baseline=value")  # bootstrapping of unfinished and truncated episodes by V
    entropy_coef: float = at_least(0.0, 0)  # entropy coefficient
    max_grad_norm: float = positive(0.5)  # maximum norm of each gradient


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x over the rows where the mask is 1, not 0; 0 where none is; [N] each."""
    return (mask * x).sum() / mask.sum().clamp(min=1)


def policy_loss(log_prob: Tensor, gain: Tensor, weight: Tensor) -> Tensor:
    """-E[w log pi(a|s) (G - b)] over rows with w > 0, whose gradient is minus REINFORCE's; [N] each."""
    return -masked_mean(weight * log_prob * gain.detach(), (weight > 0).float())


def squared_scores(policy: nn.Module, obs: Tensor, action: Tensor) -> Tensor:
    """|grad_theta log pi(a|s)|^2 over all P parameters, separately for every row: obs [N, O], action [N, A] or [N] -> [N].

    A row's gradient in a linear layer is the product of the layer's input and the slope at its output, and so is its norm:
    (|x|^2 + 1) |delta|^2, bias included (arXiv:1510.01799). One backward pass is enough for all rows.
    """
    passes: list[tuple[Tensor, Tensor]] = []  # input and output of every linear layer
    layers = [layer for layer in policy.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(lambda _, x, y: passes.append((x[0], y))) for layer in layers]
    with torch.enable_grad():
        distribution = policy(obs)
        log_prob = distribution.log_prob(action).sum()
    for hook in hooks:
        hook.remove()
    free = [distribution.log_std] if isinstance(distribution, ClippedGaussian) else []  # a parameter without a layer, expanded to all rows
    slopes = torch.autograd.grad(log_prob, [y for _, y in passes] + free)
    factors = [x.square().sum(1) + 1 for x, _ in passes] + [torch.ones_like(obs[:, 0])] * len(free)
    return torch.stack([factor * slope.square().sum(1) for factor, slope in zip(factors, slopes, strict=True)]).sum(0).detach()


def baseline_loss(baseline: Tensor, returns: Tensor, weight: Tensor) -> Tensor:
    """E[w (G - b)^2] / E[w], [N] each, least where b(s) = E[w G | s] / E[w | s].

    With w = |grad log pi|^2 that is the baseline of least variance, with w = 1 it is V.
    """
    return (weight * (returns.detach() - baseline).square()).sum() / weight.sum().clamp(min=1e-8)


@agents.register(
    "reinforce",
    REINFORCEConfig,
    learns_from="trajectories",
    defaults={"env": "CartPole-v1", "steps": 300_000, "loop": {"num_envs": 8, "rollout_steps": 512}},
)
class REINFORCE(OnPolicyAgent):
    """REINFORCE: the Monte-Carlo policy gradient, with no baseline, the value function, or the baseline of least variance."""

    cfg: REINFORCEConfig

    def __init__(self, spec: EnvSpec, cfg: REINFORCEConfig, gamma: float = 0.99) -> None:
        if cfg.bootstrap and cfg.baseline != "value":
            raise UserError(f"agent.bootstrap=true needs values: expected agent.baseline=value, came {cfg.baseline}")
        super().__init__(spec, cfg, gamma)
        self.add_optimizers(cfg.lr, policy=self.policy)
        self.annealed = {"policy": cfg.lr} if cfg.anneal_lr else {}
        self.add_optimizers(cfg.value_lr, critic=self.critic)
        if cfg.baseline == "optimal":  # V is learned all the same, for `value`
            self.optimal = ValueNetwork(spec.obs_dim, cfg.hidden, cfg.activation).to(spec.device)
            self.add_optimizers(cfg.value_lr, optimal=self.optimal)

    def step_weights(self, ended: Tensor) -> Tensor:
        """Weight of every step [T, M]: gamma^t or 1, and 0 where the return, or t, is unknown."""
        known = torch.ones_like(ended) if self.cfg.bootstrap else ends_in_window(ended)
        if not self.cfg.discounted:
            return known.float()
        return (known & starts_in_window(ended)) * self.gamma ** steps_since_start(ended).float()

    @torch.no_grad()
    def returns(self, trajectory: Trajectory) -> Tensor:
        """Reward to go [T, M] to the episode's end; beyond a cut it is V, with `bootstrap`, or 0."""
        t = trajectory
        next_value = self.value(t.next_obs) if self.cfg.bootstrap else torch.zeros_like(t.reward)
        return discounted_return(t.reward, t.discount, t.ended, next_value, self.gamma)

    @torch.no_grad()
    def baseline(self, obs: Tensor) -> Tensor:
        """The baseline [N] at normalised obs [N, O]; it was fitted to earlier trajectories only."""
        if self.cfg.baseline == "none":
            return obs.new_zeros(len(obs))
        value: Tensor = self.critic(obs) if self.cfg.baseline == "value" else self.optimal(obs)
        return value

    def fit(self, name: str, network: ValueNetwork, obs: Tensor, returns: Tensor, weight: Tensor) -> Tensor:
        """Steps of one network on `baseline_loss`; the last loss."""
        for _ in range(self.cfg.value_steps):
            error = baseline_loss(network.normalized(obs), network.normalizer(returns), weight)
            loss = descend(self.optimizers[name], error, self.cfg.max_grad_norm)
        return loss

    def update(self, trajectory: Trajectory) -> Metrics:
        """One step of the policy, then several of V and of the optimal baseline, then the normalisers."""
        obs, action = self.normalizer(flat(trajectory.obs)), flat(trajectory.action)
        returns, weight = flat(self.returns(trajectory)), flat(self.step_weights(trajectory.ended))
        mask = (weight > 0).float()
        before = [p.detach().clone() for p in self.parameters()]
        if self.cfg.baseline == "optimal":
            scores = mask * squared_scores(self.policy, obs, action)  # before the policy moves
        distribution = self.policy(obs)
        entropy = masked_mean(distribution.entropy(), mask)
        loss = policy_loss(distribution.log_prob(action), returns - self.baseline(obs), weight)
        loss = descend(self.optimizers["policy"], loss - self.cfg.entropy_coef * entropy, self.cfg.max_grad_norm)
        error = self.fit("critic", self.critic, obs, returns, mask)
        if self.cfg.baseline == "optimal":
            self.fit("optimal", self.optimal, obs, returns, scores)
        with torch.no_grad():  # Adam moves on without a gradient: where the mask is 0 everywhere, the old parameters are restored
            for p, old in zip(self.parameters(), before, strict=True):
                p.copy_(torch.where(mask.sum() > 0, p, old))
        self.update_normalizers(trajectory, returns, mask)
        learner = {"actor/loss": loss, "actor/entropy": entropy.detach(), "actor/counted": mask.mean()}
        return {"critic/loss": error, "critic/value": masked_mean(returns, mask), **learner}
