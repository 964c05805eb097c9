"""How good the model is on the episodes that the policy was scored on, which no fit has seen.

Letters: W segments, H steps, P particles, O observation, A action.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mbkit.diagnostics import measures as diagnose
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.windows import Windows, episodes, windows
from mbkit.types import Actor, Dynamics, Predictive, Trajectory, Transition

LENGTHS = (30, 15, 5, 1)  # steps predicted open loop: the longest that the episodes allow
WINDOWS = 200  # stretches that what is predicted open loop is averaged over
ROWS = 2000  # transitions that one-step measures are averaged over
PARTICLES = 10  # imagined futures of each stretch, so that it meets every member
DOUBTED = 400  # imagined rows at which all members are asked
ERRORS, DOUBTS = (1, 5, 15, 30), (1, 5, 15)  # steps ahead that `headline` tells of
LEVEL = 0.9  # of the interval whose coverage it tells


class Segments(NamedTuple):
    """W stretches of H steps of whole episodes; one in which the episode terminated brings nothing afterwards."""

    obs: Tensor  # [W, O] where they begin
    action: Tensor  # [H, W, A] or [H, W], as recorded
    reward: Tensor  # [H, W], 0 after the end
    taken: Tensor  # bool [H, W]: the step was taken


def diagnose_model(model: Any, held_out: ReplayBuffer, policy: Actor | None = None, gamma: float = 0.99) -> dict[str, Any]:
    """All that the model can be asked; what `diagnostics.json` holds.

    Args:
        model: a learned model; without `predict` there is neither one-step error, calibration nor epistemic uncertainty.
        held_out: whole episodes that it was not fitted to.
        policy: who acts in imagination; None: the actions that were recorded, for planners, each of whose actions costs a search.
        gamma: discount of the returns that are compared.
    """
    found: dict[str, Any] = {}
    everything = held_out.all()
    if not len(everything.reward):
        return found
    rows = evenly(len(everything.reward), ROWS).to(everything.reward.device)
    data = Transition(*(column[rows] for column in everything))
    if isinstance(model, Predictive):
        error, coverage = diagnose.one_step(model, data), diagnose.calibration(model, data)
        mse = sum(e**2 for e in error["rmse"]) / len(error["rmse"])
        found["holdout"] = {"mse": mse, "nll": error["nll"], "per_dim": error["rmse"], "relative": error["relative"], "rows": error["rows"]}
        found["calibration"] = {"nominal": coverage["level"], "empirical": coverage["coverage"], "error": coverage["error"]}
    if isinstance(model, Dynamics):
        stretches = next(w for n in LENGTHS if len((w := windows(held_out, n, WINDOWS)).reward))
        error = diagnose.error_vs_horizon(model, as_trajectory(stretches))
        found["horizon"] = {"steps": error.pop("horizon"), **error}
        real = next((s for n in LENGTHS if len((s := segments(held_out, n, WINDOWS)).obs)), None)
        if real is not None:
            found |= imagination(model, data, real, policy, gamma)
    return found


def imagination(model: Dynamics, data: Transition, real: Segments, policy: Actor | None, gamma: float) -> dict[str, Any]:
    """`return_gap` and `epistemic` along what the model imagines from where the segments begin."""

    def recorded(t: int, obs: Tensor) -> Tensor:
        return torch.cat([real.action[t]] * PARTICLES)

    act = recorded if policy is None else (lambda _, obs: policy.act(obs, explore=False).to(obs.device))
    path = diagnose.imagine(model, real.obs.repeat(PARTICLES, 1), act, len(real.reward))
    found = {"return_gap": diagnose.return_gap(path, real.reward, real.taken if policy is None else None, gamma)}
    if isinstance(model, Predictive):
        some = evenly(path.obs.shape[1], DOUBTED).to(path.obs.device)
        found["epistemic"] = diagnose.epistemic_along(model, diagnose.Imagined(*(x[:, some] for x in path)), data)
    return found


def headline(found: dict[str, Any]) -> dict[str, float]:
    """The numbers of `diagnose_model` that are worth a curve over training, as metrics."""
    metrics: dict[str, float] = {}
    if "horizon" in found:
        error = dict(zip(found["horizon"]["steps"], found["horizon"]["rmse"], strict=True))
        metrics |= {f"diagnose/error_{h}": error[h] for h in ERRORS if h in error}
    if "calibration" in found:
        coverage = dict(zip(found["calibration"]["nominal"], found["calibration"]["empirical"], strict=True))
        metrics |= {f"diagnose/coverage_{100 * LEVEL:.0f}": coverage[LEVEL], "diagnose/calibration_error": found["calibration"]["error"]}
    if "return_gap" in found:
        metrics |= {"diagnose/return_gap": found["return_gap"]["mean"][-1], "diagnose/return_gap_abs": found["return_gap"]["abs"][-1]}
    if "epistemic" in found:
        doubt = dict(zip(found["epistemic"]["steps"], found["epistemic"]["mean"], strict=True))
        metrics |= {f"diagnose/epistemic_{h}": doubt[h] for h in DOUBTS if h in doubt}
    return metrics


def segments(held_out: ReplayBuffer, length: int, limit: int) -> Segments:
    """Stretches of `length` steps, or until the episode terminated, at most `limit` of them, evenly spread over whole episodes.

    Windows without an end inside would be those in which nothing went wrong: a model that knows no end would pass for a true one.
    """
    whole = episodes(held_out)
    if not whole:
        empty = held_out.all()
        return Segments(empty.obs[:0], empty.action[:0], empty.reward[:0, None], empty.reward[:0, None] > 0)
    rows = Experience(*(torch.cat(column) for column in zip(*whole, strict=True)))
    device = rows.reward.device
    left = torch.cat([torch.arange(len(e.reward), 0, -1, device=device) for e in whole])  # steps to the episode's end
    terminates = torch.cat([e.terminated[-1].expand(len(e.reward)) for e in whole])
    start = ((left >= length) | terminates).nonzero().flatten()
    start = start[evenly(len(start), limit).to(device)]
    step = torch.arange(length, device=device)[:, None]
    taken = step < left[start]
    where = (start + step).clamp(max=len(left) - 1)
    return Segments(rows.obs[start], rows.action[where], torch.where(taken, rows.reward[where], 0), taken)


def evenly(count: int, limit: int) -> Tensor:
    """Which of `count` rows to take, at most `limit`, evenly spread: int64."""
    n = min(count, limit)
    return torch.arange(n) * count // max(n, 1)


def as_trajectory(stretches: Windows) -> Trajectory:
    """Windows [B, L] as a trajectory [L, B]; nothing ends inside a window."""
    obs, action, reward = stretches.obs.transpose(0, 1), stretches.action.transpose(0, 1), stretches.reward.T
    one = torch.ones_like(reward)
    return Trajectory(obs[:-1], action, reward, obs[1:], one, torch.zeros_like(one, dtype=torch.bool), torch.zeros_like(one))
