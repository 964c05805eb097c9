"""Model rollouts of an ensemble: which elite predicts which row (PETS, Chua et al. 2018, arXiv:1805.12114, section 5).

Letters: K elites, B rows, H horizon, O observation, A action, I input, D prediction. Randomness comes from torch's global generator.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mbkit.dynamics.frozen import FrozenElites, deal
from mbkit.dynamics.network import Gaussian
from mbkit.types import Rollout, Step, TaskKnowledge


def ts_infinity(elites: FrozenElites, x: Tensor) -> Tensor:
    """TS-infinity: row r of x [B, I] belongs to elite floor(r K / B) for good; B must be a multiple of K. Raw outputs [B, F]."""
    return elites(x.view(elites.count, -1, x.shape[-1])).flatten(0, 1)


def ts1(elites: FrozenElites, x: Tensor) -> Tensor:
    """TS1: the rows of x [B, I] are dealt out to the elites at random, afresh at every step, in equal shares. Raw outputs [B, F]."""
    hand = deal(len(x), elites.count, x.device)
    return elites(x[hand.source].view(elites.count, -1, x.shape[-1])).flatten(0, 1)[hand.place]


def expectation(elites: FrozenElites, x: Tensor) -> Gaussian:
    """The mean of all elites' means, without noise: x [B, I]."""
    return mixture(elites.gaussian(elites(x.expand(elites.count, *x.shape))), sampled=False)


def moment_matching(elites: FrozenElites, x: Tensor) -> Gaussian:
    """The Gaussian with the moments of the elites' mixture: x [B, I].

    Paper: the moments of one candidate's particles; here: of the elites for each row, since a model knows no particles.
    """
    return mixture(elites.gaussian(elites(x.expand(elites.count, *x.shape))), sampled=True)


ONE_ELITE = {"ts_inf": ts_infinity, "ts1": ts1}  # each row meets one elite
ALL_ELITES = {"expectation": expectation, "moment_matching": moment_matching}


def mixture(each: Gaussian, sampled: bool) -> Gaussian:
    """Collapse members [K, B, D] to one Gaussian [B, D] with the mixture's moments, or, if not `sampled`, to its mean alone."""
    mean = each.mean.mean(0)
    logit = None if each.logit is None else each.logit.sigmoid().mean(0).logit()
    if not sampled:
        return Gaussian(mean, None, logit)
    var = each.mean.var(0, correction=0)
    if each.std is not None:
        var += each.std.square().mean(0)
    return Gaussian(mean, var.sqrt_(), logit)


Draw = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]  # obs, action -> outcome [B, D] and termination, bool [B] or None


def unroll(draw: Draw, obs: Tensor, actions: Tensor, relative: Tensor, task: TaskKnowledge) -> Rollout:
    """H model steps from obs [B, O] under actions [H, B, A], all time-major; known rewards and terminations of all steps at once.

    An outcome of `draw` is the next observation, less the present one where `relative` [O] is 1, then the reward as far as it is learned.
    """
    (horizon, rows), o = actions.shape[:2], obs.shape[-1]
    path = obs.new_empty(horizon + 1, *obs.shape)  # [H + 1, B, O]
    reward = obs.new_empty(horizon, rows)
    ended = torch.zeros(horizon, rows, dtype=torch.bool, device=obs.device)
    path[0] = obs
    for t in range(horizon):
        outcome, terminated = draw(path[t], actions[t])
        torch.addcmul(outcome[:, :o], path[t], relative, out=path[t + 1])
        if task.reward is None:
            reward[t] = outcome[:, o]
        if terminated is not None:
            ended[t] = terminated
    steps = path[:-1].flatten(0, 1), actions.flatten(0, 1), path[1:].flatten(0, 1)
    if task.reward is not None:
        reward = task.reward(*steps).view(horizon, rows)
    elif task.reward_part is not None:
        reward += task.reward_part(*steps).view(horizon, rows)
    if task.termination is not None:
        ended = task.termination(*steps).view(horizon, rows)
    return Rollout(path[1:], reward, ended)


def differentiable_step(draw: Draw, obs: Tensor, action: Tensor, relative: Tensor, task: TaskKnowledge) -> Step:
    """`unroll` of one step, action [B, A], with gradients in obs [B, O] and action: of the next observation and the reward alone."""
    o = obs.shape[-1]
    outcome, ended = draw(obs, action)
    after = torch.addcmul(outcome[:, :o], obs, relative)
    reward = outcome[:, o] if task.reward is None else task.reward(obs, action, after)
    if task.reward_part is not None:
        reward = reward + task.reward_part(obs, action, after)
    if task.termination is not None:
        with torch.no_grad():
            ended = task.termination(obs, action, after)
    return Step(after, after, reward, torch.zeros_like(reward, dtype=torch.bool) if ended is None else ended)
