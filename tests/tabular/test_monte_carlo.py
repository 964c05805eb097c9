"""Monte Carlo, importance sampling and coverage: expectations by enumerating every episode, not by drawing many."""

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest

from mbkit.tabular.coverage import concentrability, coverage, effective_sample_size, support
from mbkit.tabular.environments import exit_or_loop, one_step_grid
from mbkit.tabular.mdp import MDP, Array, TabularError, random_policy, uniform_policy
from mbkit.tabular.monte_carlo import (
    Weighting,
    mc_control,
    mc_q,
    mc_v,
    off_policy_mc_control,
    off_policy_q,
    off_policy_return,
    products_after,
    ratios,
    returns_to_go,
)
from mbkit.tabular.occupancy import discounted_pairs
from mbkit.tabular.operators import greedy, performance, q_of, value_of
from mbkit.tabular.planning import policy_iteration
from mbkit.tabular.sampling import Episode, constant, epsilon_greedy, rows_of, sample_episode, sample_episodes, sample_rows


def episodic(seed: int = 0, S: int = 4, A: int = 2) -> MDP:
    """A random MDP whose last state is the end, reached with probability 0.3 at least."""
    rng = np.random.default_rng(seed)
    P, R = 0.7 * rng.dirichlet(np.ones(S), (S, A)) + 0.3 * np.eye(S)[-1], rng.normal(size=(S, A))
    P[-1], R[-1] = np.eye(S)[-1], 0.0
    return MDP(P, R, np.append(np.full(S - 1, 1 / (S - 1)), 0.0), 0.9, np.arange(S) == S - 1)


def every_episode(mdp: MDP, pi: Array, max_steps: int) -> Iterator[tuple[Episode, float]]:
    """All episodes of a small MDP with their probability under pi."""

    def grow(states: list[int], actions: list[int], p: float) -> Iterator[tuple[Episode, float]]:
        s = states[-1]
        if mdp.terminal[s] or len(actions) == max_steps:
            path, taken = np.array(states), np.array(actions, np.int64)
            yield Episode(path, taken, mdp.R[path[:-1], taken], (~mdp.terminal[path[1:]]).astype(float)), p
            return
        for a in range(mdp.A):
            for next_s in range(mdp.S):
                if pi[s, a] * mdp.P[s, a, next_s] > 0:
                    yield from grow([*states, next_s], [*actions, a], p * pi[s, a] * mdp.P[s, a, next_s])

    for s in np.flatnonzero(mdp.mu0):
        yield from grow([int(s)], [], float(mdp.mu0[s]))


def episode(states: list[int], actions: list[int], rewards: list[float], terminated: bool = True) -> Episode:
    return Episode(np.array(states), np.array(actions), np.array(rewards, float), np.append(np.ones(len(actions) - 1), not terminated))


# --------------------------------------------------------------------------------------------------------------------- sampling
def test_episodes_end_where_the_process_does_or_at_the_limit() -> None:
    mdp, rng = exit_or_loop(), np.random.default_rng(0)
    out = sample_episode(mdp, np.array([[1.0, 0.0], [1.0, 0.0]]), rng, 10)
    assert (out.state.tolist(), out.action.tolist(), out.reward.tolist(), out.discount.tolist()) == ([0, 1], [0], [1.0], [0.0])
    loops = sample_episode(mdp, np.array([[0.0, 1.0], [1.0, 0.0]]), rng, 3)
    assert loops.length == 3
    assert loops.discount.tolist() == [1.0, 1.0, 1.0]
    forced = sample_episode(mdp, np.array([[1.0, 0.0], [1.0, 0.0]]), rng, 10, start=0, first_action=1)
    assert forced.action.tolist() == [1, 0]
    both = rows_of([loops, out])
    assert both.next_state.tolist() == [0, 0, 0, 1]
    assert both.next_action.tolist() == [1, 1, -1, -1]
    with pytest.raises(TabularError, match="max_steps >= 1, not 0"):
        sample_episode(mdp, np.eye(2), rng, 0)


def test_drawn_frequencies_are_the_probabilities() -> None:
    """Within 4 standard errors: states visited by episodes, and (s, a, s') of single rows."""
    mdp, rng, n = episodic(), np.random.default_rng(1), 40_000
    rows = sample_rows(mdp, rng, n)
    expected = mdp.P[:-1] / (3 * 2)
    counted = np.zeros((4, 2, 4))
    np.add.at(counted, (rows.state, rows.action, rows.next_state), 1)
    assert counted[-1].sum() == 0
    assert np.all(np.abs(counted[:-1] / n - expected) <= 4 * np.sqrt(expected / n))
    pi = random_policy(mdp, rng)
    second = np.einsum("s,sa,sat->t", mdp.mu0, pi, mdp.P)
    seen = np.bincount([sample_episode(mdp, pi, rng, 1).state[1] for _ in range(4000)], minlength=4) / 4000
    assert np.all(np.abs(seen - second) <= 4 * np.sqrt(second / 4000))


def test_epsilon_greedy_shares_ties() -> None:
    assert np.allclose(
        epsilon_greedy(np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 2.0, 1.0, 0.0]]), 0.2), [[0.45, 0.45, 0.05, 0.05], [0.05, 0.85, 0.05, 0.05]]
    )


# -------------------------------------------------------------------------------------------------------------------- on-policy
def test_first_and_every_visit_by_hand() -> None:
    """Returns of 0 -> 0 -> 1 -> end with rewards 1, 2, 4 and gamma 1/2: 3, 4, 4."""
    e = episode([0, 0, 1, 2], [0, 0, 1], [1, 2, 4])
    assert returns_to_go(e.reward, 0.5).tolist() == [3.0, 4.0, 4.0]
    assert mc_v([e], 3, 0.5, "first").mean.tolist() == [3.0, 4.0, 0.0]
    assert mc_v([e], 3, 0.5, "every").mean.tolist() == [3.5, 4.0, 0.0]
    assert mc_q([e], 3, 2, 0.5, "every").n.tolist() == [[2, 0], [0, 1], [0, 0]]


def test_first_visit_means_are_the_values() -> None:
    """The expected return from the start state, over all episodes of up to 6 steps, is V^pi up to the tail."""
    mdp = episodic(S=3)
    pi = random_policy(mdp, np.random.default_rng(0))
    total = np.zeros(3)
    for e, p in every_episode(mdp, pi, 6):
        total[e.state[0]] += p * returns_to_go(e.reward, mdp.gamma)[0]
    tail = (0.9 * (1 - mdp.P[:-1, :, -1].min())) ** 6 * np.abs(value_of(mdp, pi)).max()
    assert np.abs(total[:2] / mdp.mu0[:2] - value_of(mdp, pi)[:2]).max() <= tail


@pytest.mark.parametrize("visits", ["first", "every"])
def test_sampled_means_approach_q(visits: Any) -> None:
    mdp = episodic()
    pi = uniform_policy(mdp)
    out = mc_q(sample_episodes(mdp, pi, np.random.default_rng(0), 5000, 100), 4, 2, mdp.gamma, visits)
    assert np.abs(out.mean - q_of(mdp, pi)).max() < 0.1


def test_control_finds_the_optimum() -> None:
    """Greedy policy of a mean of returns, GLIE; one improvement of the uniform policy would not do on this MDP."""
    mdp = episodic(seed=118)
    best = policy_iteration(mdp)
    assert performance(mdp, greedy(q_of(mdp, uniform_policy(mdp)))) < performance(mdp, best.pi) - 0.3
    out = mc_control(mdp, np.random.default_rng(0), 2000, 50, epsilon=lambda k: (k + 1) ** -0.3, step_size=constant(0.02))
    assert performance(mdp, greedy(out.q)) == pytest.approx(performance(mdp, best.pi), abs=1e-9)
    off = off_policy_mc_control(mdp, np.random.default_rng(0), 3000, 50, uniform_policy(mdp))
    assert performance(mdp, greedy(off.q)) == pytest.approx(performance(mdp, best.pi), abs=1e-9)
    assert np.abs(off.q - best.q).max() < 0.6


# ------------------------------------------------------------------------------------------------------------------- off-policy
def policies(mdp: MDP) -> tuple[Array, Array]:
    rng = np.random.default_rng(5)
    return random_policy(mdp, rng), 0.5 * random_policy(mdp, rng) + 0.5 * uniform_policy(mdp)


@pytest.mark.parametrize("weighting", ["ordinary", "per_decision"])
def test_importance_sampling_is_unbiased(weighting: Weighting) -> None:
    """E_b of the estimate of one episode is E_pi of the return, of J and of Q at the first pair, exactly."""
    mdp = episodic(S=3)
    target, behaviour = policies(mdp)
    truth = sum(p * returns_to_go(e.reward, mdp.gamma)[0] for e, p in every_episode(mdp, target, 4))
    estimate, q, q_truth, weight = 0.0, np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 2))
    for e, p in every_episode(mdp, behaviour, 4):
        estimate += p * off_policy_return([e], target, behaviour, mdp.gamma, weighting).value
        first = (e.state[0], e.action[0])
        q[first] += p * off_policy_q([e], target, behaviour, mdp.gamma, weighting).mean[first]
        weight[first] += p
    assert estimate == pytest.approx(float(truth), abs=1e-12)
    for e, p in every_episode(mdp, target, 4):
        first = (e.state[0], e.action[0])
        q_truth[first] += p * returns_to_go(e.reward, mdp.gamma)[0] / (mdp.mu0[first[0]] * target[first])
    assert np.allclose(q[:2] / weight[:2], q_truth[:2], atol=1e-12)


def test_a_weight_has_the_actions_after_the_first() -> None:
    mdp = episodic(S=3)
    target, behaviour = policies(mdp)
    e = episode([0, 1, 0, 2], [0, 1, 1], [1, 2, 3])
    ratio = ratios(e, target, behaviour)
    assert np.allclose(products_after(ratio), [ratio[1] * ratio[2], ratio[2], 1.0])


def test_per_decision_weights_have_the_smaller_variance_here() -> None:
    """By enumeration; and the weighted estimate of one episode is its return, so its spread is that of b's returns."""
    mdp = episodic(S=3)
    target, behaviour = policies(mdp)
    spread = {}
    for weighting in get_args(Weighting):
        values, p = zip(
            *((off_policy_return([e], target, behaviour, 0.9, weighting).value, p) for e, p in every_episode(mdp, behaviour, 4)),
            strict=True,
        )
        spread[weighting] = np.average(np.square(values), weights=p) - np.average(values, weights=p) ** 2
    assert spread["per_decision"] < spread["ordinary"]
    one = next(e for e, _ in every_episode(mdp, behaviour, 4) if e.length == 3)
    assert off_policy_return([one], target, behaviour, 0.9).value == pytest.approx(returns_to_go(one.reward, 0.9)[0])


@pytest.mark.parametrize("weighting", get_args(Weighting))
def test_on_policy_all_weightings_are_the_mean(weighting: Weighting) -> None:
    mdp, rng = episodic(), np.random.default_rng(0)
    pi = random_policy(mdp, rng)
    data = sample_episodes(mdp, pi, rng, 50, 30)
    assert np.allclose(off_policy_q(data, pi, pi, 0.9, weighting, "every").mean, mc_q(data, 4, 2, 0.9, "every").mean)
    out = off_policy_return(data, pi, pi, 0.9, weighting)
    assert out.value == pytest.approx(np.mean([returns_to_go(e.reward, 0.9)[0] for e in data]))
    assert out.effective_size == pytest.approx(50)


def test_off_policy_estimates_are_consistent() -> None:
    mdp, rng = episodic(), np.random.default_rng(2)
    target, behaviour = policies(mdp)
    data = sample_episodes(mdp, behaviour, rng, 2500, 60)
    for weighting in get_args(Weighting):
        out = off_policy_return(data, target, behaviour, 0.9, weighting)
        assert out.value == pytest.approx(performance(mdp, target), abs=0.1)
        assert 125 < out.effective_size < 2500
        assert np.abs(off_policy_q(data, target, behaviour, 0.9, weighting).mean - q_of(mdp, target)).max() < 0.25


def test_weighted_means_by_hand() -> None:
    """Two episodes from (0, 0), the second actions weighing 2 and 1/2, returns 1 and 6: 5 / 2.5, where ordinary is 5 / 2."""
    target, behaviour = np.full((3, 2), 0.5), np.full((3, 2), 0.5)
    behaviour[1] = [0.25, 1.0]  # no distribution, but only ratios count
    data = [episode([0, 1, 2], [0, 0], [0, 1]), episode([0, 1, 2], [0, 1], [0, 6])]
    assert off_policy_q(data, target, behaviour, 1.0, "weighted").mean[0, 0] == pytest.approx(5 / 2.5)
    assert off_policy_q(data, target, behaviour, 1.0, "ordinary").mean[0, 0] == pytest.approx(5 / 2)
    assert off_policy_return(data, target, behaviour, 1.0, "weighted").value == pytest.approx(5 / 2.5)
    assert off_policy_return(data, target, behaviour, 1.0, "ordinary").value == pytest.approx(5 / 2)


def test_impossible_data_are_refused() -> None:
    with pytest.raises(TabularError, match="action 1 in state 0"):
        ratios(episode([0, 1], [1], [1]), np.full((2, 2), 0.5), np.array([[1.0, 0.0], [1.0, 0.0]]))


# --------------------------------------------------------------------------------------------------------------------- coverage
def test_effective_sample_size() -> None:
    assert effective_sample_size(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_sample_size(np.array([0.0, 2.0, 0.0])) == pytest.approx(1)
    assert effective_sample_size(np.array([1.0, 2.0, 3.0])) == pytest.approx(36 / 14)
    assert effective_sample_size(np.array([1e300, 1e300])) == pytest.approx(2)
    assert effective_sample_size(np.zeros(3)) == 0
    with pytest.raises(TabularError, match="finite"):
        effective_sample_size(np.array([1.0, np.nan]))


def test_concentrability() -> None:
    assert concentrability(np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.75, 0.0])) == pytest.approx(2)
    assert concentrability(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == np.inf
    with pytest.raises(TabularError, match="one shape"):
        concentrability(np.ones(2), np.ones(3))


def test_coverage_of_the_behaviour_itself_and_of_a_policy_that_leaves_the_data() -> None:
    """With rows drawn from d^pi, the ratio is near 1; without the pairs that the optimum needs, what lies outside is their mass."""
    mdp, rng = one_step_grid(1), np.random.default_rng(0)
    pi = uniform_policy(mdp)
    own = coverage(mdp, pi, sample_rows(mdp, rng, 100_000, discounted_pairs(mdp, pi)))
    assert own.support.all()
    assert own.outside == 0
    assert own.concentrability == pytest.approx(1, abs=0.3)
    assert own.effective_size > 0.99 * 100_000
    down = np.eye(5)[np.zeros(25, int)]  # always 0, down: 0, 5, 10, 15, then 20 for ever
    weight = np.ones((25, 5))
    weight[20, 0] = 0
    left = coverage(mdp, down, sample_rows(mdp, rng, 20_000, weight))
    assert not left.support[20, 0]
    assert left.outside == pytest.approx(0.95**4)
    assert left.concentrability == np.inf
    assert np.array_equal(support(left.tried, 1), left.support)
    assert left.tried.sum() == 20_000


def test_coverage_leaves_the_end_out() -> None:
    """All that a policy does before the end of `exit_or_loop` is to exit, which three of four rows did."""
    mdp, exits = exit_or_loop(), np.array([[1.0, 0.0], [1.0, 0.0]])
    rows = sample_rows(mdp, np.random.default_rng(0), 4)._replace(action=np.array([0, 0, 0, 1]))
    out = coverage(mdp, exits, rows)
    assert (out.outside, out.concentrability, out.effective_size) == pytest.approx((0, 4 / 3, 3))
