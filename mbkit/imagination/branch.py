"""Branched rollouts: k model steps from states of the replay (MBPO, Janner et al. 2019, arXiv:1906.08253, Algorithm 2).

Letters: B rows, k rollout length, O observation, A action.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mbkit.errors import UserError
from mbkit.replay.model_buffer import ModelBuffer
from mbkit.types import Dynamics, PolicyFn, Prediction, Step, Transition


class Verdict(NamedTuple):
    """A gate's decision on one model step of B rows; what it is for rows that are not alive does not count."""

    store: Tensor  # bool [B] the transition is stored
    go_on: Tensor  # bool [B] the rollout goes on
    penalty: Tensor  # [B] subtracted from the stored reward
    weight: Tensor | None = None  # [B] of the stored row in the critics' loss; None: 1 each


class Gate(Protocol):
    """Decides which model transitions are stored, from the members' Gaussians, alive bool [B], the step 0..k-1, and k. See `gate`."""

    def __call__(self, prediction: Prediction, alive: Tensor, step: int, k: int) -> Verdict: ...  # noqa: D102


class BranchCounts(NamedTuple):
    """Model steps of one call of `branch`, 0-d tensors on the device."""

    offered: Tensor  # steps of rows that were alive
    stored: Tensor  # of these, those that went into the buffer
    broken: Tensor  # of these, those with numbers that are not finite, which are never stored


@torch.no_grad()
def branch(dynamics: Dynamics, policy: PolicyFn, obs: Tensor, k: int, buffer: ModelBuffer, gate: Gate | None = None) -> BranchCounts:
    """Roll the model k steps from obs [B, O] under `policy` and store the transitions, all at static shapes.

    A row is no longer alive after it terminated, after the gate ended it, or after a model step that is not finite: it is still computed,
    but never stored. The discount of a stored row is 0 where the model terminated, 1 otherwise: the end of a rollout is no end of an
    episode. UserError where there is a gate and the model returns no prediction.
    """
    carry, alive = dynamics.init(obs), torch.ones(len(obs), dtype=torch.bool, device=obs.device)
    offered, stored, broken = (torch.zeros((), dtype=torch.int64, device=obs.device) for _ in range(3))
    for t in range(k):
        action = policy(obs)
        step = dynamics.step(carry, action, predict=gate is not None)
        finite = step.obs.isfinite().all(-1) & step.reward.isfinite()
        store = go_on = alive & finite
        reward, weight = step.reward, None
        if gate is not None:
            verdict = gate(prediction_of(step, dynamics), store, t, k)
            store, go_on, reward = store & verdict.store, go_on & verdict.go_on, reward - verdict.penalty
            store, weight = store & reward.isfinite(), verdict.weight
        buffer.extend(Transition(obs, action, reward, step.obs, (~step.terminated).float(), weight=weight), store)
        offered += alive.sum()
        stored += store.sum()
        broken += (alive & ~finite).sum()
        alive = go_on & ~step.terminated
        carry, obs = step.state, step.obs
    return BranchCounts(offered, stored, broken)


def prediction_of(step: Step, dynamics: Dynamics) -> Prediction:
    """The members' Gaussians of a step that was asked for them; UserError where the model returns none."""
    if step.prediction is None:
        raise UserError(
            f"imagination.gate compares the members' predictions, but {type(dynamics).__name__} returns none; "
            "expected a model such as the ensemble, or imagination.gate=none"
        )
    return step.prediction
