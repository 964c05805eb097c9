"""Bootstrapped targets of any agent: reward + gamma * discount * value, with the weights of the rows.

Letters: B batch, K critics.
"""

import torch
from torch import Tensor

from mbkit.types import Backup, Targets, Transition


@torch.no_grad()
def one_step(agent: Backup, batch: Transition, gamma: float) -> Targets:
    """y = r + gamma * discount * (min_k Q_k(s', a') + bonus), a' chosen by the agent; one row per transition, [B]."""
    action, bonus = agent.backup_action(batch.next_obs)
    pairs: bool = getattr(agent, "pairs", False)  # of critics that normalise by their batch
    q = agent.successor_q(batch, action) if pairs else agent.backup_q(batch.next_obs, action)  # type: ignore[attr-defined]
    target = batch.reward + gamma * batch.discount * (q.amin(0) + bonus)
    return Targets(batch.obs, batch.action, target, batch.weight, (batch.next_obs, action) if pairs else None)


@torch.no_grad()
def bootstrapped(batch: Transition, value: Tensor, gamma: float) -> Targets:
    """y = r + gamma * discount * V(s'), of V(s') [B]; one row per transition, [B]."""
    return Targets(batch.obs, batch.action, torch.addcmul(batch.reward, batch.discount, value, value=gamma), batch.weight)
