"""Branched rollouts: k imagined steps from states that were really visited (MBPO, Janner et al. 2019, arXiv:1906.08253, Algorithm 2).

Letters: B rows, k rollout length, O observation, A action.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mbkit.replay.model_buffer import ModelBuffer
from mbkit.types import Dynamics, Prediction, Transition

Policy = Callable[[Tensor], Tensor]  # obs [B, O] -> actions [B, A]


class Verdict(NamedTuple):
    """What a gate says of one imagined step of B rows; of rows that are dead already it may say anything."""

    store: Tensor  # bool [B] worth remembering
    go_on: Tensor  # bool [B] imagined further
    penalty: Tensor  # [B] taken from the stored reward


class Gate(Protocol):
    """Judges a model's predictions: members' Gaussians, alive bool [B], the step 0..k-1, and k. See `gate`."""

    def __call__(self, prediction: Prediction, alive: Tensor, step: int, k: int) -> Verdict: ...  # noqa: D102


class Imagined(NamedTuple):
    """What became of B branches of k steps, 0-d tensors on the device."""

    offered: Tensor  # steps taken by rows that were alive
    stored: Tensor  # of these, how many went into the buffer
    broken: Tensor  # of these, how many had numbers that are not finite, and went nowhere


@torch.no_grad()
def branch(dynamics: Dynamics, policy: Policy, obs: Tensor, k: int, buffer: ModelBuffer, gate: Gate | None = None) -> Imagined:
    """Roll the model k steps from obs [B, O] under `policy` and store the transitions, all at static shapes.

    A row is dead after it terminated, after the gate closed on it, or after the model gave numbers that are not finite: it is computed on,
    but never stored. The discount of a stored row is 0 where the model terminated, 1 otherwise: the end of a rollout is no end of an
    episode.
    """
    carry, alive = dynamics.init(obs), torch.ones(len(obs), dtype=torch.bool, device=obs.device)
    offered, stored, broken = (torch.zeros((), dtype=torch.int64, device=obs.device) for _ in range(3))
    for t in range(k):
        action = policy(obs)
        step = dynamics.step(carry, action)
        finite = step.obs.isfinite().all(-1) & step.reward.isfinite()
        keep = go_on = alive & finite
        reward = step.reward
        if gate is not None:
            assert step.prediction is not None  # whoever made the gate told the model to predict
            verdict = gate(step.prediction, keep, t, k)
            keep, go_on, reward = keep & verdict.store, go_on & verdict.go_on, reward - verdict.penalty
            keep = keep & reward.isfinite()
        buffer.extend(Transition(obs, action, reward, step.obs, (~step.terminated).float()), keep)
        offered += alive.sum()
        stored += keep.sum()
        broken += (alive & ~finite).sum()
        alive = go_on & ~step.terminated
        carry, obs = step.state, step.obs
    return Imagined(offered, stored, broken)
