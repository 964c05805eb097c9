"""Priors pi0 of KL-regularised learners: uniform, a user's function, or a policy that learned before and is held fixed.

A prior of discrete actions offers log_probs(obs [B, O]) -> log pi0 of all choices [B, A]; one of continuous actions offers
log_prob(obs [B, O], action [B, A]) -> log-density on the box [-1, 1]^A [B], differentiable in the action. Letters: B batch,
O observation, A dimensions of an action, or number of choices.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mbkit.agents.policy_gradient.on_policy import OnPolicyAgent
from mbkit.envs.known import load_fn
from mbkit.errors import UserError
from mbkit.fields import between
from mbkit.networks.policy import TanhGaussian
from mbkit.types import EnvSpec

INSIDE = 1 - 1e-6  # the largest action a prior is asked about: at 1 the density of a squashed one is not finite
ROWS = 64  # observations and actions on which a prior is tried once


@dataclass(frozen=True)
class PriorConfig:
    """Which prior; fields that every learner with one has."""

    prior: str = "uniform"  # or module:function of your own, or the directory of a run, whose policy is then held fixed
    prior_uniform: float = between(0.0, 0, 1)  # share of the uniform distribution that is mixed in, so that nothing is ruled out


class Uniform(nn.Module):
    """Every choice, or every point of the box, alike: log pi0 = -log A, or -A log 2."""

    def __init__(self, actions: int) -> None:
        super().__init__()
        self.actions = actions

    def log_probs(self, obs: Tensor) -> Tensor:
        """[B, A]."""
        return obs.new_full((len(obs), self.actions), -math.log(self.actions))

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """[B]."""
        return obs.new_full((len(obs),), -self.actions * math.log(2))


class Function(nn.Module):
    """A function of the user's: (obs) -> [B, A] for choices, (obs, action) -> [B] for boxes."""

    def __init__(self, fn: Callable[..., Tensor]) -> None:
        super().__init__()
        self.fn = fn

    def log_probs(self, obs: Tensor) -> Tensor:
        """[B, A]."""
        return self.fn(obs)

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """[B]."""
        return self.fn(obs, action)


class Squashed(nn.Module):
    """A squashed Gaussian policy as it stands now."""

    def __init__(self, policy: TanhGaussian) -> None:
        super().__init__()
        self.policy = deepcopy(policy).requires_grad_(False)

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """log N(atanh a) - sum log(1 - a^2), [B]."""
        mean, log_std = self.policy(obs)
        normal = torch.distributions.Normal(mean, log_std.exp(), validate_args=False)
        each: Tensor = normal.log_prob(action.atanh()) - torch.log1p(-action.square())  # type: ignore[no-untyped-call]
        return each.sum(-1)


class Choices(nn.Module):
    """A frozen agent of discrete actions, by its own account of log pi."""

    def __init__(self, agent: nn.Module, log_probs: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.agent, self._log_probs = agent.requires_grad_(False), log_probs

    def log_probs(self, obs: Tensor) -> Tensor:
        """[B, A]."""
        return self._log_probs(obs)


class Mixed(nn.Module):
    """(1 - share) pi0 + share uniform: full support, and a log-ratio that is bounded from above."""

    def __init__(self, prior: nn.Module, actions: int, share: float) -> None:
        super().__init__()
        self.prior, self.uniform = prior, Uniform(actions)
        self.shares = math.log1p(-share) if share < 1 else -math.inf, math.log(share)

    def log_probs(self, obs: Tensor) -> Tensor:
        """[B, A]."""
        return torch.logaddexp(self.prior.log_probs(obs) + self.shares[0], self.uniform.log_probs(obs) + self.shares[1])  # type: ignore[operator]

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """[B]."""
        return torch.logaddexp(self.prior.log_prob(obs, action) + self.shares[0], self.uniform.log_prob(obs, action) + self.shares[1])  # type: ignore[operator]


def make_prior(cfg: PriorConfig, spec: EnvSpec, given: Any = None) -> Any:
    """The prior that `cfg` names, or a policy that is `given`; checked once on random rows.

    Args:
        cfg: the agent's configuration.
        spec: dimensions of the environment.
        given: an object with log_probs(obs), or log_prob(obs, action) for continuous actions, or a TanhGaussian; None: as `cfg` says.

    Raises:
        UserError: neither a function nor a policy, or one that fails `check_prior`.
    """
    name, method = f"agent.prior={cfg.prior}", "log_probs" if spec.discrete else "log_prob"
    if given is not None:
        given = Squashed(given) if isinstance(given, TanhGaussian) else given
        if not hasattr(given, method):
            expected = f"a policy with {method}({'obs' if spec.discrete else 'obs, action'})"
            raise UserError(f"{name}: expected {expected}, came a {type(given).__name__}")
        prior = given.requires_grad_(False) if isinstance(given, nn.Module) else Function(getattr(given, method))
    elif cfg.prior == "uniform":
        prior = Uniform(spec.action_dim)
    elif ":" in cfg.prior:
        prior = Function(load_fn(cfg.prior))
    else:
        raise UserError(f"{name}: expected uniform, module:function, or the directory of a run; there is no such directory")
    prior.to(spec.device)
    check_prior(prior, spec, name)
    return Mixed(prior, spec.action_dim, cfg.prior_uniform) if cfg.prior_uniform else prior


@torch.no_grad()
def check_prior(prior: Any, spec: EnvSpec, name: str) -> None:
    """UserError naming the prior where it has another shape, is not finite, does not sum to 1 (choices) or has no gradient (boxes)."""
    draw = torch.Generator().manual_seed(0)  # its own: the run's random numbers are not spent
    obs = torch.randn(ROWS, spec.obs_dim, generator=draw).to(spec.device)
    action = torch.rand(ROWS, spec.action_dim, generator=draw).to(spec.device) * 2 - 1
    action[: ROWS // 4] = action[: ROWS // 4].sign() * INSIDE  # corners
    shape = (ROWS, spec.action_dim) if spec.discrete else (ROWS,)
    asked = f"obs {[ROWS, spec.obs_dim]}" + ("" if spec.discrete else f", action {[ROWS, spec.action_dim]}")
    expected = f"{name} of {asked}: expected log-{'probabilities' if spec.discrete else 'densities'} of shape {list(shape)}"
    try:
        found = prior.log_probs(obs) if spec.discrete else prior.log_prob(obs, action)
        shown = list(found.shape)
    except Exception as error:  # whatever the user's function raises
        raise UserError(f"{expected}, got {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from error
    if not isinstance(found, Tensor):
        raise UserError(f"{expected} as a torch.Tensor, got a {type(found).__module__}.{type(found).__name__}")
    if shown != list(shape) or not found.is_floating_point():
        raise UserError(f"{expected}, got {found.dtype} {shown}")
    if not found.isfinite().all():
        bad = int((~found.isfinite()).flatten(1).any(1).sum()) if spec.discrete else int((~found.isfinite()).sum())
        where = "choices" if spec.discrete else "points of the box [-1, 1]"
        raise UserError(f"{expected}, finite at all {where}, which its support must cover; in {bad} of {ROWS} rows it is not")
    if spec.discrete and not torch.allclose(total := found.exp().sum(-1), torch.ones_like(found[:, 0]), atol=1e-3):
        raise UserError(f"{expected} whose probabilities sum to 1, got a sum of {float(total[0]):.3g}")
    if not spec.discrete:
        with torch.enable_grad():  # type: ignore[no-untyped-call]
            followed = prior.log_prob(obs, action.requires_grad_()).requires_grad
        if not followed and not torch.equal(found, prior.log_prob(obs, action.detach().flip(0))):  # a constant needs no gradient
            raise UserError(f"{expected} that are differentiable in the action, got no gradient (detach, numpy or no_grad inside?)")


def policy_of(agent: nn.Module, discrete: bool) -> nn.Module:
    """What a learned agent would do, as a prior: its policy held fixed.

    Raises:
        UserError: an agent without probabilities (DQN, DDPG, ...), or whose policy has atoms at the sides of the box (PPO, ...).
    """
    policy = getattr(agent, "policy", None)
    if isinstance(policy, TanhGaussian):
        return Squashed(policy)
    if discrete and isinstance(agent, OnPolicyAgent):
        return Choices(agent, lambda obs: agent.distribution(obs).log_probs())  # type: ignore[attr-defined]
    if discrete and hasattr(agent, "log_probs"):
        return Choices(agent, lambda obs: agent.log_probs(obs))  # type: ignore[operator]
    wanted = "choice probabilities (soft_q, munchausen_dqn, sac_discrete, kl_sac, ppo)" if discrete else "a squashed Gaussian (sac, kl_sac)"
    raise UserError(f"a prior's policy needs {wanted}; came a run of {type(agent).__name__}")
