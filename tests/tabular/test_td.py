"""Temporal-difference prediction: updates by hand, limits, and convergence on a batch."""

import numpy as np
import pytest

from mbkit.errors import UserError
from mbkit.tabular.environments import grid_episodes
from mbkit.tabular.mdp import MDP, Array, uniform_policy
from mbkit.tabular.monte_carlo import mc_v, returns_to_go
from mbkit.tabular.offline import empirical_mdp
from mbkit.tabular.operators import value_of
from mbkit.tabular.sampling import (
    Episode,
    constant,
    polynomial,
    rows_of,
    sample_average,
    sample_episodes,
)
from mbkit.tabular.td import batch_td, batch_v_backup, n_step_td, td0, td_lambda

GAMMA = 0.9


def walk() -> MDP:
    """Random walk on five states between terminal states 0 and 6; reward 1 at the right end, values k / 6 (Sutton & Barto, example 6.2)."""
    P, R = np.zeros((7, 1, 7)), np.zeros((7, 1))
    for s in range(1, 6):
        P[s, 0, s - 1] = P[s, 0, s + 1] = 0.5
    P[0, 0, 0] = P[6, 0, 6] = 1.0
    R[5] = 0.5
    return MDP(P, R, np.eye(7)[3], 1.0, np.isin(np.arange(7), [0, 6]))


def some_episodes(n: int = 6, max_steps: int = 12) -> list[Episode]:
    """Episodes of the walk with random rewards at every step; some terminate, some are truncated."""
    rng = np.random.default_rng(4)
    episodes = sample_episodes(walk(), np.ones((7, 1)), rng, n, max_steps)
    assert max_steps > 12 or {e.discount[-1] for e in episodes} == {0.0, 1.0}
    return [e._replace(reward=rng.normal(size=e.length)) for e in episodes]


def target(e: Episode, v: Array, t: int, n: int) -> float:
    """n-step return by its definition."""
    end = min(t + n, e.length)
    total = sum(GAMMA ** (k - t) * e.reward[k] for k in range(t, end))
    return float(total + GAMMA ** (end - t) * e.discount[end - 1] * v[e.state[end]])


def test_td0_by_hand() -> None:
    """0 -> 1 -> end, rewards 1 and 2, alpha 1/2: V(0) = (1 + 0.9 * 4) / 2 + 0, V(1) = 4 + (2 - 4) / 2."""
    e = Episode(np.array([0, 1, 2]), np.array([0, 0]), np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    before = np.array([0.0, 4.0, 100.0])
    assert np.allclose(td0([e], before, GAMMA, constant(0.5)), [2.3, 3.0, 100.0])
    truncated = e._replace(discount=np.ones(2))
    assert np.allclose(td0([truncated], before, GAMMA, constant(0.5))[1], 4 + (2 + 90 - 4) / 2)
    assert before.tolist() == [0.0, 4.0, 100.0]


@pytest.mark.parametrize("n", [1, 2, 3, 50])
def test_n_step_td_updates_states_in_order(n: int) -> None:
    v = np.random.default_rng(0).normal(size=7)
    expected = v.copy()
    for e in some_episodes():
        for t in range(e.length):
            expected[e.state[t]] += 0.3 * (target(e, expected, t, n) - expected[e.state[t]])
    assert np.allclose(n_step_td(some_episodes(), v, GAMMA, n, constant(0.3)), expected, atol=1e-12)


def test_n_step_td_long_n_is_every_visit_monte_carlo() -> None:
    episodes = [e for e in some_episodes(20, 40) if e.discount[-1] == 0]
    out = n_step_td(episodes, np.full(7, 3.0), GAMMA, 99, sample_average())
    mc = mc_v(episodes, 7, GAMMA, "every")
    assert np.allclose(out, np.where(mc.n > 0, mc.mean, 3.0), atol=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
def test_td_lambda_offline_is_the_forward_view(lam: float) -> None:
    """V at the end of an episode = V + sum over visits of alpha (G^lambda - V), G^lambda a mixture of n-step returns."""
    v = np.random.default_rng(0).normal(size=7)
    e = some_episodes()[0]
    expected = v.copy()
    for t in range(e.length):
        longest = e.length - t
        weights = [(1 - lam) * lam ** (n - 1) for n in range(1, longest)] + [lam ** (longest - 1)]
        mixture = sum(w * target(e, v, t, n) for n, w in enumerate(weights, 1))
        expected[e.state[t]] += 0.2 * (mixture - v[e.state[t]])
    assert np.allclose(td_lambda([e], v, GAMMA, lam, constant(0.2), online=False), expected, atol=1e-12)


def test_td_lambda_1_offline_is_monte_carlo() -> None:
    """alpha times the errors of every visit, summed."""
    v = np.random.default_rng(0).normal(size=7)
    for e in (e for e in some_episodes(20, 40) if e.discount[-1] == 0):
        expected = v.copy()
        np.add.at(expected, e.state[:-1], 0.1 * (returns_to_go(e.reward, GAMMA) - v[e.state[:-1]]))
        assert np.allclose(td_lambda([e], v, GAMMA, 1.0, constant(0.1), online=False), expected, atol=1e-12)


def test_td_lambda_0_is_td0_and_traces_differ_on_revisits() -> None:
    v, episodes = np.random.default_rng(0).normal(size=7), some_episodes()
    for trace in ("accumulating", "replacing"):
        assert np.allclose(td_lambda(episodes, v, GAMMA, 0.0, polynomial(0.6), trace), td0(episodes, v, GAMMA, polynomial(0.6)), atol=1e-12)
    once = Episode(np.array([1, 2, 3, 4]), np.zeros(3, int), np.array([1.0, -1.0, 2.0]), np.ones(3))
    twice = once._replace(state=np.array([1, 2, 1, 4]))
    pair = [[td_lambda([e], v, GAMMA, 0.7, constant(0.3), trace) for trace in ("accumulating", "replacing")] for e in (once, twice)]
    assert np.array_equal(*pair[0])
    assert not np.allclose(*pair[1])


@pytest.mark.parametrize("method", ["td0", "n_step", "lambda"])
def test_td_random_walk_converges_to_the_values(method: str) -> None:
    """1/6, ..., 5/6 from 800 episodes with decreasing learning rates."""
    episodes = sample_episodes(walk(), np.ones((7, 1)), np.random.default_rng(0), 800, 1000)
    start, rate = np.full(7, 0.5), polynomial(0.7)
    learned = {
        "td0": lambda: td0(episodes, start, 1.0, rate),
        "n_step": lambda: n_step_td(episodes, start, 1.0, 4, rate),
        "lambda": lambda: td_lambda(episodes, start, 1.0, 0.6, rate),
    }[method]()
    assert np.abs(learned[1:6] - np.arange(1, 6) / 6).max() < 0.07


def test_batch_td_is_the_value_of_the_empirical_mdp() -> None:
    """Value of the maximum-likelihood process, on the grid's data without actions; a state without data keeps its value."""
    rows = grid_episodes(1)._replace(action=np.zeros(980, np.int64))
    others = rows.state != 7
    rows = type(rows)(*(x[others] for x in rows))
    model = empirical_mdp(rows, 25, 1, 0.95, np.full(25, 1 / 25))
    exact = value_of(model, uniform_policy(model))[:25]
    out = batch_td(rows, np.zeros(25), 0.95, learning_rate=0.5)
    assert np.abs(out - exact).max() < 1e-9
    assert np.abs(batch_v_backup(rows, exact, 0.95) - exact).max() < 1e-12
    assert exact[7] == 0
    assert batch_td(rows, np.full(25, 2.0), 0.95)[7] == 2


def test_batch_td_differs_from_monte_carlo_on_markov_data() -> None:
    """Sutton & Barto, example 6.4: A 0 B 0 once, B 1 six times, B 0 once. V(B) = 3/4; V(A) = 3/4 for TD and 0 for Monte Carlo."""
    first = Episode(np.array([0, 1, 2]), np.zeros(2, int), np.zeros(2), np.array([1.0, 0.0]))
    others = [Episode(np.array([1, 2]), np.zeros(1, int), np.array([r]), np.zeros(1)) for r in [1.0] * 6 + [0.0]]
    td = batch_td(rows_of([first, *others]), np.zeros(3), 1 - 1e-9, learning_rate=1.0)
    assert np.allclose(td, [0.75, 0.75, 0])
    assert mc_v([first, *others], 3, 1.0).mean.tolist() == [0, 0.75, 0]


def test_td_invalid_arguments_are_refused() -> None:
    with pytest.raises(UserError, match="n >= 1, not 0"):
        n_step_td([], np.zeros(2), GAMMA, 0, constant(0.1))
    with pytest.raises(UserError, match="learning rate in"):
        batch_td(grid_episodes(3), np.zeros(25), 0.95, learning_rate=2.0)
    with pytest.raises(UserError, match="at least one episode"):
        rows_of([])
