"""REINFORCE (Williams 1992, doi:10.1007/BF00992696): the Monte-Carlo policy gradient, with the reward to go and a choice of baselines.

The return of a step is what its episode really earned from there on, so an episode counts from where its end is known.
Letters: T steps, M environments, N = T M rows, P parameters of the policy.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mbkit.agents.base import descend
from mbkit.agents.policy_gradient.on_policy import NetworkConfig, OnPolicyAgent, flat
from mbkit.errors import UserError
from mbkit.fields import at_least, positive
from mbkit.networks.distributions import ClippedGaussian
from mbkit.networks.heads import ValueNetwork
from mbkit.registry import agents
from mbkit.returns import discounted_return
from mbkit.types import EnvSpec, Metrics, Trajectory


@dataclass(frozen=True)
class REINFORCEConfig(NetworkConfig):
    """Networks, steps, the baseline and what counts."""

    lr: float = positive(3e-3)  # Adam's step size, of the policy. Paper: plain ascent
    value_lr: float = positive(3e-3)  # of the value network and the optimal baseline
    anneal_lr: bool = False  # the policy's, linearly to 0 at the end of the run
    value_steps: int = at_least(10, 1)  # gradient steps of each of these on every trajectory, after the policy's one
    baseline: Literal["none", "value", "optimal"] = "value"  # subtracted from returns: nothing, V(s), or that of least variance
    discounted: bool = False  # step t counts gamma^t, as the gradient of J has it; False: all steps alike, as is usual
    bootstrap: bool = False  # V stands for what an unfinished or truncated episode would still have earned (baseline "value" only)
    entropy: float = at_least(0.0, 0)  # weight of the policy's entropy
    max_norm: float = positive(0.5)  # of the gradients


def finished(ended: Tensor) -> Tensor:
    """bool [T, M]: steps whose episode ends within the window."""
    return ended.flip(0).cumsum(0).flip(0) > 0


def begun(ended: Tensor) -> Tensor:
    """bool [T, M]: steps whose episode begins within the window, after the end of another."""
    return ended.cumsum(0) - ended.long() > 0


def times(ended: Tensor) -> Tensor:
    """int64 [T, M]: steps since the episode began, or the window."""
    row = torch.arange(len(ended), device=ended.device)[:, None].expand_as(ended)
    first = torch.where(ended.roll(1, 0), row, 0)  # what comes round to row 0 changes nothing
    return row - first.cummax(0).values


def average(x: Tensor, known: Tensor) -> Tensor:
    """Of x over the rows that are known, 0 where none is; [N] each, `known` 0 or 1."""
    return (known * x).sum() / known.sum().clamp(min=1)


def policy_loss(log_prob: Tensor, gain: Tensor, weight: Tensor) -> Tensor:
    """-E[w log pi(a|s) (G - b)] over rows with w > 0, whose gradient is minus REINFORCE's; [N] each."""
    return -average(weight * log_prob * gain.detach(), (weight > 0).float())


def squared_scores(policy: nn.Module, obs: Tensor, action: Tensor) -> Tensor:
    """|grad_theta log pi(a|s)|^2 over all P parameters, of every row alone: obs [N, O], action [N, A] or [N] -> [N].

    A row's gradient in a linear layer is the product of what came in and the slope at what went out, and so is its norm:
    (|x|^2 + 1) |delta|^2, bias included (arXiv:1510.01799). One backward pass does for all rows.
    """
    seen: list[tuple[Tensor, Tensor]] = []
    layers = [layer for layer in policy.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(lambda _, x, y: seen.append((x[0], y))) for layer in layers]
    with torch.enable_grad():
        found: Any = policy(obs)
        log_prob = found.log_prob(action).sum()
    for hook in hooks:
        hook.remove()
    free = [found.log_std] if isinstance(found, ClippedGaussian) else []  # a parameter of its own, expanded to all rows
    slopes = torch.autograd.grad(log_prob, [y for _, y in seen] + free)
    incoming = [x.square().sum(1) + 1 for x, _ in seen] + [torch.ones_like(obs[:, 0])] * len(free)
    return torch.stack([size * slope.square().sum(1) for size, slope in zip(incoming, slopes, strict=True)]).sum(0).detach()


def baseline_loss(baseline: Tensor, returns: Tensor, weight: Tensor) -> Tensor:
    """E[w (G - b)^2] / E[w], [N] each, least where b(s) = E[w G | s] / E[w | s].

    With w = |grad log pi|^2 that is the baseline of least variance, with w = 1 it is V.
    """
    return (weight * (returns.detach() - baseline).square()).sum() / weight.sum().clamp(min=1e-8)


@agents.register(
    "reinforce", REINFORCEConfig, env="CartPole-v1", steps=300_000, loop={"warmup_steps": 0, "num_envs": 8, "rollout_steps": 512}
)
class REINFORCE(OnPolicyAgent):
    """REINFORCE: the Monte-Carlo policy gradient, with no baseline, the value function, or the baseline of least variance."""

    def __init__(self, spec: EnvSpec, cfg: REINFORCEConfig, gamma: float = 0.99) -> None:
        if cfg.bootstrap and cfg.baseline != "value":
            raise UserError(f"agent.bootstrap=true needs values: expected agent.baseline=value, came {cfg.baseline}")
        super().__init__(spec, cfg, gamma)
        self.cfg = cfg
        self.add_optimizers(cfg.lr, policy=self.policy)
        self.falling = {"policy": cfg.lr} if cfg.anneal_lr else {}
        self.add_optimizers(cfg.value_lr, critic=self.critic)
        if cfg.baseline == "optimal":  # V is learned all the same: others may ask for it
            self.optimal = ValueNetwork(spec.obs_dim, cfg.hidden, cfg.activation).to(spec.device)
            self.add_optimizers(cfg.value_lr, optimal=self.optimal)

    def counted(self, ended: Tensor) -> Tensor:
        """Weight of every step [T, M]: gamma^t or 1, and 0 where the return, or t, is not known."""
        known = torch.ones_like(ended) if self.cfg.bootstrap else finished(ended)
        if not self.cfg.discounted:
            return known.float()
        return (known & begun(ended)) * self.gamma ** times(ended).float()

    @torch.no_grad()
    def returns(self, trajectory: Trajectory) -> Tensor:
        """Reward to go [T, M] to the episode's end; beyond a cut it is V, with `bootstrap`, or nothing."""
        t = trajectory
        beyond = self.value(t.next_obs) if self.cfg.bootstrap else torch.zeros_like(t.reward)
        return discounted_return(t.reward, t.discount, t.ended, beyond, self.gamma)

    @torch.no_grad()
    def baseline(self, obs: Tensor) -> Tensor:
        """What is subtracted from the returns at normalised obs [N, O], [N]; it was fitted to earlier trajectories only."""
        if self.cfg.baseline == "none":
            return obs.new_zeros(len(obs))
        value: Tensor = self.critic(obs) if self.cfg.baseline == "value" else self.optimal(obs)
        return value

    def fit(self, name: str, network: ValueNetwork, obs: Tensor, returns: Tensor, weight: Tensor) -> Tensor:
        """Steps of one network on `baseline_loss`; the last loss."""
        for _ in range(self.cfg.value_steps):
            error = baseline_loss(network.normalized(obs), network.in_units(returns), weight)
            loss = descend(self.optimizers[name], error, self.cfg.max_norm)
        return loss

    def observe(self, trajectory: Trajectory, target: Tensor, weight: Tensor | None = None) -> None:
        """The end of an update, with the optimal baseline's normaliser too."""
        super().observe(trajectory, target, weight)
        if self.cfg.baseline == "optimal" and self.cfg.normalize_value:
            self.optimal.rescale(target, weight)

    def update(self, trajectory: Trajectory) -> Metrics:
        """One step of the policy, then several of V and of the optimal baseline, then the normalisers."""
        obs, action = self.normalizer(flat(trajectory.obs)), flat(trajectory.action)
        returns, weight = flat(self.returns(trajectory)), flat(self.counted(trajectory.ended))
        known = (weight > 0).float()
        before = [p.detach().clone() for p in self.parameters()]
        if self.cfg.baseline == "optimal":
            scores = known * squared_scores(self.policy, obs, action)  # before the policy moves
        found = self.policy(obs)
        entropy = average(found.entropy(), known)
        loss = policy_loss(found.log_prob(action), returns - self.baseline(obs), weight)
        loss = descend(self.optimizers["policy"], loss - self.cfg.entropy * entropy, self.cfg.max_norm)
        error = self.fit("critic", self.critic, obs, returns, known)
        if self.cfg.baseline == "optimal":
            self.fit("optimal", self.optimal, obs, returns, scores)
        with torch.no_grad():  # Adam moves on without a gradient: where nothing is known, nothing is learned
            for p, old in zip(self.parameters(), before, strict=True):
                p.copy_(torch.where(known.sum() > 0, p, old))
        self.observe(trajectory, returns, known)
        learner = {"actor/loss": loss, "actor/entropy": entropy.detach(), "actor/counted": known.mean()}
        return {"critic/loss": error, "critic/value": average(returns, known), **learner}
