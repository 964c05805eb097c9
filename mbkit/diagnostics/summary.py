"""All measures of a model on the episodes of an evaluation, which no fit has used, and their headline numbers as metrics.

Letters: W segments, H steps, P particles, Q levels, O observation, A action, D prediction.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mbkit.diagnostics import measures
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.windows import Windows, episodes, windows
from mbkit.types import Actor, Dynamics, Predictive, Trajectory, Transition

LENGTHS = (30, 15, 5, 1)  # steps predicted open loop: the longest that the episodes allow
WINDOWS = 200  # windows and segments that open-loop measures are averaged over
ROWS = 2000  # transitions that one-step measures are averaged over
PARTICLES = 10  # model paths from the start of each segment, so that each of them meets every member
EPISTEMIC_ROWS = 400  # model paths along which all members predict
ERROR_STEPS, EPISTEMIC_STEPS = (1, 5, 15, 30), (1, 5, 15)  # steps ahead in the headline
COVERAGE_LEVEL = 0.9  # probability of the interval whose coverage is in the headline


class Segments(NamedTuple):
    """W segments of H steps of whole episodes; after a termination the rewards are 0."""

    obs: Tensor  # [W, O] first observations
    action: Tensor  # [H, W, A] or [H, W], as recorded
    reward: Tensor  # [H, W], 0 after the end
    taken: Tensor  # bool [H, W]: the step was taken


def diagnose_model(model: Any, held_out: ReplayBuffer, policy: Actor | None = None, gamma: float = 0.99, least: int = 1) -> dict[str, Any]:
    """All measures that the model allows; the contents of `diagnostics.json`.

    Args:
        model: a learned model; without `predict` there is neither one-step error, calibration nor epistemic uncertainty.
        held_out: whole episodes that it was not fitted to.
        policy: chooses the actions of model rollouts; None: the recorded actions, for planners, each of whose actions costs a search.
        gamma: discount of the returns that are compared.
        least: fewest windows, and segments, of the longest open-loop rollouts.
    """
    transitions = held_out.all()
    if not len(transitions.reward):
        return {}
    rows = evenly(len(transitions.reward), ROWS).to(transitions.reward.device)
    data = to_predict(model, Transition(*(column[rows] for column in transitions[:5])))
    diagnostics = one_step(model, data) if isinstance(model, Predictive) else {}
    if isinstance(model, Dynamics):
        every = [w for n in LENGTHS if len((w := windows(held_out, n, WINDOWS)).reward)]
        stretches = next((w for w in every if len(w.reward) >= least), every[-1])
        error = measures.error_vs_horizon(model, as_trajectory(stretches))
        diagnostics["horizon"] = {"steps": error.pop("horizon"), **error}
        real = next((s for n in LENGTHS if len((s := segments(held_out, n, WINDOWS)).obs) >= least), None)
        if real is not None:
            diagnostics |= along_rollouts(model, data, real, policy, gamma)
    return diagnostics


def to_predict(model: Any, data: Transition) -> Transition:
    """The transitions with the rewards that the model's predictions hold: without the part that it knows (`reward_part`), if any."""
    part = getattr(model, "reward_part", None)
    return data if part is None else data._replace(reward=data.reward - part(data.obs, data.action, data.next_obs))


def one_step(model: Predictive, data: Transition) -> dict[str, Any]:
    """`one_step` and `calibration` of one-step predictions, in total and for each dimension: [D], and [D][Q]."""
    error, coverage = measures.one_step(model, data), measures.calibration(model, data)
    mse = sum(e**2 for e in error["rmse"]) / len(error["rmse"])
    by_dim = [list(column) for column in zip(*coverage["coverage_by_dim"], strict=True)]
    return {
        "one_step": {"mse": mse, "nll": error["nll"], "per_dim": error["rmse"], "relative": error["relative"], "rows": error["rows"]},
        "calibration": {
            "nominal": coverage["level"],
            "empirical": coverage["coverage"],
            "per_dim": by_dim,
            "error": coverage["error"],
            "uncorrected": coverage["uncorrected"],
        },
    }


def along_rollouts(model: Dynamics, data: Transition, real: Segments, policy: Actor | None, gamma: float) -> dict[str, Any]:
    """`return_gap` and `epistemic` along model rollouts from the first observations of the segments."""

    def recorded(t: int, obs: Tensor) -> Tensor:
        return torch.cat([real.action[t]] * PARTICLES)

    act = recorded if policy is None else (lambda _, obs: policy.act(obs, explore=False).to(obs.device))
    path = measures.model_path(model, real.obs.repeat(PARTICLES, 1), act, len(real.reward))
    diagnostics = {"return_gap": measures.return_gap(path, real.reward, real.taken if policy is None else None, gamma)}
    if isinstance(model, Predictive):
        rows = evenly(path.obs.shape[1], EPISTEMIC_ROWS).to(path.obs.device)
        diagnostics["epistemic"] = measures.epistemic_along(model, measures.ModelPath(*(x[:, rows] for x in path)), data)
    return diagnostics


def headline(diagnostics: dict[str, Any]) -> dict[str, float]:
    """The single numbers of `diagnose_model` that make curves over training, as metrics."""
    metrics: dict[str, float] = {}
    if horizon := diagnostics.get("horizon"):
        error = dict(zip(horizon["steps"], horizon["rmse"], strict=True))
        metrics |= {f"diagnose/error_{h}": error[h] for h in ERROR_STEPS if h in error}
    if calibration := diagnostics.get("calibration"):
        coverage = dict(zip(calibration["nominal"], calibration["empirical"], strict=True))
        metrics |= {f"diagnose/coverage_{100 * COVERAGE_LEVEL:.0f}": coverage[COVERAGE_LEVEL]}
        metrics |= {"diagnose/calibration_error": calibration["error"]}
    if gap := diagnostics.get("return_gap"):
        metrics |= {"diagnose/return_gap": gap["mean"][-1], "diagnose/return_gap_abs": gap["abs"][-1]}
    if values := diagnostics.get("q_gap"):
        metrics |= {"diagnose/q_gap": values["mean"], "diagnose/q_gap_abs": values["abs"], "diagnose/optimism": values["optimism"]}
    if epistemic := diagnostics.get("epistemic"):
        disagreement = dict(zip(epistemic["steps"], epistemic["mean"], strict=True))
        metrics |= {f"diagnose/epistemic_{h}": disagreement[h] for h in EPISTEMIC_STEPS if h in disagreement}
    return metrics


def segments(held_out: ReplayBuffer, length: int, limit: int) -> Segments:
    """Segments of `length` steps, or until the episode terminated, at most `limit` of them, evenly spread over whole episodes.

    Windows without an end inside would leave out every termination, and a model that predicts none would seem to have no error.
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
    index = (start + step).clamp(max=len(left) - 1)
    return Segments(rows.obs[start], rows.action[index], torch.where(taken, rows.reward[index], 0), taken)


def evenly(count: int, limit: int) -> Tensor:
    """At most `limit` of `count` row numbers, evenly spread: int64."""
    n = min(count, limit)
    return torch.arange(n) * count // max(n, 1)


def as_trajectory(stretches: Windows) -> Trajectory:
    """Windows [B, L] as a trajectory [L, B]; nothing ends inside a window."""
    obs, action, reward = stretches.obs.transpose(0, 1), stretches.action.transpose(0, 1), stretches.reward.T
    one = torch.ones_like(reward)
    return Trajectory(obs[:-1], action, reward, obs[1:], one, torch.zeros_like(one, dtype=torch.bool), torch.zeros_like(one))
