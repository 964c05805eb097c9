"""Measures of a dynamics model on data that it was not fitted to: one-step error, calibration, error against horizon, return gap.

Letters: E members, B rows, W windows, H steps, P particles, O observation, A action, D prediction, Q levels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mbkit.dynamics.uncertainty import epistemic, mixture_nll
from mbkit.types import Dynamics, Prediction, Predictive, Trajectory, Transition

Act = Callable[[int, Tensor], Tensor]  # (step, obs [B, O]) -> action [B, A], or int64 [B]

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # probabilities of central intervals
SMALLEST_VARIANCE = 1e-30  # instead of 0, so that deterministic members have a density too


class ModelPath(NamedTuple):
    """H model steps of B rows."""

    obs: Tensor  # [H, B, O] before each action
    action: Tensor  # [H, B, A] or [H, B]
    reward: Tensor  # [H, B]
    alive: Tensor  # bool [H, B]: no earlier step of the row terminated


def observed(prediction: Prediction, data: Transition) -> Tensor:
    """The outcomes that were to be predicted, [B, D]: the next observation, then the reward, or its learned part, where one is learned."""
    learned = prediction.mean.shape[-1] > data.next_obs.shape[-1]
    return torch.cat((data.next_obs, data.reward[:, None]), -1) if learned else data.next_obs


@torch.no_grad()
def one_step(model: Predictive, data: Transition) -> dict[str, Any]:
    """Error of the mixture's mean: `rmse` [D], `relative` [D] (rmse over the standard deviation of the change), `nll` in nats a row."""
    p = model.predict(data.obs, data.action)
    y = observed(p, data)
    rmse = (p.mean.mean(0) - y).square().mean(0).sqrt()
    unchanged = torch.nn.functional.pad(data.obs, (0, y.shape[-1] - data.obs.shape[-1]))
    change = (y - unchanged).std(0, correction=0).clamp(min=torch.finfo(y.dtype).tiny)
    nll = mixture_nll(_with_density(p), y).sum(-1).mean()
    return {"rmse": rmse.tolist(), "relative": (rmse / change).tolist(), "nll": float(nll), "rows": len(y)}


@torch.no_grad()
def calibration(model: Predictive, data: Transition, levels: tuple[float, ...] = LEVELS) -> dict[str, Any]:
    """Coverage of central intervals of the mixture of members: a calibrated model covers a share p of the outcomes at level p.

    Exact for a mixture: u = mean_e Phi((y - mu_e) / sigma_e) is uniform, and y lies in the central interval of level p where
    |2 u - 1| <= p. The levels of a model with `recalibrated` are those that it states by its own correction of |2 u - 1|.

    Returns:
        `level` [Q], `coverage` [Q] over rows and dimensions, `coverage_by_dim` [Q][D], `error`: the mean of |coverage - level|, and
        `uncorrected`, the same without that correction.
    """
    p = _with_density(model.predict(data.obs, data.action))
    u = torch.special.ndtr((observed(p, data) - p.mean) / p.var.sqrt()).mean(0)
    raw = (2 * u - 1).abs()
    stated = model.recalibrated(raw) if hasattr(model, "recalibrated") else raw
    inside, uncorrected = (torch.stack([(x <= level).float().mean(0) for level in levels]) for x in (stated, raw))  # [Q, D]
    coverage = inside.mean(1)
    error, before = ((share - share.new_tensor(levels)).abs().mean() for share in (coverage, uncorrected.mean(1)))
    by_dim = inside.tolist()
    return {
        "level": list(levels),
        "coverage": coverage.tolist(),
        "coverage_by_dim": by_dim,
        "error": float(error),
        "uncorrected": float(before),
    }


@torch.no_grad()
def error_vs_horizon(model: Dynamics, windows: Trajectory, particles: int = 20) -> dict[str, Any]:
    """Open-loop error after 1..H steps of held-out windows [H, W], without an episode's end inside.

    Returns, for each step: `rmse` of the particles' mean in units of each dimension's standard deviation over the windows, `rmse_by_dim`
    [H][O] in raw units, `spread`, the particles' standard deviation in the units of `rmse` (equal to `rmse` if the model is calibrated),
    and `reward_rmse` in raw units; `median`, `low` and `high` are the same error's median and 10 % and 90 % quantiles over windows.
    `baseline` and `no_change` are the median and the rmse of predicting no change at all: where most windows are at rest, the
    median is smaller than any model's, the rmse is not.
    """
    obs, actions = windows.obs[0], windows.action.transpose(0, 1)
    repeat = (particles,) + (1,) * (actions.dim() - 1)
    out = model.rollout(model.init(obs.repeat(particles, 1)), actions.repeat(repeat))
    predicted = out.obs.view(particles, *actions.shape[:2], -1)  # [P, W, H, O]
    truth = windows.next_obs.transpose(0, 1)
    scale = spread(truth.flatten(0, 1))
    error = (predicted.mean(0) - truth).square().mean(0).sqrt()  # [H, O]
    deviation = predicted.var(0, correction=0).mean(0).sqrt()
    by_window = ((predicted.mean(0) - truth) / scale).square().mean(2).sqrt()  # [W, H]
    low, median, high = by_window.quantile(by_window.new_tensor([0.1, 0.5, 0.9]), 0)
    change = ((obs[:, None] - truth) / scale).square().mean(2)  # [W, H]
    reward = out.reward.view(particles, *actions.shape[:2]).mean(0) - windows.reward.T
    return {
        "horizon": list(range(1, len(error) + 1)),
        "rmse": (error / scale).square().mean(1).sqrt().tolist(),
        "rmse_by_dim": error.tolist(),
        "spread": (deviation / scale).square().mean(1).sqrt().tolist(),
        "reward_rmse": reward.square().mean(0).sqrt().tolist(),
        "windows": len(obs),
        "baseline": change.sqrt().quantile(0.5, 0).tolist(),
        "no_change": change.mean(0).sqrt().tolist(),
        **{name: x.tolist() for name, x in {"low": low, "median": median, "high": high}.items()},
    }


@torch.no_grad()
def model_path(model: Dynamics, obs: Tensor, act: Act, steps: int) -> ModelPath:
    """`steps` model steps from obs [B, O]; actions may depend on the predicted observations."""
    carry, alive, path = model.init(obs), torch.ones(len(obs), dtype=torch.bool, device=obs.device), []
    for t in range(steps):
        action = act(t, obs)
        out = model.step(carry, action)
        path.append((obs, action, out.reward, alive))
        carry, obs, alive = out.state, out.obs, alive & ~out.terminated
    return ModelPath(*(torch.stack(column) for column in zip(*path, strict=True)))


def running_return(reward: Tensor, counted: Tensor, gamma: float) -> Tensor:
    """Discounted return of the first 1..H steps, [H, B], of rewards [H, B] where `counted`, bool [H, B]."""
    weight = gamma ** torch.arange(len(reward), dtype=reward.dtype, device=reward.device)
    return (weight[:, None] * torch.where(counted, reward, 0)).cumsum(0)


def return_gap(path: ModelPath, reward: Tensor, counted: Tensor | None, gamma: float) -> dict[str, Any]:
    """Predicted minus real discounted return after 1..H steps from the same states: above zero where the model overestimates.

    Args:
        path: the model's path from the first states of W windows, P times over, particle-major (B = P W).
        reward: [H, W] real rewards of the windows, 0 after an episode terminated.
        counted: bool [H, W], steps whose predicted reward counts; None: all until the model's own termination.
        gamma: discount.

    Returns:
        For each step: `mean` and `abs`, the mean over windows of the gap and of its absolute value, particles averaged first;
        `predicted` and `real`, the mean returns themselves.
    """
    steps, windows = reward.shape
    alive = path.alive.view(steps, -1, windows)
    if counted is not None:
        alive = alive & counted[:, None]
    predicted = running_return(path.reward, alive.flatten(1), gamma).view(alive.shape).mean(1)  # [H, W]
    real = running_return(reward, torch.ones_like(reward, dtype=torch.bool), gamma)
    gap = predicted - real
    columns = {"mean": gap, "abs": gap.abs(), "predicted": predicted, "real": real}
    return {"steps": list(range(1, steps + 1)), **{name: x.mean(1).tolist() for name, x in columns.items()}, "windows": windows}


@torch.no_grad()
def epistemic_along(model: Predictive, path: ModelPath, data: Transition) -> dict[str, Any]:
    """Disagreement of the members at the 1st..H-th step of a model path, in standard deviations of the outcomes in `data`.

    The variance over members of their means is divided by each dimension's variance over the data and averaged over dimensions; `mean` is
    the mean of its root over rows that have not terminated, null where there are none.
    """
    scale, means = None, []
    for obs, action, alive in zip(path.obs, path.action, path.alive, strict=True):
        p = model.predict(obs, action)
        scale = spread(observed(p, data)) if scale is None else scale
        root = (epistemic(p) / scale.square()).mean(-1).sqrt()
        means.append(torch.where(alive, root, 0).sum() / alive.sum())
    return {"steps": list(range(1, len(means) + 1)), "mean": torch.stack(means).tolist(), "rows": path.obs.shape[1]}


def spread(x: Tensor) -> Tensor:
    """Standard deviation of each column of x [N, D], the unit of normalised errors; 1 where a column is constant but for rounding."""
    std = x.std(0, correction=0)
    return torch.where(std <= 1e-6 * x.abs().amax(0), 1.0, std)


def _with_density(p: Prediction) -> Prediction:
    """The prediction with a variance above zero everywhere."""
    return Prediction(p.mean, p.var.clamp(min=SMALLEST_VARIANCE))
