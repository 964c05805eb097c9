"""Priors pi0 of KL-regularised learners: uniform, a user's function, or the policy of another agent, held fixed.

Letters: B batch, O observation, A dimensions of an action, or number of discrete actions. Where several discrete actions are taken at
once, a prior is a product over the parts: its log-probabilities lie side by side, A is the sum of the parts' numbers of actions.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mbkit.errors import UserError, guarded
from mbkit.fields import between
from mbkit.networks.parts import as_table
from mbkit.networks.policy import TanhGaussian
from mbkit.paths import short
from mbkit.types import EnvSpec

INSIDE = 1 - 1e-6  # largest action at which a prior is evaluated: at 1 the density of a squashed one is not finite
ROWS = 64  # observations and actions on which a prior is checked


@dataclass(frozen=True)
class PriorConfig:
    """The prior of a KL-regularised learner."""

    prior: str = "uniform"  # prior policy: uniform, module:function, or the directory of a run, whose policy is held fixed
    prior_uniform: float = between(0.0, 0, 1, when="prior!=uniform")  # share of the uniform distribution in the prior


@runtime_checkable
class DiscretePrior(Protocol):
    """A policy of discrete actions that has log-probabilities: agents such as SoftQ or PPO, or an object of the user's."""

    def log_probs(self, obs: Tensor) -> Tensor: ...  # noqa: D102 - obs [B, O] -> log pi0 of all actions [B, A]


@runtime_checkable
class ContinuousPrior(Protocol):
    """A policy of continuous actions that has a density on the box [-1, 1]^A."""

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor: ...  # noqa: D102 - log-density [B], differentiable in action [B, A]


PriorPolicy = DiscretePrior | ContinuousPrior | TanhGaussian  # policies that a learner accepts as its prior


class Uniform(nn.Module):
    """The uniform distribution over discrete actions, over those of each part, or over the box: log pi0 = -log A, or -A log 2."""

    def __init__(self, actions: int, parts: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.actions, self.parts = actions, parts

    def log_probs(self, obs: Tensor) -> Tensor:
        """[B, A]."""
        return torch.cat([obs.new_full((obs.shape[0], n), -math.log(n)) for n in self.parts or (self.actions,)], -1)

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """[B]."""
        return obs.new_full((len(obs),), -self.actions * math.log(2))


class Squashed(nn.Module):
    """A copy of a squashed Gaussian policy, held fixed."""

    def __init__(self, policy: TanhGaussian) -> None:
        super().__init__()
        self.policy = deepcopy(policy).requires_grad_(False)

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """log N(atanh a) - sum log(1 - a^2), [B]."""
        mean, log_std = self.policy(obs)
        normal = torch.distributions.Normal(mean, log_std.exp(), validate_args=False)
        each: Tensor = normal.log_prob(action.atanh()) - torch.log1p(-action.square())  # type: ignore[no-untyped-call]
        return each.sum(-1)


class Prior(nn.Module):
    """The prior of a learner: (1 - share) pi0 + share uniform. With a share it has full support, and log(pi / pi0) has a bound.

    Args:
        log_density: log pi0 [B, A] of obs [B, O], or log pi0 [B] of obs and action [B, A].
        policy: the object whose method `log_density` is; a module's parameters are held fixed.
        actions: A.
        share: of the uniform distribution, in each part where there are several.
        parts: numbers of actions of several discrete actions taken at once.
    """

    def __init__(self, log_density: Callable[..., Tensor], policy: object, actions: int, share: float, parts: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.log_density, self.uniform, self.share, self.parts = log_density, Uniform(actions, parts), share, parts
        self.policy = policy.requires_grad_(False) if isinstance(policy, nn.Module) else None

    def log_probs(self, obs: Tensor) -> Tensor:
        """log pi0 of all discrete actions, [B, A]."""
        log_pi0 = self.log_density(obs)
        return mixed(log_pi0, self.uniform.log_probs(obs), self.share) if self.share else log_pi0

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """log pi0 of continuous actions [B, A], [B]."""
        log_pi0 = self.log_density(obs, action)
        return mixed(log_pi0, self.uniform.log_prob(obs, action), self.share) if self.share else log_pi0


def mixed(log_p: Tensor, log_q: Tensor, share: float) -> Tensor:
    """log((1 - share) p + share q), of any shape."""
    return torch.logaddexp(log_p + (math.log1p(-share) if share < 1 else -math.inf), log_q + math.log(share))


def make_prior(cfg: PriorConfig, spec: EnvSpec, policy: PriorPolicy | None = None) -> Prior:
    """The prior of a learner: `policy`, or the one that `cfg` names; checked once on random rows.

    Raises:
        UserError: neither a function nor a policy, or one that fails `check_prior`.
    """
    name = f"agent.prior={short(cfg.prior)}"
    if policy is None and cfg.prior == "uniform":
        policy = Uniform(spec.action_dim, spec.parts)
    elif isinstance(policy, TanhGaussian):
        policy = Squashed(policy)
    if policy is not None:
        log_density = log_density_of(policy, spec.discrete, name)
    elif ":" in cfg.prior:
        from mbkit.envs.known import load_fn  # with it come simulators, which checking options need not wait for

        log_density = load_fn(cfg.prior)
    else:
        raise UserError(f"{name}: expected uniform, module:function, or the directory of a run; there is no such directory")
    used = log_density if policy is not None else guarded(log_density, name)
    prior = Prior(used, policy, spec.action_dim, cfg.prior_uniform, spec.parts).to(spec.device)
    check_prior(log_density, spec, name)
    return prior


def log_density_of(policy: DiscretePrior | ContinuousPrior, discrete: bool, name: str) -> Callable[..., Tensor]:
    """The method of a policy that returns log pi0; UserError where it lacks the one for this kind of actions."""
    if discrete and isinstance(policy, DiscretePrior):
        return policy.log_probs
    if not discrete and isinstance(policy, ContinuousPrior):
        return policy.log_prob
    method = "log_probs(obs)" if discrete else "log_prob(obs, action)"
    raise UserError(f"{name}: expected a policy with {method}, came a {type(policy).__name__}")


def check_prior(log_density: Callable[..., Tensor], spec: EnvSpec, name: str) -> None:
    """UserError where log pi0 of random rows has another shape, is not finite, does not sum to 1 (discrete), or has no gradient (boxes)."""
    draw = torch.Generator().manual_seed(0)  # not the run's generator, whose numbers must not be spent
    obs = torch.randn(ROWS, spec.obs_dim, generator=draw).to(spec.device)
    action = torch.rand(ROWS, spec.action_dim, generator=draw).to(spec.device) * 2 - 1
    action[: ROWS // 4] = action[: ROWS // 4].sign() * INSIDE  # corners of the box
    arguments = (obs,) if spec.discrete else (obs, action)
    shape = [ROWS, spec.action_dim] if spec.discrete else [ROWS]
    of = ", ".join(f"{label} {list(x.shape)}" for label, x in zip(("obs", "action"), arguments, strict=False))
    expected = f"{name} of {of}: expected log-{'probabilities' if spec.discrete else 'densities'} of shape {shape}"
    try:
        with torch.no_grad():
            log_pi0 = log_density(*arguments)
        shown = list(log_pi0.shape)
    except Exception as error:  # whatever the user's function raises
        raise UserError(f"{expected}, got {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from error
    if not isinstance(log_pi0, Tensor):
        raise UserError(f"{expected} as a torch.Tensor, got a {type(log_pi0).__module__}.{type(log_pi0).__name__}")
    if shown != shape or not log_pi0.is_floating_point():
        raise UserError(f"{expected}, got {log_pi0.dtype} {shown}")
    if infinite := int((~log_pi0.isfinite()).reshape(ROWS, -1).any(1).sum()):
        where = "actions" if spec.discrete else "points of the box [-1, 1]"
        raise UserError(f"{expected}, finite at all {where}, which its support must cover; in {infinite} of {ROWS} rows it is not")
    parts = spec.parts or (spec.action_dim,)
    if spec.discrete and not torch.allclose(total := as_table(log_pi0.exp(), parts, 0.0).sum(-1), torch.ones_like(total), atol=1e-3):
        each = f" in each of the parts {spec.parts}" if spec.parts else ""
        raise UserError(f"{expected} whose probabilities sum to 1{each}, got a sum of {float(total[0, 0]):.3g}")
    if not spec.discrete and not has_gradient(log_density, obs, action):
        raise UserError(f"{expected} that are differentiable in the action, got no gradient (detach, numpy or no_grad inside?)")


def has_gradient(log_density: Callable[..., Tensor], obs: Tensor, action: Tensor) -> bool:
    """Whether a gradient reaches the action; a density that is constant in it needs none."""
    log_pi0 = log_density(obs, action.clone().requires_grad_())
    return log_pi0.requires_grad or torch.equal(log_pi0, log_density(obs, action.flip(0)))


def policy_of(agent: nn.Module, discrete: bool) -> DiscretePrior | ContinuousPrior:
    """The policy of a trained agent, held fixed, for use as a prior.

    Raises:
        UserError: an agent without probabilities (DQN, DDPG, ...), or whose policy has atoms at the sides of the box (PPO, ...).
    """
    policy = dict(agent.named_children()).get("policy")
    if not discrete and isinstance(policy, TanhGaussian):
        return Squashed(policy)
    if discrete and isinstance(agent, DiscretePrior):
        return agent.requires_grad_(False)
    probabilities = "probabilities of discrete actions (soft_q, munchausen_dqn, sac_discrete, kl_sac, ppo)"
    kind = probabilities if discrete else "a squashed Gaussian (sac, kl_sac)"
    raise UserError(f"a prior's policy needs {kind}; came a run of {type(agent).__name__}")
