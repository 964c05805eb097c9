"""Value expansion: a critic's targets look H model steps ahead before they bootstrap.

MVE is of Feinberg et al. 2018, arXiv:1803.00101, STEVE of Buckman et al. 2018, arXiv:1807.01675. Letters: B batch, H horizon, P particles,
K critics, O observation, A action, N rows of targets. A real transition is (s_-1, a_-1, r_-1, s_0), model steps start at s_0. Where the
agent's bonus is an entropy's, V(s) = Q(s, a) + bonus is soft; otherwise the bonus is 0.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mbkit.errors import UserError
from mbkit.imagination.counters import Counters
from mbkit.types import Backup, Dynamics, State, Targets, Transition

Start = Literal["data", "model"]
Weighting = Literal["uniform", "steve"]
ROUNDING = torch.finfo(torch.float32).eps  # of a target beside its size: candidates that are nearer to one another count as equal
TINY = torch.finfo(torch.float32).tiny


class Lookahead(NamedTuple):
    """H model steps of B rows under the agent's backup actions; rows go on after they terminated."""

    obs: Tensor  # [H + 1, B, O] s_0 .. s_H
    action: Tensor  # [H + 1, B, A], or int64 [H + 1, B]
    bonus: Tensor  # [H + 1, B] of these actions
    reward: Tensor  # [H, B]
    terminated: Tensor  # bool [H, B]


def look_ahead(dynamics: Dynamics, agent: Backup, obs: Tensor, first: tuple[Tensor, Tensor], horizon: int) -> Lookahead:
    """H model steps from obs [B, O], beginning with the action and bonus in `first`.

    Raises:
        UserError: the model's observations or rewards have other shapes than the agent's.
    """
    actions, bonuses, states = [first[0]], [first[1]], [obs]
    reward = first[1].new_empty(horizon, len(obs))
    terminated = torch.empty(horizon, len(obs), dtype=torch.bool, device=obs.device)
    carry = dynamics.init(obs)
    for t in range(horizon):
        step = dynamics.step(carry, actions[t])
        if step.obs.shape != obs.shape or step.reward.shape != obs.shape[:1]:
            came = f"{list(step.obs.shape)} and {list(step.reward.shape)}"
            raise UserError(
                f"the model's observations and rewards have shapes {came}, the agent expects {list(obs.shape)} and {[len(obs)]}"
            )
        carry, reward[t], terminated[t] = step.state, step.reward, step.terminated
        action, bonus = agent.backup_action(step.obs)
        for column, new in ((actions, action), (bonuses, bonus), (states, step.obs)):
            column.append(new)
    return Lookahead(torch.stack(states), torch.stack(actions), torch.stack(bonuses), reward, terminated)


def td_k(ahead: Lookahead, value: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """q_t = r_t + gamma V(s_{t+1}), V(s_t) = q_t + bonus_t, backwards from `value` [B] = V(s_H); nothing follows a termination.

    Returns q_0 .. q_{H-1}, [H, B], and V(s_0), [B].
    """
    q = torch.empty_like(ahead.reward)
    for t in reversed(range(len(q))):
        q[t] = torch.where(ahead.terminated[t], ahead.reward[t], ahead.reward[t] + gamma * value)
        value = q[t] + ahead.bonus[t]
    return q, value


def backed_up(batch: Transition, value: Tensor, gamma: float) -> Tensor:
    """r_-1 + gamma * discount * V(s_0), value [..., B]; the value of a terminal s_0 counts as 0, even where it is NaN."""
    return batch.reward + gamma * batch.discount * torch.where(batch.discount == 0, 0.0, value)


def alive_at(ahead: Lookahead) -> Tensor:
    """Whether s_t was reached, bool [H + 1, B]: no model step before it terminated."""
    ended = torch.cat((torch.zeros_like(ahead.bonus[:1], dtype=torch.bool), ahead.terminated))
    return ended.cumsum(0) == 0


def expansions(ahead: Lookahead, q: Tensor, gamma: float) -> Tensor:
    """V_h(s_0) = sum_{t<h} gamma^t (r_t + bonus_t) + gamma^h (Q(s_h, a_h) + bonus_h), h = 0..H: q [K, H + 1, B] -> [H + 1, K, B]."""
    alive = alive_at(ahead)
    scale = gamma ** torch.arange(len(alive), device=q.device, dtype=q.dtype)[:, None]
    reward = torch.where(alive[:-1], ahead.reward, 0.0)  # not a product: 0 * nan = nan
    value = torch.where(alive, q, 0.0).transpose(0, 1) * scale[:, None]
    bonus = (torch.where(alive, ahead.bonus, 0.0) * scale).cumsum(0)
    before = torch.cat((torch.zeros_like(bonus[:1]), (reward * scale[:-1]).cumsum(0)))
    return value + (before + bonus)[:, None]


def steve(candidates: Tensor) -> tuple[Tensor, Tensor]:
    """STEVE: sum_h w_h mean_h, w_h proportional to 1 / variance_h: candidates [H + 1, S, B] of S samples -> [B], w [H + 1, B].

    A horizon with a candidate that is not finite has weight 0; where all horizons have one, the target is 0 too.
    """
    mean, var = candidates.mean(1), candidates.var(1, correction=0)
    usable = mean.isfinite() & var.isfinite()
    size = torch.where(usable, mean.abs(), 0.0).amax(0)
    var = torch.where(usable, var.maximum((ROUNDING * size).square().clamp(min=TINY)), torch.inf)
    weight = torch.where(usable, var.amin(0) / var, 0.0)  # beside the least variance: the same in any units of the reward
    weight = weight / weight.sum(0).clamp(min=TINY)
    return (weight * torch.where(usable, mean, 0.0)).sum(0), weight


class ValueExpansion:
    """Targets of H model steps, for any agent with `backup_action` and `backup_q`; a `TargetFn`.

    Args:
        dynamics: the model, over the agent's observations and actions.
        horizon: H model steps. With start="data" and H = 0 these are the one-step targets, bit for bit.
        start: "data": the paper's form, with one row for each of s_-1 .. s_{H-1}, H + 1 times as many as the batch has; "model": the model
            also predicts the first step, that of the real action at s_-1, and the one target is an H-step return of its rewards.
        weighting: "steve": one row for each transition, whose target weighs the horizons 0..H by their inverse variance.
        particles: P, for STEVE. Rows are particle-major: under "ts_inf", with P a multiple of the elites, a particle stays with one.

    Rows behind a termination, real or of the model, and rows that are not finite have weight 0.

    Raises:
        UserError: options that contradict one another; at the first call, STEVE with a single critic.
    """

    def __init__(
        self, dynamics: Dynamics, horizon: int, start: Start = "data", weighting: Weighting = "uniform", particles: int = 1
    ) -> None:
        lowest = 1 if start == "model" else 0
        if horizon < lowest:
            raise UserError(f"imagination.horizon={horizon}: expected at least {lowest} where imagination.start={start}")
        if weighting == "steve" and start != "data":
            raise UserError(f"imagination.weighting=steve looks ahead from the data's s_0; expected imagination.start=data, got {start}")
        if particles < 1 or (particles > 1 and weighting != "steve"):
            raise UserError(f"imagination.particles={particles}: expected 1, or more with imagination.weighting=steve")
        self.dynamics, self.horizon, self.particles = dynamics, horizon, particles
        self.capturable: bool = getattr(dynamics, "capturable", False)
        self.form = self._steve if weighting == "steve" else self._from_data if start == "data" else self._from_model
        # transitions, model steps that their targets count, targets, and of these the ones that are not finite
        self.counters = Counters("rows", "steps", "asked", "broken")

    @torch.no_grad()
    def __call__(self, agent: Backup, batch: Transition, gamma: float) -> Targets:
        """[(H+1) B] rows in the paper's form, those of the batch first; otherwise [B]."""
        y, steps = self.form(agent, batch, gamma)
        finite = y.target.isfinite() & y.obs.isfinite().all(-1)
        weight = torch.ones_like(y.target) if y.weight is None else y.weight
        if batch.weight is not None:  # of a transition, and so of all its rows
            weight = weight * batch.weight.repeat(len(weight) // len(batch.weight))
        wanted = weight != 0
        self.counters.add(torch.ones_like(batch.reward).sum(), steps.sum(), wanted.sum(), (wanted & ~finite).sum())
        row = finite[:, None]
        action = torch.where(row if y.action.dim() > 1 else finite, y.action, 0)  # 0 * nan = nan: a weight alone would not do
        return Targets(torch.where(row, y.obs, 0.0), action, torch.where(finite, y.target, 0.0), weight * finite)

    def state_dict(self) -> State:
        """The counts since they were last read."""
        return self.counters.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`, in place."""
        self.counters.load_state_dict(state)

    def _from_data(self, agent: Backup, batch: Transition, gamma: float) -> tuple[Targets, Tensor]:
        """MVE with its TD-k trick: targets for all of s_-1 .. s_{H-1}, each bootstrapped at s_H."""
        ahead = look_ahead(self.dynamics, agent, batch.next_obs, agent.backup_action(batch.next_obs), self.horizon)
        q, value = td_k(ahead, agent.backup_q(ahead.obs[-1], ahead.action[-1]).amin(0) + ahead.bonus[-1], gamma)
        reached = alive_at(ahead)[:-1] & (batch.discount != 0)
        obs, action = torch.cat((batch.obs[None], ahead.obs[:-1])), torch.cat((batch.action[None], ahead.action[:-1]))
        target = torch.cat((backed_up(batch, value, gamma)[None], q))
        weight = torch.cat((torch.ones_like(batch.reward)[None], reached.to(q.dtype)))
        rows = [x.flatten(0, 1) for x in (obs, action, target, weight)]
        return Targets(rows[0], rows[1], rows[2], rows[3]), weight[1:]

    def _from_model(self, agent: Backup, batch: Transition, gamma: float) -> tuple[Targets, Tensor]:
        """sum_{k<H} gamma^k r_k + gamma^H V(s_H), all steps of the model, the first from the real state and action."""
        ahead = look_ahead(self.dynamics, agent, batch.obs, (batch.action, torch.zeros_like(batch.reward)), self.horizon)
        q, _ = td_k(ahead, agent.backup_q(ahead.obs[-1], ahead.action[-1]).amin(0) + ahead.bonus[-1], gamma)
        return Targets(batch.obs, batch.action, q[0]), alive_at(ahead)[:-1]

    def _steve(self, agent: Backup, batch: Transition, gamma: float) -> tuple[Targets, Tensor]:
        """Weighs candidates of all horizons, by P particles and K critics; particles share the action at s_0: there only critics differ."""
        action, bonus = agent.backup_action(batch.next_obs)
        obs, p = batch.next_obs, self.particles
        many = action.repeat(p, *[1] * (action.dim() - 1)), bonus.repeat(p)
        ahead = look_ahead(self.dynamics, agent, obs.repeat(p, 1), many, self.horizon)
        q = agent.backup_q(ahead.obs.flatten(0, 1), ahead.action.flatten(0, 1))  # [K, (H + 1) P B]
        check_critics(len(q), "the agent")
        candidates = expansions(ahead, q.view(len(q), self.horizon + 1, -1), gamma)  # [H + 1, K, P B]
        candidates = candidates.reshape(self.horizon + 1, len(q) * p, -1)
        target, weight = steve(backed_up(batch, candidates, gamma))
        usable = weight.sum(0) > 0
        steps = (weight * torch.arange(len(weight), device=weight.device)[:, None]).sum(0)
        return Targets(batch.obs, batch.action, torch.where(usable, target, torch.nan)), steps


def check_critics(critics: int, agent: str) -> None:
    """UserError where a single critic leaves STEVE without a variance of the one-step target."""
    if critics < 2:
        raise UserError(
            f"imagination.weighting=steve weighs by the variance of several critics, but {agent} has {critics}; "
            "expected agent.critics >= 2 (sac and td3 have two)"
        )
