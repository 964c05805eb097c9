"""Value networks: critics of state-action pairs, of all discrete actions at once, and of states, plain or normalised.

Letters: K critics, B batch, O observation, A dimensions of an action or number of discrete actions, S seeds, Z outputs for each value, 1 or
the atoms of a distribution.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from mbkit.networks.form import PLAIN, CriticForm
from mbkit.networks.mlp import EnsembleMLP, Nonlinearity, mlp
from mbkit.networks.normalizer import RunningNormalizer
from mbkit.networks.sampled_actions import action_level, levels_of
from mbkit.networks.values import outputs_of, unit_of
from mbkit.registry import critics as architectures

C = TypeVar("C", bound="Stackable")


class Stackable(nn.Module):
    """K critics, or those of S seeds side by side, [S K] networks, whose rows are [S, B, ...] and whose values [K, S, B]."""

    members: int  # K
    seeds = 0  # S; 0: of one seed, without a dimension for it

    def rows(self, x: Tensor) -> Tensor:
        """Inputs of the networks: x [B, I] as it is; of S seeds, x [S, B, I] -> [S K, B, I]."""
        return x.repeat_interleave(self.members, 0) if self.seeds else x

    def by_critic(self, out: Tensor) -> Tensor:
        """Outputs of the networks, [K, B, D], as they are; of S seeds, [S K, B, D] -> [K, S, B, D]."""
        return out.view(self.seeds, -1, *out.shape[1:]).transpose(0, 1) if self.seeds else out

    def by_network(self, x: Tensor) -> Tensor:
        """Inverse of `by_critic`."""
        return x.transpose(0, 1).flatten(0, 1) if self.seeds else x


class Critics(Stackable):
    """K action-value functions: obs [B, O], action [B, A] -> [K, B]."""

    def __init__(self, members: int, obs_dim: int, action_dim: int, hidden: Sequence[int], form: CriticForm = PLAIN) -> None:
        super().__init__()
        self.members, self.form, self.outputs = members, form, outputs_of(form)
        self.net = architectures[form.critic].target(members, (obs_dim + action_dim, *hidden, self.outputs.width), form)
        self.inputs: nn.Module = nn.Identity()  # or the agent's normaliser of observations

    def forward(self, obs: Tensor, action: Tensor, fixed: bool = False) -> Tensor:
        """The values of every critic, [K, B]; `fixed`: the critics are constants, as in a policy's loss."""
        return self.outputs.values(self.out(obs, action, fixed))

    def out(self, obs: Tensor, action: Tensor, fixed: bool = False) -> Tensor:
        """The outputs of every critic, [K, B, Z]."""
        return self.by_critic(self.net(self.rows(torch.cat((self.inputs(obs), action), -1)), fixed))

    def beside(self, obs: Tensor, action: Tensor, next_obs: Tensor, next_action: Tensor) -> Tensor:
        """Outputs [K, B, Z] at the next observations [B, O] and actions [B, A], normalised together with those before them."""
        pairs = torch.cat((self.inputs(obs), action), -1), torch.cat((self.inputs(next_obs), next_action), -1)
        out: Tensor = self.net.joint(torch.cat(pairs), learn=False, wanted=slice(len(obs), None))
        return out

    def first(self, obs: Tensor, action: Tensor) -> Tensor:
        """The value of the first critic, [B], a constant, without computing the others: the objective of DDPG's and TD3's policy."""
        out = self.net(torch.cat((self.inputs(obs), action), -1), fixed=True, members=slice(0, 1))
        return self.outputs.values(out)[0]

    def level(
        self,
        obs: Tensor,
        action: Tensor,
        log_density: Tensor | None,
        dtype: torch.dtype | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """See `action_level`: many actions [B, M, A] of each obs [B, O], all constants, reduced to one number for each critic, [K].

        In units of reward; a log-sum-exp of distributions is one of values in return scales.
        """
        if self.form == PLAIN:
            return action_level(self.net, self.inputs(obs), action, log_density, dtype, weight)
        q: Tensor = self(obs.repeat_interleave(action.shape[1], 0), action.flatten(0, 1))
        unit = unit_of(self.outputs)
        return unit * levels_of(q.view(len(q), len(obs), -1) / unit, log_density, weight)


class ActionValues(Stackable):
    """K critics of discrete actions: obs [B, O] -> the values of all A actions, [K, B, A]."""

    def __init__(self, members: int, obs_dim: int, actions: int, hidden: Sequence[int], form: CriticForm = PLAIN) -> None:
        super().__init__()
        self.members, self.actions, self.form, self.outputs = members, actions, form, outputs_of(form)
        self.net = architectures[form.critic].target(members, (obs_dim, *hidden, actions * self.outputs.width), form)
        self.inputs: nn.Module = nn.Identity()  # or the agent's normaliser of observations

    def forward(self, obs: Tensor) -> Tensor:
        """The values of every critic, [K, B, A]."""
        return self.outputs.values(self.by_action(self.by_critic(self.net(self.rows(self.inputs(obs))))))

    def by_action(self, out: Tensor) -> Tensor:
        """Outputs [K, B, A Z] -> [K, B, A, Z]."""
        return out.view(*out.shape[:-1], self.actions, -1)

    def out(self, obs: Tensor, action: Tensor) -> Tensor:
        """The outputs of actions int64 [B], [K, B, Z]."""
        return taken_outputs(self.by_action(self.net(self.inputs(obs))), action)

    def beside(self, obs: Tensor, action: Tensor, next_obs: Tensor, next_action: Tensor) -> Tensor:
        """Outputs [K, B, Z] of the next actions int64 [B] at next observations [B, O], normalised together with those before them."""
        both = torch.cat((self.inputs(obs), self.inputs(next_obs)))
        return taken_outputs(self.by_action(self.net.joint(both, learn=False, wanted=slice(len(obs), None))), next_action)

    def mode(self, obs: Tensor) -> Tensor:
        """The best action by the smallest of the critics, int64 [B]: the action without exploration."""
        return self.forward(obs).amin(0).argmax(-1)


def target_network(online: C) -> C:
    """A copy whose parameters are constants, with the same return scale."""
    outputs = getattr(online, "outputs", None)
    return deepcopy(online, {id(outputs): outputs}).requires_grad_(False)


def q_of(critics: Critics | ActionValues, obs: Tensor, action: Tensor) -> Tensor:
    """The values of continuous actions [B, A] or discrete ones int64 [B] at obs [B, O], of every critic, [K, B]."""
    q: Tensor = taken(critics(obs), action) if isinstance(critics, ActionValues) else critics(obs, action)
    return q


def taken_outputs(out: Tensor, action: Tensor) -> Tensor:
    """The outputs of the actions int64 [N] among out [K, N, A, Z] -> [K, N, Z]."""
    return out.gather(-2, action[:, None, None].expand(*out.shape[:-2], 1, out.shape[-1]))[..., 0, :]


def taken(q: Tensor, action: Tensor) -> Tensor:
    """The values of the actions int64 [N] among q [..., N, A] -> [..., N]."""
    return q.gather(-1, action.expand(q.shape[:-1])[..., None])[..., 0]


class StateValue(nn.Module):
    """A state-value function by a ReLU network: obs [B, O] -> [B]."""

    def __init__(self, obs_dim: int, hidden: Sequence[int], layer_norm: bool = False) -> None:
        super().__init__()
        self.net = EnsembleMLP(1, (obs_dim, *hidden, 1), layer_norm=layer_norm)
        self.inputs: nn.Module = nn.Identity()  # or the agent's normaliser of observations

    def forward(self, obs: Tensor) -> Tensor:
        """The values, [B]."""
        value: Tensor = self.net(self.inputs(obs))
        return value[0].squeeze(-1)


class ValueNetwork(nn.Module):
    """State values: obs [B, O] -> [B] in raw units; the network itself computes them normalised by the statistics of its past targets."""

    def __init__(self, obs_dim: int, hidden: Sequence[int], activation: Nonlinearity = "tanh") -> None:
        super().__init__()
        self.net = mlp((obs_dim, *hidden, 1), activation)
        self.normalizer = RunningNormalizer(1, clip=math.inf)  # of targets; `inverse` gives raw units

    def normalized(self, obs: Tensor) -> Tensor:
        """The value in standard deviations of the targets, [B]: the number that is regressed."""
        value: Tensor = self.net(obs)
        return value.squeeze(-1)

    def forward(self, obs: Tensor) -> Tensor:
        """The value in raw units, [B]."""
        return self.normalizer.inverse(self.normalized(obs))

    @torch.no_grad()
    def rescale(self, targets: Tensor, weight: Tensor | None = None) -> None:
        """Add targets [B], weighted [B], to the statistics; the last layer is changed so that no value is (arXiv:1602.07714, eq. 9)."""
        old_mean, old_std = self.normalizer.mean.clone(), self.normalizer.std.clone()
        self.normalizer.update(targets.reshape(-1, 1), weight)
        last = cast("nn.Linear", self.net[-1])
        last.weight.mul_(old_std / self.normalizer.std)
        last.bias.mul_(old_std).add_(old_mean - self.normalizer.mean).div_(self.normalizer.std)
