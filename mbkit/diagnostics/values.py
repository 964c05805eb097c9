"""An agent's Q at the states of an evaluation against the return that followed: whether its critics over- or underestimate.

Letters: T steps of an episode, N states, O observation, A action.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.windows import episodes
from mbkit.returns import discounted_return

TINY = 1e-8


@runtime_checkable
class Critic(Protocol):
    """An agent with action values."""

    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor: ...  # noqa: D102 - [K, B], every target critic
    def value(self, obs: Tensor) -> Tensor: ...  # noqa: D102 - [B]


@torch.no_grad()
def q_gap(agent: Critic, held_out: ReplayBuffer, gamma: float) -> dict[str, Any]:
    """Q(s, a) minus the discounted return from there, over the states of whole episodes: above zero where Q overestimates.

    Q is the smallest of the target critics. The return is soft where the agent's values are: later steps pay what its n-step backups add.
    Where a time limit cut an episode, the agent's value of the last state stands for the rest and the first half of the states counts.

    Returns:
        `mean` and `abs`, the means over states of the gap and of its absolute value; `optimism`, that mean over the mean absolute
        return; `q` and `real`, the means of both sides; `rows`, N. Empty where no episode is whole.
    """
    pairs = [compared(agent, episode, gamma) for episode in episodes(held_out)]
    if not pairs:
        return {}
    q, real = (torch.cat(column) for column in zip(*pairs, strict=True))
    gap = q - real
    columns = {"mean": gap, "abs": gap.abs(), "q": q, "real": real}
    means = {name: float(x.mean()) for name, x in columns.items()}
    return {**means, "optimism": means["mean"] / max(float(real.abs().mean()), TINY), "rows": len(gap)}


def compared(agent: Critic, episode: Experience, gamma: float) -> tuple[Tensor, Tensor]:
    """Q [N] of an episode's states and actions, and their returns [N]."""
    obs, action, terminated = episode.obs, episode.action, episode.terminated
    later = getattr(agent, "path_bonus", None)  # what a later step adds to its reward
    first = getattr(agent, "bonus", None)  # what the step itself adds (Munchausen)
    none = torch.zeros_like(episode.reward)
    paid = none if later is None else later(obs, action)
    end = torch.where(terminated, 0.0, agent.value(episode.next_obs[-1:]))  # counts in the last row alone
    columns = (episode.reward + paid, (~terminated).to(none), episode.ended, end)
    reward, discount, ended, next_value = (x[:, None] for x in columns)
    soft = discounted_return(reward, discount, ended, next_value, gamma)[:, 0]
    real = soft - paid + (none if first is None else first(obs, action))
    counted = len(none) if terminated[-1] else (len(none) + 1) // 2
    return agent.backup_q(obs, action).amin(0)[:counted], real[:counted]
