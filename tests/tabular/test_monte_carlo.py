"""Monte Carlo estimates and importance sampling: expectations by enumeration of all episodes."""

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
from tabular_problems import episodic

from mbkit.errors import UserError
from mbkit.tabular.mdp import MDP, Array, random_policy, uniform_policy
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
from mbkit.tabular.operators import greedy, performance, q_of, value_of
from mbkit.tabular.planning import policy_iteration
from mbkit.tabular.sampling import Episode, constant, sample_episodes


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


def policies(mdp: MDP) -> tuple[Array, Array]:
    rng = np.random.default_rng(5)
    return random_policy(mdp, rng), 0.5 * random_policy(mdp, rng) + 0.5 * uniform_policy(mdp)


def test_mc_v_and_mc_q_first_and_every_visit_by_hand() -> None:
    """Returns of 0 -> 0 -> 1 -> end with rewards 1, 2, 4 and gamma 1/2: 3, 4, 4."""
    e = episode([0, 0, 1, 2], [0, 0, 1], [1, 2, 4])
    assert returns_to_go(e.reward, 0.5).tolist() == [3.0, 4.0, 4.0]
    assert mc_v([e], 3, 0.5, "first").mean.tolist() == [3.0, 4.0, 0.0]
    assert mc_v([e], 3, 0.5, "every").mean.tolist() == [3.5, 4.0, 0.0]
    assert mc_q([e], 3, 2, 0.5, "every").n.tolist() == [[2, 0], [0, 1], [0, 0]]


def test_returns_to_go_expectation_is_the_value() -> None:
    """The expected return from the initial state, over all episodes of up to 6 steps, is V^pi up to the tail."""
    mdp = episodic(S=3)
    pi = random_policy(mdp, np.random.default_rng(0))
    total = np.zeros(3)
    for e, p in every_episode(mdp, pi, 6):
        total[e.state[0]] += p * returns_to_go(e.reward, mdp.gamma)[0]
    tail = (0.9 * (1 - mdp.P[:-1, :, -1].min())) ** 6 * np.abs(value_of(mdp, pi)).max()
    assert np.abs(total[:2] / mdp.mu0[:2] - value_of(mdp, pi)[:2]).max() <= tail


@pytest.mark.parametrize("visits", ["first", "every"])
def test_mc_q_many_episodes_approaches_q(visits: Any) -> None:
    mdp = episodic()
    pi = uniform_policy(mdp)
    out = mc_q(sample_episodes(mdp, pi, np.random.default_rng(0), 5000, 100), 4, 2, mdp.gamma, visits)
    assert np.abs(out.mean - q_of(mdp, pi)).max() < 0.1


def test_mc_control_converges_to_the_optimum() -> None:
    """The greedy policy is optimal under GLIE; one improvement of the uniform policy is not on this MDP."""
    mdp = episodic(seed=118)
    best = policy_iteration(mdp)
    assert performance(mdp, greedy(q_of(mdp, uniform_policy(mdp)))) < performance(mdp, best.pi) - 0.3
    out = mc_control(mdp, np.random.default_rng(0), 2000, 50, epsilon=lambda k: (k + 1) ** -0.3, learning_rate=constant(0.02))
    assert performance(mdp, greedy(out.q)) == pytest.approx(performance(mdp, best.pi), abs=1e-9)
    off = off_policy_mc_control(mdp, np.random.default_rng(0), 3000, 50, uniform_policy(mdp))
    assert performance(mdp, greedy(off.q)) == pytest.approx(performance(mdp, best.pi), abs=1e-9)
    assert np.abs(off.q - best.q).max() < 0.6


@pytest.mark.parametrize("weighting", ["ordinary", "per_decision"])
def test_off_policy_return_and_off_policy_q_are_unbiased(weighting: Weighting) -> None:
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


def test_products_after_exclude_the_first_action() -> None:
    mdp = episodic(S=3)
    target, behaviour = policies(mdp)
    e = episode([0, 1, 0, 2], [0, 1, 1], [1, 2, 3])
    ratio = ratios(e, target, behaviour)
    assert np.allclose(products_after(ratio), [ratio[1] * ratio[2], ratio[2], 1.0])


def test_off_policy_return_per_decision_has_the_smaller_variance() -> None:
    """By enumeration; the weighted estimate of one episode is its return."""
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
def test_off_policy_return_on_policy_is_the_mean(weighting: Weighting) -> None:
    mdp, rng = episodic(), np.random.default_rng(0)
    pi = random_policy(mdp, rng)
    data = sample_episodes(mdp, pi, rng, 50, 30)
    assert np.allclose(off_policy_q(data, pi, pi, 0.9, weighting, "every").mean, mc_q(data, 4, 2, 0.9, "every").mean)
    out = off_policy_return(data, pi, pi, 0.9, weighting)
    assert out.value == pytest.approx(np.mean([returns_to_go(e.reward, 0.9)[0] for e in data]))
    assert out.effective_size == pytest.approx(50)


def test_off_policy_return_many_episodes_is_consistent() -> None:
    mdp, rng = episodic(), np.random.default_rng(2)
    target, behaviour = policies(mdp)
    data = sample_episodes(mdp, behaviour, rng, 2500, 60)
    for weighting in get_args(Weighting):
        out = off_policy_return(data, target, behaviour, 0.9, weighting)
        assert out.value == pytest.approx(performance(mdp, target), abs=0.1)
        assert 125 < out.effective_size < 2500
        assert np.abs(off_policy_q(data, target, behaviour, 0.9, weighting).mean - q_of(mdp, target)).max() < 0.25


def test_off_policy_q_weighted_mean_by_hand() -> None:
    """Two episodes from (0, 0), second actions with weights 2 and 1/2, returns 1 and 6: weighted 5 / 2.5, ordinary 5 / 2."""
    target, behaviour = np.full((3, 2), 0.5), np.full((3, 2), 0.5)
    behaviour[1] = [0.25, 1.0]  # not normalised, because only ratios matter
    data = [episode([0, 1, 2], [0, 0], [0, 1]), episode([0, 1, 2], [0, 1], [0, 6])]
    assert off_policy_q(data, target, behaviour, 1.0, "weighted").mean[0, 0] == pytest.approx(5 / 2.5)
    assert off_policy_q(data, target, behaviour, 1.0, "ordinary").mean[0, 0] == pytest.approx(5 / 2)
    assert off_policy_return(data, target, behaviour, 1.0, "weighted").value == pytest.approx(5 / 2.5)
    assert off_policy_return(data, target, behaviour, 1.0, "ordinary").value == pytest.approx(5 / 2)


def test_ratios_impossible_action_is_refused() -> None:
    with pytest.raises(UserError, match="action 1 in state 0"):
        ratios(episode([0, 1], [1], [1]), np.full((2, 2), 0.5), np.array([[1.0, 0.0], [1.0, 0.0]]))
