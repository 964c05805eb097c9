"""One step of a policy up a `PolicyObjective`, in place of its agent's loss. Letters: B batch, O observation, A action."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from mbkit.agents.actor_critic.soft import temperature_loss
from mbkit.agents.base import descend_each
from mbkit.networks.heads import Critics
from mbkit.networks.optimizers import FusedAdam
from mbkit.networks.policy import Deterministic, TanhGaussian
from mbkit.types import Pathwise, PolicyObjective


class SoftPath(NamedTuple):
    """What SAC offers to a policy objective."""

    policy: TanhGaussian
    critics: Critics
    alpha: Tensor  # 0-d
    mean: bool = False  # the critics' mean is ascended, not their minimum

    def path_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """A sample of the policy [B, A], and its bonus -alpha log pi [B]."""
        action, log_prob = self.policy.rsample(obs)
        return action, -self.alpha * log_prob

    def path_value(self, obs: Tensor, action: Tensor) -> Tensor:
        """The critics' minimum, or mean, [B]."""
        q: Tensor = self.critics(obs, action, fixed=True)
        return q.mean(0) if self.mean else q.amin(0)


class GreedyPath(NamedTuple):
    """What DDPG and TD3 offer to a policy objective."""

    policy: Deterministic
    critics: Critics

    def path_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The policy's action [B, A], and no bonus [B]."""
        return self.policy(obs), obs.new_zeros(obs.shape[:-1])

    def path_value(self, obs: Tensor, action: Tensor) -> Tensor:
        """The first critic, [B]."""
        return self.critics.first(obs, action)


def ascend(
    optimizer: FusedAdam, objective: PolicyObjective, path: Pathwise, obs: Tensor, first: tuple[Tensor, Tensor], gamma: float
) -> Tensor:
    """One step of the policy on minus the mean of the objective at obs [B, O], from the action and bonus in `first`; that loss, 0-d."""
    loss = -objective(path, obs, first, gamma).mean()
    descend_each((optimizer, [(loss, None)]), max_grad_norm=objective.max_grad_norm)
    return loss.detach()


class SoftAgent(Protocol):
    """What `ascend_softly` needs of SAC."""

    policy: TanhGaussian
    critics: Critics
    optimizers: dict[str, FusedAdam]
    gamma: float
    target_entropy: float
    log_alpha: nn.Parameter


def ascend_softly(agent: SoftAgent, objective: PolicyObjective, obs: Tensor, alpha: Tensor, mean: bool) -> Tensor:
    """`ascend`, and one step of the temperature by the same sample; the loss and the policy's entropy before it, [2]."""
    path = SoftPath(agent.policy, agent.critics, alpha, mean)
    action, log_prob = path.policy.rsample(obs)
    loss = ascend(agent.optimizers["policy"], objective, path, obs, (action, -alpha * log_prob), agent.gamma)
    if "alpha" in agent.optimizers:
        agent.optimizers["alpha"].descend([temperature_loss(agent.log_alpha.detach().exp(), log_prob, agent.target_entropy)])
    return torch.stack((loss, -log_prob.detach().mean()))
