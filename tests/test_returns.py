"""Returns against the sums that define them, written as loops, and the identities between them."""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mbkit.errors import UserError
from mbkit.returns import (
    discounted_return,
    ends_in_window,
    exclude_current_kl,
    expected_value,
    gae,
    kl_gae,
    kl_n_step_return,
    lambda_return,
    n_step_return,
    retrace,
    starts_in_window,
    steps_since_start,
    v_trace,
)

TOL = 1e-10  # C13
GAMMA = 0.9
few = settings(max_examples=30)


class Window(NamedTuple):
    """All arguments of a return, [T, B] float64; values agree along an episode, as those of one value function."""

    reward: Tensor
    discount: Tensor
    ended: Tensor
    value: Tensor
    next_value: Tensor
    q: Tensor
    kl: Tensor
    log_ratio: Tensor
    lam: float

    @property
    def head(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.reward, self.discount, self.ended

    def cut(self, t: int, b: int) -> bool:
        return bool(self.ended[t, b]) or t == len(self.reward) - 1


@st.composite
def windows(draw: st.DrawFn) -> Window:
    t, b = draw(st.integers(1, 9)), draw(st.integers(1, 3))
    ends = torch.tensor(draw(st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=t * b, max_size=t * b))).reshape(t, b)
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    reward, value, other, q, kl, log_ratio = torch.randn(6, t, b, generator=rng, dtype=torch.float64)
    cut = ends > 0
    cut[-1] = True
    next_value = torch.where(cut, other, value.roll(-1, 0))
    discount = (ends != 2).double()  # 2: terminated, 1: truncated
    return Window(reward, discount, ends > 0, value, next_value, q, kl.abs(), log_ratio, draw(st.floats(0, 1)))


def each(w: Window, of: Callable[[int, int], float]) -> Tensor:
    return torch.tensor([[of(t, b) for b in range(w.reward.shape[1])] for t in range(len(w.reward))], dtype=torch.float64)


def steps(w: Window, t: int, b: int) -> list[int]:
    """The steps from t to the cut."""
    out = [t]
    while not w.cut(out[-1], b):
        out.append(out[-1] + 1)
    return out


def listed_n_step(w: Window, t: int, b: int, n: int, reward: Tensor | None = None) -> float:
    reward = w.reward if reward is None else reward
    path = steps(w, t, b)[:n]
    total = sum(GAMMA**k * float(reward[i, b]) for k, i in enumerate(path))
    return total + GAMMA ** len(path) * float(w.discount[path[-1], b] * w.next_value[path[-1], b])


def listed_lambda(w: Window, t: int, b: int, reward: Tensor | None = None) -> float:
    """(1 - lam) sum_{n>=1} lam^{n-1} G^(n), with all remaining weight on the longest."""
    longest = len(steps(w, t, b))
    weights = [(1 - w.lam) * w.lam ** (n - 1) for n in range(1, longest)] + [w.lam ** (longest - 1)]
    return sum(x * listed_n_step(w, t, b, n, reward) for n, x in enumerate(weights, 1))


def listed_trace(w: Window, t: int, b: int, deltas: Tensor, factor: Callable[[int, int], float]) -> float:
    """sum_k gamma^{k-t} (product of factor(previous, step)) delta_k along one episode."""
    total, weight = 0.0, 1.0
    path = steps(w, t, b)
    for k, i in enumerate(path):
        weight *= 1.0 if k == 0 else GAMMA * factor(path[k - 1], i)
        total += weight * float(deltas[i, b])
    return total


@few
@given(windows(), st.integers(1, 12))
def test_n_step_and_discounted_return_equal_their_sums(w: Window, n: int) -> None:
    out = n_step_return(*w.head, w.next_value, GAMMA, n)
    assert torch.allclose(out, each(w, lambda t, b: listed_n_step(w, t, b, n)), atol=TOL)
    whole = discounted_return(*w.head, w.next_value, GAMMA)
    assert torch.allclose(whole, each(w, lambda t, b: listed_n_step(w, t, b, 99)), atol=TOL)
    assert torch.allclose(whole, n_step_return(*w.head, w.next_value, GAMMA, 99), atol=TOL)


@few
@given(windows())
def test_lambda_return_and_gae_are_mixtures_of_n_step_returns(w: Window) -> None:
    mixture = each(w, lambda t, b: listed_lambda(w, t, b))
    assert torch.allclose(lambda_return(*w.head, w.next_value, GAMMA, w.lam), mixture, atol=TOL)
    assert torch.allclose(gae(*w.head, w.value, w.next_value, GAMMA, w.lam), mixture - w.value, atol=TOL)


@few
@given(windows())
def test_gae_lambda_0_and_1_are_td_and_monte_carlo(w: Window) -> None:
    ends = [gae(*w.head, w.value, w.next_value, GAMMA, lam) for lam in (0.0, 1.0)]
    assert torch.allclose(ends[0], w.reward + GAMMA * w.discount * w.next_value - w.value, atol=TOL)
    assert torch.allclose(ends[1], discounted_return(*w.head, w.next_value, GAMMA) - w.value, atol=TOL)


@few
@given(windows(), st.floats(0, 3), st.integers(1, 9))
def test_kl_gae_is_the_mixture_from_n_1_without_its_own_kl(w: Window, alpha: float, n: int) -> None:
    out = kl_gae(w.reward, w.kl, *w.head[1:], w.value, w.next_value, GAMMA, w.lam, alpha)
    soft = w.reward - alpha * w.kl
    mixture = each(w, lambda t, b: listed_lambda(w, t, b, soft)) + alpha * w.kl - w.value
    assert torch.allclose(out, mixture, atol=TOL)
    plain = kl_gae(w.reward, w.kl, *w.head[1:], w.value, w.next_value, GAMMA, w.lam, 0.0)
    assert torch.equal(plain, gae(*w.head, w.value, w.next_value, GAMMA, w.lam))
    backup = kl_n_step_return(w.reward, w.kl, *w.head[1:], w.next_value, GAMMA, n, alpha)
    assert torch.allclose(backup, each(w, lambda t, b: listed_n_step(w, t, b, n, soft)) + alpha * w.kl, atol=TOL)
    if n == 1:  # a single step contains no KL
        assert torch.allclose(backup, w.reward + GAMMA * w.discount * w.next_value, atol=TOL)


@few
@given(windows())
def test_retrace_equals_its_sum(w: Window) -> None:
    deltas = w.reward + GAMMA * w.discount * w.next_value - w.q
    c = w.lam * w.log_ratio.exp().clamp(max=1)
    out = retrace(*w.head, w.q, w.next_value, w.log_ratio, GAMMA, w.lam)
    assert torch.allclose(out, w.q + each(w, lambda t, b: listed_trace(w, t, b, deltas, lambda _, i: float(c[i, b]))), atol=TOL)


@few
@given(windows())
def test_retrace_on_policy_with_a_deterministic_policy_is_the_return(w: Window) -> None:
    """E_pi Q(s', .) = Q(s', a') then, so that the sum telescopes; with lam it is the lambda return."""
    on = torch.zeros_like(w.log_ratio)
    out = retrace(*w.head, w.value, w.next_value, on, GAMMA)
    assert torch.allclose(out, discounted_return(*w.head, w.next_value, GAMMA), atol=TOL)
    mixed = retrace(*w.head, w.value, w.next_value, on, GAMMA, w.lam)
    assert torch.allclose(mixed, lambda_return(*w.head, w.next_value, GAMMA, w.lam), atol=TOL)


@few
@given(windows(), st.floats(0.1, 3), st.floats(0.1, 3))
def test_v_trace_equals_its_sum(w: Window, rho_bar: float, c_bar: float) -> None:
    rho, c = w.log_ratio.exp().clamp(max=rho_bar), w.lam * w.log_ratio.exp().clamp(max=c_bar)
    deltas = rho * (w.reward + GAMMA * w.discount * w.next_value - w.value)
    out = v_trace(*w.head, w.value, w.next_value, w.log_ratio, GAMMA, w.lam, rho_bar, c_bar)
    expected = w.value + each(w, lambda t, b: listed_trace(w, t, b, deltas, lambda previous, _: float(c[previous, b])))
    assert torch.allclose(out.value, expected, atol=TOL)
    following = each(w, lambda t, b: float(w.next_value[t, b] if w.cut(t, b) else expected[t + 1, b]))
    assert torch.allclose(out.advantage, rho * (w.reward + GAMMA * w.discount * following - w.value), atol=TOL)


@few
@given(windows())
def test_v_trace_on_policy_is_the_longest_n_step_return(w: Window) -> None:
    on = torch.zeros_like(w.log_ratio)
    out = v_trace(*w.head, w.value, w.next_value, on, GAMMA)
    whole = n_step_return(*w.head, w.next_value, GAMMA, 99)
    assert torch.allclose(out.value, whole, atol=TOL)
    assert torch.allclose(out.advantage, whole - w.value, atol=TOL)
    mixed = v_trace(*w.head, w.value, w.next_value, on, GAMMA, w.lam)
    assert torch.allclose(mixed.value - w.value, gae(*w.head, w.value, w.next_value, GAMMA, w.lam), atol=TOL)


@few
@given(windows())
def test_returns_after_a_cut_do_not_leak_back(w: Window) -> None:
    """Everything before the last `ended` is as if the window stopped there."""
    stops = w.ended.any(1).nonzero()
    if not len(stops):
        return
    t = int(stops[-1]) + 1
    columns = w.ended[t - 1]
    short = Window(*(x[:t] for x in w[:-1]), w.lam)
    for of in (
        lambda x: discounted_return(*x.head, x.next_value, GAMMA),
        lambda x: n_step_return(*x.head, x.next_value, GAMMA, 3),
        lambda x: gae(*x.head, x.value, x.next_value, GAMMA, x.lam),
        lambda x: retrace(*x.head, x.q, x.next_value, x.log_ratio, GAMMA, x.lam),
        lambda x: v_trace(*x.head, x.value, x.next_value, x.log_ratio, GAMMA, x.lam).value,
    ):
        assert torch.allclose(of(w)[:t, columns], of(short)[:, columns], atol=TOL)


def test_returns_of_one_step_bootstrap_when_truncated_not_when_terminated() -> None:
    """r = 1, V(s') = 10, gamma = 0.9, V(s) = 4; the next episode's 1000s do not matter."""
    reward = torch.tensor([[1.0, 1.0], [1000.0, 1000.0]])
    discount, ended = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[True, True], [False, False]])
    value, next_value = torch.tensor([[4.0, 4.0], [1000.0, 1000.0]]), torch.tensor([[10.0, 10.0], [1000.0, 1000.0]])
    expected = torch.tensor([10.0, 1.0])
    zero = torch.zeros_like(reward)
    assert torch.allclose(discounted_return(reward, discount, ended, next_value, GAMMA)[0], expected)
    assert torch.allclose(n_step_return(reward, discount, ended, next_value, GAMMA, 5)[0], expected)
    assert torch.allclose(lambda_return(reward, discount, ended, next_value, GAMMA, 0.5)[0], expected)
    assert torch.allclose(gae(reward, discount, ended, value, next_value, GAMMA, 0.95)[0], expected - 4)
    assert torch.allclose(retrace(reward, discount, ended, value, next_value, zero, GAMMA)[0], expected)
    assert torch.allclose(v_trace(reward, discount, ended, value, next_value, zero, GAMMA).value[0], expected)


ENDED = torch.tensor([[0, 0], [1, 0], [0, 0], [0, 0], [1, 0], [0, 0]], dtype=torch.bool)  # [T, B]


def positions(ended: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Step by step: whether the episode ends within the window, whether it started there, and the step within it."""
    steps, envs = ended.shape
    ends, starts, count = torch.zeros(steps, envs, dtype=torch.bool), torch.zeros(steps, envs, dtype=torch.bool), []
    for i in range(envs):
        t, started = 0, False
        for k in range(steps):
            ends[k, i], starts[k, i] = bool(ended[k:, i].any()), started
            count.append(t)
            t, started = (0, True) if ended[k, i] else (t + 1, started)
    return ends, starts, torch.tensor(count).reshape(envs, steps).T


@pytest.mark.parametrize("ended", [ENDED, torch.rand(40, 5, generator=torch.Generator().manual_seed(0)) < 0.15], ids=["hand", "random"])
def test_ends_in_window_starts_in_window_and_steps_since_start_positions(ended: Tensor) -> None:
    ends, starts, count = positions(ended)
    assert torch.equal(ends_in_window(ended), ends)
    assert torch.equal(starts_in_window(ended), starts)
    assert torch.equal(steps_since_start(ended), count)


class Chain(NamedTuple):
    """Two states, two actions, a target and a behaviour policy, for exact expectations."""

    P: Tensor  # [S, A, S]
    R: Tensor  # [S, A]
    pi: Tensor  # [S, A]
    mu: Tensor  # [S, A]
    kl: Tensor  # [S]
    alpha: float


def chain(alpha: float) -> Chain:
    rng = torch.Generator().manual_seed(3)
    P, pi, mu = (torch.rand(2, 2, n, generator=rng, dtype=torch.float64) for n in (2, 1, 1))
    pi, mu = (x.squeeze(-1) / x.squeeze(-1).sum(1, keepdim=True) for x in (pi, mu))
    kl = (pi * (pi / 0.5).log()).sum(1)  # to the uniform prior
    return Chain(P / P.sum(2, keepdim=True), torch.randn(2, 2, generator=rng, dtype=torch.float64), pi, mu, kl, alpha)


def soft_values(c: Chain, policy: Tensor) -> tuple[Tensor, Tensor]:
    """V and Q of a policy with rewards r - alpha KL, by a linear solve."""
    P = torch.einsum("sa,sax->sx", policy, c.P)
    r = (policy * c.R).sum(1) - c.alpha * c.kl
    v = torch.linalg.solve(torch.eye(2, dtype=torch.float64) - GAMMA * P, r)
    return v, c.R + GAMMA * c.P @ v


def every_path(c: Chain, policy: Tensor, start: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """All (states [T+1], actions [T]) from one state, as columns, with their probability [N] under a policy."""
    codes = torch.tensor(list(product(range(2), repeat=2 * length))).T
    actions, successors = codes[:length], codes[length:]
    states = torch.cat((torch.full((1, codes.shape[1]), start), successors))
    weight = policy[states[:-1], actions] * c.P[states[:-1], actions, successors]
    return states, actions, weight.prod(0)


@pytest.mark.parametrize("alpha", [0.0, 0.7])
@pytest.mark.parametrize("lam", [0.4, 1.0])
def test_retrace_and_v_trace_off_policy_have_the_target_policys_values_as_fixed_points(alpha: float, lam: float) -> None:
    """Expected Retrace at Q^pi is Q^pi, soft or not, and V-trace at V^pi with rho unclipped V^pi: every path of three steps, weighted."""
    c = chain(alpha)
    v, q = soft_values(c, c.pi)
    assert torch.allclose(expected_value(c.pi, q, c.kl, alpha), v)
    for start in range(2):
        s, a, p = every_path(c, c.mu, start, 3)
        ended, discount = torch.zeros_like(a, dtype=torch.bool), torch.ones(a.shape, dtype=torch.float64)
        ratio = (c.pi / c.mu).log()[s[:-1], a]
        out = retrace(c.R[s[:-1], a], discount, ended, q[s[:-1], a], v[s[1:]], ratio, GAMMA, lam)
        for first in range(2):
            chosen = a[0] == first
            assert float((p * out[0])[chosen].sum() / p[chosen].sum()) == pytest.approx(float(q[start, first]), abs=1e-12)
        reward = c.R[s[:-1], a] - alpha * c.kl[s[:-1]]  # D_KL does not depend on the action: as rho weighs it
        traced = v_trace(reward, discount, ended, v[s[:-1]], v[s[1:]], ratio, GAMMA, lam, rho_bar=float("inf"))
        assert float((p * traced.value[0]).sum()) == pytest.approx(float(v[start]), abs=1e-12)


def test_kl_gae_in_expectation_is_the_soft_advantage_for_either_kl() -> None:
    """Q - V with the KL of the step itself left out, whether KL_t is D_KL(s) or the action's log-ratio: C13, by enumeration."""
    c = chain(0.7)
    v, q = soft_values(c, c.pi)
    log_ratio = (c.pi / 0.5).log()
    for start in range(2):
        s, a, p = every_path(c, c.pi, start, 3)
        ended, discount = torch.zeros_like(a, dtype=torch.bool), torch.ones(a.shape, dtype=torch.float64)
        for kl in (c.kl[s[:-1]], log_ratio[s[:-1], a]):
            out = kl_gae(c.R[s[:-1], a], kl, discount, ended, v[s[:-1]], v[s[1:]], GAMMA, 0.6, c.alpha)[0]
            for first in range(2):
                chosen = a[0] == first
                mean = float((p * out)[chosen].sum() / p[chosen].sum())
                assert mean == pytest.approx(float(q[start, first] - v[start]), abs=1e-12)


@few
@given(windows(), st.sampled_from([torch.float32, torch.bfloat16]))
def test_returns_keep_the_dtype(w: Window, dtype: torch.dtype) -> None:
    low = Window(*(x if x.dtype == torch.bool else x.to(dtype) for x in w[:-1]), w.lam)
    assert discounted_return(*low.head, low.next_value, GAMMA).dtype == dtype
    assert n_step_return(*low.head, low.next_value, GAMMA, 3).dtype == dtype
    assert retrace(*low.head, low.q, low.next_value, low.log_ratio, GAMMA, w.lam).dtype == dtype
    assert v_trace(*low.head, low.value, low.next_value, low.log_ratio, GAMMA).value.dtype == dtype
    assert exclude_current_kl(gae(*low.head, low.value, low.next_value, GAMMA, w.lam), low.kl, 0.5).dtype == dtype


def test_gae_long_window_in_float32_agrees_with_a_recursion_in_float64() -> None:
    """2048 steps: products of 2048 factors underflow, sums must not suffer."""
    rng = torch.Generator().manual_seed(0)
    reward, value = torch.randn(2, 2048, 4, generator=rng)
    ended = torch.rand(2048, 4, generator=rng) < 0.005
    next_value = value.roll(-1, 0)
    out = gae(reward, torch.ones_like(reward), ended, value, next_value, 0.99, 0.95)
    carry, expected = torch.zeros(4, dtype=torch.float64), []
    for t in reversed(range(2048)):
        delta = reward[t].double() + 0.99 * next_value[t].double() - value[t].double()
        carry = delta + 0.99 * 0.95 * torch.where(ended[t], 0.0, carry)
        expected.append(carry)
    assert torch.allclose(out.double(), torch.stack(expected[::-1]), atol=1e-5)


def test_returns_do_not_synchronise() -> None:
    """Meta tensors have no contents: reading one, or a shape that depends on one, would fail."""
    x = torch.zeros(6, 3, device="meta")
    head, cut = (x, x), x.bool()
    shapes = {
        tuple(y.shape)
        for y in (
            n_step_return(*head, cut, x, GAMMA, 3),
            lambda_return(*head, cut, x, GAMMA, 0.5),
            kl_gae(x, x, x, cut, x, x, GAMMA, 0.95, 0.1),
            retrace(*head, cut, x, x, x, GAMMA),
            *v_trace(*head, cut, x, x, x, GAMMA),
        )
    }
    assert shapes == {(6, 3)}


@pytest.mark.parametrize("column", [torch.zeros(3, 2, 1), torch.zeros(2, 2)])
def test_returns_of_unequal_shapes_are_refused(column: Tensor) -> None:
    x = torch.zeros(3, 2)
    with pytest.raises(UserError, match="next_value"):
        discounted_return(x, x, x.bool(), column, GAMMA)
    with pytest.raises(UserError, match="n >= 1, not 0"):
        n_step_return(x, x, x.bool(), x, GAMMA, 0)
