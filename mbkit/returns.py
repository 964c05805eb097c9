"""Returns, advantages and off-policy corrections of trajectories: pure functions of [T, B] tensors, in the dtype of the rewards.

Letters: T time, B environments, A actions. Everywhere `discount` (0 where the MDP terminated) cuts the bootstrap and `ended` (terminated
or truncated) cuts the recursion; the end of the window cuts it too. A cut step that did not terminate bootstraps from `next_value`, the
value of its true successor, never from the first step of the episode that follows. Where a step is not cut, `next_value[t]` stands for the
same state as `value[t + 1]`. Nothing is detached here: targets are computed under `torch.no_grad`.

Advantages of the four kinds: `discounted_return - value` (Monte Carlo), `n_step_return - value` (TD(n), n = 1: TD), `gae`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mbkit.errors import UserError


class VTrace(NamedTuple):
    """Value targets and advantages of V-trace."""

    value: Tensor  # [T, B] v_s, the target of the value network
    advantage: Tensor  # [T, B] rho_s (r + gamma v_{s+1} - V(s)), the weight of grad log pi


def lambda_return(reward: Tensor, discount: Tensor, ended: Tensor, next_value: Tensor, gamma: float, lam: float) -> Tensor:
    """G_t = r_t + gamma discount_t ((1 - lam) V(s_{t+1}) + lam G_{t+1}), and V alone after a cut. Sutton & Barto, eq. 12.2; all [T, B]."""
    _same_shape(reward=reward, discount=discount, ended=ended, next_value=next_value)
    decay = gamma * discount
    cut = _cut(ended)
    bootstrap = torch.where(cut, next_value, (1 - lam) * next_value)
    return _accumulate(reward + decay * bootstrap, (lam * decay).masked_fill(cut, 0))


def discounted_return(reward: Tensor, discount: Tensor, ended: Tensor, next_value: Tensor, gamma: float) -> Tensor:
    """Reward to go, sum_k gamma^k r_{t+k} to the cut, where gamma^n V bootstraps (zeros for `next_value`: no bootstrap); all [T, B]."""
    return lambda_return(reward, discount, ended, next_value, gamma, 1.0)


def n_step_return(reward: Tensor, discount: Tensor, ended: Tensor, next_value: Tensor, gamma: float, n: int) -> Tensor:
    """sum_{k<n} gamma^k r_{t+k} + gamma^n V(s_{t+n}), or as many steps as there are before a cut; all [T, B].

    Raises:
        UserError: n < 1, or shapes that differ.
    """
    _same_shape(reward=reward, discount=discount, ended=ended, next_value=next_value)
    if n < 1:
        raise UserError(f"a return over n steps needs n >= 1, not {n}")
    decay, cut = gamma * discount, _cut(ended)
    out = reward + decay * next_value
    for _ in range(min(n, len(reward)) - 1):
        out = reward + decay * torch.where(cut, next_value, out.roll(-1, 0))  # the last row is cut: the first, rolled there, is not used
    return out


def gae(reward: Tensor, discount: Tensor, ended: Tensor, value: Tensor, next_value: Tensor, gamma: float, lam: float) -> Tensor:
    """A_t = sum_l (gamma lam)^l delta_{t+l}, delta = r + gamma V' - V (arXiv:1506.02438, eq. 16); all [T, B].

    It is (1 - lam) sum_{n>=1} lam^{n-1} A^(n), and `lambda_return - value`.
    """
    _same_shape(reward=reward, discount=discount, ended=ended, value=value, next_value=next_value)
    decay = gamma * discount
    return _accumulate(reward + decay * next_value - value, (lam * decay).masked_fill(_cut(ended), 0))


def kl_reward(reward: Tensor, kl: Tensor, alpha: float | Tensor) -> Tensor:
    """r_t - alpha KL_t: the reward of a KL-regularised value. KL_t is D_KL(pi | pi0)(s_t) or log(pi / pi0)(a_t | s_t), [T, B]."""
    return reward - alpha * kl


def exclude_current_kl(estimate: Tensor, kl: Tensor, alpha: float | Tensor) -> Tensor:
    """Add alpha KL_t to an estimate, [T, B], of rewards by `kl_reward`: Q(s_t, a_t) and A = Q - V do not contain the KL of their own step.

    No other function adds it. A policy gradient with such advantages is E[A grad log pi] - alpha grad D_KL; without this
    addition the second term would be counted twice.
    """
    return estimate + alpha * kl


def kl_n_step_return(
    reward: Tensor, kl: Tensor, discount: Tensor, ended: Tensor, next_value: Tensor, gamma: float, n: int, alpha: float | Tensor
) -> Tensor:
    """Soft n-step backup of Q: r_t + sum_{0<k<n} gamma^k (r - alpha KL)_{t+k} + gamma^n V(s_{t+n}), V regularised too; all [T, B]."""
    return exclude_current_kl(n_step_return(kl_reward(reward, kl, alpha), discount, ended, next_value, gamma, n), kl, alpha)


def kl_gae(
    reward: Tensor,
    kl: Tensor,
    discount: Tensor,
    ended: Tensor,
    value: Tensor,
    next_value: Tensor,
    gamma: float,
    lam: float,
    alpha: float | Tensor,
) -> Tensor:
    """A_t = alpha KL_t + sum_l (gamma lam)^l delta_{t+l}, delta = r - alpha KL + gamma V' - V; all [T, B].

    It is (1 - lam) sum_{n>=1} lam^{n-1} A^(n) with A^(n) = `kl_n_step_return` - V.
    """
    return exclude_current_kl(gae(kl_reward(reward, kl, alpha), discount, ended, value, next_value, gamma, lam), kl, alpha)


def expected_value(policy: Tensor, q: Tensor, kl: Tensor | None = None, alpha: float | Tensor = 0.0) -> Tensor:
    """V = sum_a pi(a) Q(a), minus alpha D_KL where the values are regularised; policy and q [..., A], kl [...] -> [...]."""
    value = (policy * q).sum(-1)
    return value if kl is None else value - alpha * kl


def retrace(
    reward: Tensor,
    discount: Tensor,
    ended: Tensor,
    q: Tensor,
    next_value: Tensor,
    log_ratio: Tensor,
    gamma: float,
    lam: float = 1.0,
) -> Tensor:
    """Retrace(lam) target of Q(s_t, a_t) (arXiv:1606.02647, eq. 4), all [T, B].

    Q_t + sum_{k>=t} gamma^{k-t} (prod_{t<i<=k} c_i) delta_k with c = lam min(1, pi / mu) and delta_k = r_k + gamma V(s_{k+1}) - Q_k.

    Args:
        q: Q(s_t, a_t) of the target network.
        next_value: E_pi Q(s_{t+1}, .) (`expected_value`), or a sample of it; E_pi[Q - alpha KL] makes the target soft.
        log_ratio: log pi(a_t | s_t) - log mu(a_t | s_t); the first of an episode is not used.
    """
    _same_shape(reward=reward, discount=discount, ended=ended, q=q, next_value=next_value, log_ratio=log_ratio)
    decay = gamma * discount
    trace = lam * log_ratio.clamp(max=0).exp().roll(-1, 0)  # c of the next step; the last row is cut: the first, rolled there, is not used
    return q + _accumulate(reward + decay * next_value - q, (trace * decay).masked_fill(_cut(ended), 0))


def v_trace(
    reward: Tensor,
    discount: Tensor,
    ended: Tensor,
    value: Tensor,
    next_value: Tensor,
    log_ratio: Tensor,
    gamma: float,
    lam: float = 1.0,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
) -> VTrace:
    """V-trace (IMPALA, arXiv:1802.01561, eq. 1): v_s = V_s + sum_{t>=s} gamma^{t-s} (prod_{s<=i<t} c_i) rho_t (r + gamma V' - V)_t; [T, B].

    rho = min(rho_bar, pi / mu) sets the fixed point (infinite rho_bar: V^pi; near zero: V^mu), c = lam min(c_bar, pi / mu) the speed of
    convergence. The paper requires rho_bar >= c_bar.

    Args:
        log_ratio: log pi(a_t | s_t) - log mu(a_t | s_t), [T, B].
    """
    _same_shape(reward=reward, discount=discount, ended=ended, value=value, next_value=next_value, log_ratio=log_ratio)
    decay, cut, ratio = gamma * discount, _cut(ended), log_ratio.exp()
    rho, c = ratio.clamp(max=rho_bar), lam * ratio.clamp(max=c_bar)
    target = value + _accumulate(rho * (reward + decay * next_value - value), (c * decay).masked_fill(cut, 0))
    following = torch.where(cut, next_value, target.roll(-1, 0))
    return VTrace(target, rho * (reward + decay * following - value))


def ends_in_window(ended: Tensor) -> Tensor:
    """bool [T, B]: steps whose episode ends within the window."""
    return ended.flip(0).cumsum(0).flip(0) > 0


def starts_in_window(ended: Tensor) -> Tensor:
    """bool [T, B]: steps whose episode starts within the window, after the end of another."""
    return ended.cumsum(0) - ended.long() > 0


def steps_since_start(ended: Tensor) -> Tensor:
    """int64 [T, B]: steps since the start of the episode, or of the window."""
    row = torch.arange(len(ended), device=ended.device)[:, None].expand_as(ended)
    first = torch.where(ended.roll(1, 0), row, 0)  # the last row, rolled to row 0, changes nothing
    return row - first.cummax(0).values


def _cut(ended: Tensor) -> Tensor:
    """bool [T, B]: steps whose successor in the window is another episode's, or lies outside it."""
    last = torch.arange(len(ended), device=ended.device) == len(ended) - 1
    return ended | last[:, None]


def _accumulate(x: Tensor, decay: Tensor) -> Tensor:
    """y_t = x_t + decay_t y_{t+1} with y_T = 0, all [T, B], by doubling: log2(T) passes over all rows instead of T passes over one.

    After a pass, x_t holds the terms of `reach` steps and decay_t the product of their factors.
    """
    reach = 1
    while reach < len(x):
        x = torch.cat((torch.addcmul(x[:-reach], decay[:-reach], x[reach:]), x[-reach:]))
        decay = torch.cat((decay[:-reach] * decay[reach:], decay[-reach:]))
        reach *= 2
    return x


def _same_shape(**tensors: Tensor) -> None:
    """UserError unless all tensors have one shape [T, B]: broadcasting would hide a [T, B, 1] among them."""
    shapes = {name: tuple(x.shape) for name, x in tensors.items()}
    if len(set(shapes.values())) > 1 or len(shapes["reward"]) != 2:
        raise UserError(f"returns are computed from tensors of one shape [T, B], but these came: {shapes}")
